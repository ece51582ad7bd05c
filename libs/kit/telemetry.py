"""Traces: one trace from a REST call through every service, workflow, activity and connector's process.

The context travels as W3C `traceparent`: in HTTP headers, gRPC metadata, Temporal headers, and the environment of child
processes. Spans carry names of methods and resources, never values.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import propagate, trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SimpleSpanProcessor,
)
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased

TRACER = trace.get_tracer("traitmesh")


def configure(service: str, exporter: str) -> None:
    """Sends this process's spans to `exporter`: "none", "console" (a line each on stderr) or "otlp"."""
    # Spans that go nowhere are not made at all: that saves each call a twentieth of a millisecond.
    sampler = ParentBased(ALWAYS_OFF) if exporter == "none" else ParentBased(ALWAYS_ON)
    provider = TracerProvider(sampler=sampler, resource=Resource.create({"service.name": service}))
    if exporter == "console":
        console = ConsoleSpanExporter(out=sys.stderr, formatter=_as_line)
        provider.add_span_processor(SimpleSpanProcessor(console))
    elif exporter == "otlp":
        # Imported only when asked for: it costs every other process's start a tenth of a second.
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )

        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


@contextmanager
def server_span(name: str, headers: Mapping[str, str]) -> Iterator[trace.Span]:
    """A span for answering a call, as part of the trace that the caller's headers name."""
    context = propagate.extract(headers)
    with TRACER.start_as_current_span(name, context=context, kind=trace.SpanKind.SERVER) as span:
        yield span


def outgoing_headers() -> dict[str, str]:
    """Headers that make whoever is called next part of the current trace."""
    headers: dict[str, str] = {}
    propagate.inject(headers)
    return headers


def child_environment() -> dict[str, str]:
    """The same for a child process: TRACEPARENT and its like."""
    return {key.upper(): value for key, value in outgoing_headers().items()}


def _as_line(span: ReadableSpan) -> str:
    return str(span.to_json(indent=None)) + "\n"
