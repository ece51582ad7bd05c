"""Calls that take a stream of requests.

They go through gRPC's blocking API: grpc.aio loses the status of a call that the service ends before every request is
written, and tells INTERNAL instead (https://github.com/grpc/grpc/issues/36066).
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import CancelledError, Future
from typing import Any

import grpc


async def call_with_stream(
    method: Any, requests: AsyncIterator[Any], metadata: tuple[tuple[str, str], ...], timeout: float
) -> Any:
    """Calls a grpc.StreamUnaryMultiCallable with requests that are made one by one as the service takes them.

    Raises grpc.RpcError, or what `requests` raises; the call is cancelled then, never ended as if it were whole.
    """
    loop = asyncio.get_running_loop()
    failures: list[Exception] = []
    pending: Future[Any] = Future()

    async def following() -> Any:
        try:
            return await anext(requests, None)
        except Exception as error:  # noqa: BLE001 -- handed over to whoever awaits the call
            failures.append(error)
            call.cancel()
            return None

    def blocking() -> Iterator[Any]:
        nonlocal pending
        while True:
            pending = asyncio.run_coroutine_threadsafe(following(), loop)
            try:
                request = pending.result()
            except CancelledError:
                return  # the service has answered and wants no more
            if request is None:
                return
            yield request

    call = method.future(blocking(), metadata=metadata, timeout=timeout)
    ended = asyncio.Event()
    call.add_done_callback(lambda _: loop.call_soon_threadsafe(ended.set))
    try:
        await ended.wait()
    finally:
        call.cancel()
        pending.cancel()
    if failures:
        raise failures[0]
    return _result(call)


def _result(call: Any) -> Any:
    try:
        return call.result()
    except grpc.FutureCancelledError:
        raise asyncio.CancelledError from None
