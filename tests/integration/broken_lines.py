"""Lines between a client and a herder that lose replies, and that break in the middle of what they bring."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx

STREAMS = ("text/event-stream", "application/jsonl")


class Lossy(httpx.AsyncHTTPTransport):
    """Loses the first replies to submissions: the herder has accepted, and the client does not know it."""

    def __init__(self, lost: int = 2) -> None:
        super().__init__()
        self._lost = lost
        self.requests: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        response = await super().handle_async_request(request)
        if request.method == "POST" and self._lost:
            self._lost -= 1
            await response.aclose()
            raise httpx.ReadError("the line broke")
        return response


class Cutting(Lossy):
    """Breaks every stream as well, the first one after `first` bytes, the others `step` bytes later each time."""

    def __init__(self, first: int, step: int, lost: int = 0) -> None:
        super().__init__(lost)
        self._left, self._step = first, step

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        if response.headers["content-type"].startswith(STREAMS):
            assert isinstance(response.stream, httpx.AsyncByteStream)
            response.stream = _Cut(response.stream, self._left)
            self._left += self._step
        return response


class _Cut(httpx.AsyncByteStream):
    def __init__(self, inner: httpx.AsyncByteStream, left: int) -> None:
        self._inner, self._left = inner, left

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._inner:
            yield piece[: self._left]
            self._left -= len(piece)
            if self._left < 0:
                raise httpx.ReadError("the line broke")

    async def aclose(self) -> None:
        await self._inner.aclose()
