"""Callers of a server of answers, ours or llama-server: each asks over HTTP and notes when its tokens came.

Both are read as event streams by the same few lines, so that what the callers cost is the same on both sides; the
events are only looked into once the answer is whole. Must not know how a server is started.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import httptools

ANSWER_S = 1800.0
WORDS = (
    "the river stone light garden quiet morning paper winter engine signal coffee forest window market little "
    "summer bridge letter silver mountain number public history person return water country general under"
).split()


@dataclass(frozen=True)
class Answer:
    """What came of one request. `arrivals` are (seconds of the monotonic clock, tokens) of each event with tokens."""

    began: float
    ended: float
    arrivals: tuple[tuple[float, int], ...]
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    text: str

    @property
    def first_token_s(self) -> float:
        """From the request to the first token."""
        return self.arrivals[0][0] - self.began


@dataclass(frozen=True)
class Asked:
    """What is asked for: so many tokens after `prompt`, or after a chat; `heard` is called as events arrive.

    `multiplier` is a bid, of which llama-server knows nothing.
    """

    tokens: int
    prompt: str = ""
    messages: tuple[dict[str, str], ...] = ()
    multiplier: float = 1.0
    heard: Callable[[], None] | None = None


Ask = Callable[[Asked], Coroutine[Any, Any, Answer]]
Events = list[tuple[float, Any]]


def of_ring(port: int, key: str) -> Ask:
    """Asks our herder: submits a job and reads its events."""

    async def ask(asked: Asked) -> Answer:
        what: dict[str, object] = {"tokens": asked.tokens, "temperature": 0, "multiplier": asked.multiplier}
        what |= {"messages": asked.messages} if asked.messages else {"prompt": asked.prompt, "raw": True}
        began, events, ended = await _events(
            port, "/v1/jobs?stream=true", what, asked.heard, f"X-API-Key: {key}\r\n"
        )
        (last,) = [event for _, event in events if "status" in event]
        assert last["status"] == "succeeded", last
        arrivals = tuple((at, int(event["count"])) for at, event in events if "count" in event)
        found = last["result"]
        return Answer(
            began, ended, arrivals,
            found["prompt_tokens"], found["cached_tokens"], found["completion_tokens"], found["text"],
        )  # fmt: skip

    return ask


def of_llama_server(port: int, **options: object) -> Ask:
    """Asks llama-server's own `/completion`, whose answers have all their tokens; `options` join each request."""

    async def ask(asked: Asked) -> Answer:
        what = {"prompt": asked.prompt, "n_predict": asked.tokens, "temperature": 0, "ignore_eos": True}
        what |= {"samplers": ["temperature"], "stream": True, **options}
        began, events, ended = await _events(port, "/completion", what, asked.heard)
        last = events[-1][1]
        assert last["stop"], last
        arrivals = tuple((at, len(event["tokens"])) for at, event in events if event["tokens"])
        text = "".join(event["content"] for _, event in events)
        evaluated = last["tokens_evaluated"]
        cached = evaluated - last["timings"]["prompt_n"]
        return Answer(began, ended, arrivals, evaluated, cached, last["tokens_predicted"], text)

    return ask


async def closed_loops(ask: Ask, queues: Sequence[Sequence[Asked]]) -> tuple[list[Answer], float]:
    """A caller for each queue, who asks for one thing after the other, all at once: the answers, and the seconds."""

    async def call(queue: Sequence[Asked]) -> list[Answer]:
        return [await ask(asked) for asked in queue]

    began = time.monotonic()
    answers = await asyncio.gather(*map(call, queues))
    return [answer for each in answers for answer in each], time.monotonic() - began


def tokens_per_s(answers: Sequence[Answer], seconds: float) -> float:
    """What was really produced, a second."""
    return sum(answer.completion_tokens for answer in answers) / seconds


def words(count: int, *seed: object) -> str:
    """So many words, the same for the same seed; texts of two seeds share hardly a beginning."""
    rng = random.Random(repr(seed))
    return " ".join(rng.choice(WORDS) for _ in range(count))


class _Stream(asyncio.Protocol):
    """One request and its response: the lines `data: …`, each with the time at which it was whole."""

    def __init__(self, request: bytes, heard: Callable[[], None] | None) -> None:
        self._request = request
        self._heard = heard
        self._parser = httptools.HttpResponseParser(self)
        self._rest = b""
        self._now = 0.0
        self.lines: list[tuple[float, bytes]] = []
        self.body = b""
        self.done: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Listen."""
        self._now = time.monotonic()
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """For the parser."""
        *lines, self._rest = (self._rest + body).split(b"\n")
        self.lines += [(self._now, line[6:]) for line in lines if line.startswith(b"data: ")]
        if not self.lines:
            self.body += body
        elif self._heard is not None:
            self._heard()

    def on_message_complete(self) -> None:
        """For the parser."""
        if not self.done.done():
            self.done.set_result(self._parser.get_status_code())
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """A response that ends too soon is no answer."""
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the response broke off"))


async def _events(
    port: int, path: str, what: object, heard: Callable[[], None] | None, headers: str = ""
) -> tuple[float, Events, float]:
    """(when it was asked, each event with the time of its arrival, when the response was whole)."""
    body = json.dumps(what).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    began = time.monotonic()
    _, stream = await asyncio.get_running_loop().create_connection(
        lambda: _Stream(head.encode() + body, heard), "127.0.0.1", port
    )
    async with asyncio.timeout(ANSWER_S):
        status = await stream.done
    ended = time.monotonic()
    assert status == 200, f"{path}: {status} {stream.body[:500]!r}"
    return began, [(at, json.loads(line)) for at, line in stream.lines if line != b"[DONE]"], ended
