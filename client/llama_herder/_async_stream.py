"""`AsyncEventStream`: performs the flows of `_streams` with httpx, one connection at a time, for asyncio."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Self

import httpx

from llama_herder._core import Broken, Effect, Outcome, Reply
from llama_herder._http import broken_of, is_stream, lower_case, reply_of, stream_request_of
from llama_herder._streams import Close, E, Emit, Emitting, Open, Opened, Read, StreamOutcome
from llama_herder.events import Event


class AsyncEventStream(AsyncIterator[Event]):
    """The events of one job, as they come; nothing is sent before the first is asked for.

    Its connection is closed once the loop over it ends; after a loop that was left early, by `aclose` or `async with`.

    >>> async with herder.stream("What is a chatbot?", tokens=40) as events:
    ...     async for event in events:
    ...         last = event
    >>> last.job.status
    'succeeded'
    """

    def __init__(self, events: AsyncGenerator[Event, None]) -> None:
        self._events = events

    async def __anext__(self) -> Event:
        return await anext(self._events)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Hang up; the job goes on, unless it was asked for with `cancel_on_disconnect`."""
        await self._events.aclose()


class Line:
    """The one connection of a stream."""

    def __init__(self, client: httpx.AsyncClient, timeout: float) -> None:
        self._client, self._timeout = client, timeout
        self._response: httpx.Response | None = None
        self._pieces: AsyncIterator[bytes] | None = None

    async def open(self, effect: Open) -> Opened | Reply | Broken:
        """A stream that is left open, or any other reply, read whole."""
        request = self._client.build_request(**stream_request_of(effect, self._timeout))
        try:
            self._response = await self._client.send(request, stream=True)
            if is_stream(self._response, effect.kind):
                self._pieces = self._response.aiter_bytes()
                return Opened(lower_case(self._response.headers))
            await self._response.aread()
            return reply_of(self._response)
        except httpx.RequestError as error:
            return broken_of(error)

    async def read(self) -> bytes | Broken:
        """The next bytes; none at the end."""
        assert self._pieces is not None
        try:
            return await anext(self._pieces, b"")
        except httpx.RequestError as error:
            return broken_of(error)

    async def close(self) -> None:
        """Hang up, if anything is open."""
        if self._response is not None:
            await self._response.aclose()
            self._response = None


async def performed(
    flow: Emitting[E], line: Line, act: Callable[[Effect], Awaitable[Outcome]]
) -> AsyncGenerator[E, None]:
    """The events of a flow; `act` performs what any flow asks for."""
    outcome: StreamOutcome = None
    try:
        while True:
            try:
                effect = flow.send(outcome)
            except StopIteration:
                return
            outcome = None
            if isinstance(effect, Emit):
                yield effect.event
            elif isinstance(effect, Open):
                outcome = await line.open(effect)
            elif isinstance(effect, Read):
                outcome = await line.read()
            elif isinstance(effect, Close):
                await line.close()
            else:
                outcome = await act(effect)
    finally:
        await line.close()
