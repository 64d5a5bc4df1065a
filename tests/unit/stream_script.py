"""A herder in memory for the client's streams: its log, and what goes wrong on each connection in turn.

Both clients are driven over it; time passes only where they pause.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

import llama_herder
from llama_herder import (
    AsyncHerder,
    Done,
    Event,
    Herder,
    HerderError,
    Queued,
    Restarted,
    Started,
    Tokens,
    _async,
    _sync,
)

JOB = "job_1"
DONE = {"id": JOB, "status": "succeeded", "result": {"text": "What ♥ is\nthis"}}
FAILED = {
    "id": JOB,
    "status": "failed",
    "refunded": 50,
    "error": {"code": "engine_error", "message": "it broke"},
}
Frame = tuple[str | None, str, dict[str, Any]]
Fault = Callable[[httpx.Request], httpx.Response]

LOG: list[Frame] = [
    ("10-0", "queued", {"job_id": JOB, "position": 1, "eta_ms": 1200}),
    ("20-0", "started", {"attempt": 1}),
    ("21-0", "tokens", {"attempt": 1, "index": 0, "count": 2, "text": "Wh"}),
    ("30-0", "restarted", {"attempt": 2}),
    ("30-1", "tokens", {"attempt": 2, "index": 0, "count": 3, "text": "What ♥"}),
    ("31-0", "tokens", {"attempt": 2, "index": 3, "count": 2, "text": " is\nthis"}),
    ("40-0", "done", DONE),
]

BOTH = pytest.mark.parametrize("kind", [Herder, AsyncHerder])
ALL = [
    Queued(JOB, 1, 1200, id="10-0"),
    Started(1, id="20-0"),
    Tokens("Wh", 2, 0, 1, id="21-0"),
    Restarted(2, id="30-0"),
    Tokens("What ♥", 3, 0, 2, id="30-1"),
    Tokens(" is\nthis", 2, 3, 2, id="31-0"),
    Done(llama_herder.Job.from_json(DONE), id="40-0"),
]


def written(frames: Sequence[Frame]) -> bytes:
    """Frames as a herder writes them."""
    text = "retry: 1000\n\n"
    for event_id, event, found in frames:
        line = f"id: {event_id}\r\n" if event_id else ""
        text += f"{line}event: {event}\r\ndata: {json.dumps(found, ensure_ascii=False)}\r\n\r\n: ping\r\n\r\n"
    return text.encode()


class Pieces(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that comes in pieces and then ends, or breaks; knows whether it was closed."""

    def __init__(self, pieces: Sequence[bytes], error: Exception | None = None) -> None:
        self._pieces, self._error = pieces, error
        self.closed = False

    def __iter__(self) -> Iterator[bytes]:
        yield from self._pieces
        if self._error is not None:
            raise self._error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece

    def close(self) -> None:
        self.closed = True

    async def aclose(self) -> None:
        self.closed = True


def problem(status: int, code: str, **headers: str) -> Fault:
    """A refusal."""
    content = {"status": status, "code": code, "detail": f"it is {code}"}
    return lambda request: httpx.Response(status, json=content, headers=headers)


def nothing(error: Exception) -> Fault:
    """No reply at all."""

    def answer(request: httpx.Request) -> httpx.Response:
        raise error

    return answer


@dataclass
class Script:
    """Answers as a herder with this log does, once every fault has had its turn."""

    log: list[Frame] = field(default_factory=lambda: list(LOG))
    faults: list[Fault] = field(default_factory=list)
    located: bool = True
    seen: list[httpx.Request] = field(default_factory=list)
    bodies: list[Pieces] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        return self.faults.pop(0)(request) if self.faults else self.whole(request)

    def whole(self, request: httpx.Request) -> httpx.Response:
        """Everything after the Last-Event-ID; 204 where that was the last; or the job itself."""
        if request.method == "GET" and not request.url.path.endswith("/events"):
            return httpx.Response(200, json=self.log[-1][2])
        rest = self._rest(request)
        return self.streamed(request, [written(rest)]) if rest else httpx.Response(204)

    def cut(self, at: int, error: Exception | None = None) -> Fault:
        """The stream up to a byte; then it ends, or breaks."""

        def answer(request: httpx.Request) -> httpx.Response:
            rest = self._rest(request)
            return self.streamed(request, [written(rest)[:at]], error) if rest else httpx.Response(204)

        return answer

    def streamed(
        self, request: httpx.Request, pieces: Sequence[bytes], error: Exception | None = None
    ) -> httpx.Response:
        """An open stream with these bytes in it."""
        headers = {"content-type": "text/event-stream; charset=utf-8"}
        if request.method == "POST" and self.located:
            headers["location"] = f"/v1/jobs/{JOB}"
        self.bodies.append(Pieces([piece for piece in pieces if piece], error))
        return httpx.Response(200, headers=headers, stream=self.bodies[-1])

    def _rest(self, request: httpx.Request) -> list[Frame]:
        after = request.headers.get("last-event-id")
        ids = [event_id for event_id, _, _ in self.log]
        return self.log[ids.index(after) + 1 :] if after else self.log

    def requests(self) -> list[str]:
        """What was asked for, and after which event."""
        return [
            " ".join([r.method, r.url.path, r.headers.get("last-event-id", "")]).strip() for r in self.seen
        ]


@dataclass
class Pauses:
    """The clock of both clients; it stands still but where they pause."""

    now: float = 1000.0
    taken: list[float] = field(default_factory=list)

    def pause(self, seconds: float) -> None:
        self.taken.append(seconds)
        self.now += seconds

    async def apause(self, seconds: float) -> None:
        self.pause(seconds)

    def use(self, herder: Herder | AsyncHerder, patch: pytest.MonkeyPatch) -> None:
        """Let a client live by this clock."""
        patch.setattr(_sync, "_sleep", self.pause)
        patch.setattr(_async, "_sleep", self.apause)
        kept = herder._patience
        herder._patience = type(kept)(tries=kept.tries, clock=lambda: self.now, jitter=lambda: 1.0)


@dataclass
class Followed:
    """What came of a stream: the events, and how it ended."""

    events: list[Event]
    error: HerderError | None
    pauses: Pauses


def follow(
    kind: type[Herder | AsyncHerder],
    script: Script,
    *,
    after: str | None = None,
    submit: bool = True,
    **more: Any,
) -> Followed:
    """Streams to the end with one of the two clients."""
    pauses, found = Pauses(), list[Event]()
    transport = httpx.MockTransport(script)

    def started(herder: Any) -> Any:
        return herder.stream("hi", 40, **more) if submit else herder.events(JOB, after=after, **more)

    def ordinary() -> None:
        with Herder("http://herd.example", "hk", transport=transport) as herder:
            pauses.use(herder, patch)
            with started(herder) as events:
                found.extend(events)

    async def asynchronous() -> None:
        async with AsyncHerder("http://herd.example", "hk", transport=transport) as herder:
            pauses.use(herder, patch)
            async with contextlib.aclosing(started(herder)) as events:
                async for event in events:
                    found.append(event)

    with pytest.MonkeyPatch.context() as patch:
        try:
            ordinary() if kind is Herder else asyncio.run(asynchronous())
        except HerderError as error:
            return Followed(found, error, pauses)
    return Followed(found, None, pauses)
