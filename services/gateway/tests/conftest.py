"""The library, served once for all tests that use it."""

from collections.abc import Iterator

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool

from libs.kit import telemetry
from services.gateway.tests.library import Client, Library, compile_proto, serving_library
from services.gateway.transcoding.methods import Method, methods_of, pool_of
from services.gateway.transcoding.transcoder import Limits

LIMITS = Limits(json_bytes=64 * 1024, raw_bytes=128 * 1024, stream_bytes=4 * 1024 * 1024, call_seconds=5)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> FileDescriptorSet:
    return compile_proto(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="session")
def pool(files: FileDescriptorSet) -> DescriptorPool:
    return pool_of(files)


@pytest.fixture(scope="session")
def methods(files: FileDescriptorSet, pool: DescriptorPool) -> dict[str, Method]:
    """The first binding of each method, by name."""
    return {method.descriptor.name: method for method in reversed(methods_of(files, pool))}


@pytest.fixture(scope="session", autouse=True)
def traces() -> None:
    telemetry.configure("gateway", "none")


@pytest.fixture(scope="session")
def library(pool: DescriptorPool) -> Library:
    return Library(pool)


@pytest.fixture(scope="session")
def client(files: FileDescriptorSet, library: Library) -> Iterator[Client]:
    with serving_library(files, library, LIMITS) as port:
        yield Client(port)
