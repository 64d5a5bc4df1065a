"""`EventStream`: performs the flows of `_streams` with httpx, one connection at a time, for ordinary code."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from types import TracebackType
from typing import Self

import httpx

from llama_herder._core import Broken, Effect, Outcome, Reply
from llama_herder._http import broken_of, is_stream, lower_case, reply_of, stream_request_of
from llama_herder._streams import Close, E, Emit, Emitting, Open, Opened, Read, StreamOutcome
from llama_herder.events import Event


class EventStream(Iterator[Event]):
    """The events of one job, as they come; nothing is sent before the first is asked for.

    Its connection is closed once the loop over it ends or the stream is closed, at the latest with the stream itself.

    >>> with herder.stream("What is a chatbot?", tokens=40) as events:
    ...     for event in events:
    ...         last = event
    >>> last.job.status
    'succeeded'
    """

    def __init__(self, events: Generator[Event, None, None]) -> None:
        self._events = events

    def __next__(self) -> Event:
        return next(self._events)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up; the job goes on, unless it was asked for with `cancel_on_disconnect`."""
        self._events.close()


class Line:
    """The one connection of a stream."""

    def __init__(self, client: httpx.Client, timeout: float) -> None:
        self._client, self._timeout = client, timeout
        self._response: httpx.Response | None = None
        self._pieces: Iterator[bytes] = iter(())

    def open(self, effect: Open) -> Opened | Reply | Broken:
        """A stream that is left open, or any other reply, read whole."""
        request = self._client.build_request(**stream_request_of(effect, self._timeout))
        try:
            self._response = self._client.send(request, stream=True)
            if is_stream(self._response, effect.kind):
                self._pieces = self._response.iter_bytes()
                return Opened(lower_case(self._response.headers))
            self._response.read()
            return reply_of(self._response)
        except httpx.RequestError as error:
            return broken_of(error)

    def read(self) -> bytes | Broken:
        """The next bytes; none at the end."""
        try:
            return next(self._pieces, b"")
        except httpx.RequestError as error:
            return broken_of(error)

    def close(self) -> None:
        """Hang up, if anything is open."""
        if self._response is not None:
            self._response.close()
            self._response = None


def performed(flow: Emitting[E], line: Line, act: Callable[[Effect], Outcome]) -> Generator[E, None, None]:
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
                outcome = line.open(effect)
            elif isinstance(effect, Read):
                outcome = line.read()
            elif isinstance(effect, Close):
                line.close()
            else:
                outcome = act(effect)
    finally:
        line.close()
