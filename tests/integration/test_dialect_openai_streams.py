"""OpenAI's streams over sockets: pieces as they are made, workers that die, readers that go."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from herder.broker import Broker
from herder.lifecycle import Status
from herder.protocol import Lease, Outcome
from herder.settings import Settings
from tests.integration.api import MODEL, WORKER
from tests.integration.streaming import WAIT_S, Hand, Serving, serving

COMPLETIONS, CHATS = "/v1/completions", "/v1/chat/completions"
ASK = [{"role": "user", "content": "hello"}]
WORDS = ["Bl", "\u2028", "ue", "\r\n", "é."]


@pytest.fixture
async def herder(settings: Settings) -> AsyncIterator[Serving]:
    async with serving(settings.model_copy(update={"presence_ms": 2_000})) as herder:
        yield herder


class Told:
    """What a stream has said so far."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()
        self.events: list[Any] = []

    async def next(self) -> Any:
        """The next event; None at `[DONE]`."""
        async with asyncio.timeout(WAIT_S):
            async for line in self._lines:
                if line.startswith("data: "):
                    self.events.append(None if line == "data: [DONE]" else json.loads(line[6:]))
                    return self.events[-1]
        raise AssertionError("the stream has ended")

    async def rest(self) -> list[Any]:
        """All events, to the end of the stream."""
        with contextlib.suppress(AssertionError):
            while True:
                await self.next()
        return self.events


@contextlib.asynccontextmanager
async def _told(herder: Serving, path: str, **body: Any) -> AsyncIterator[Told]:
    async with herder.http.stream("POST", path, json={**body, "stream": True}) as response:
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-herder-job-id"]
        yield Told(response)


def _text(events: list[Any]) -> str:
    choices = [choice for event in events if event and "choices" in event for choice in event["choices"]]
    return "".join(c["text"] if "text" in c else c["delta"].get("content") or "" for c in choices)


async def test_a_chat_comes_as_it_is_made(herder: Serving, broker: Broker) -> None:
    hand = Hand(broker)
    async with _told(
        herder, CHATS, messages=ASK, max_tokens=9, stream_options={"include_usage": True}
    ) as told:
        assert (await told.next())["choices"][0]["delta"] == {"role": "assistant", "content": ""}
        lease = await hand.lease()
        for i, word in enumerate(WORDS):
            await hand.say(lease, i, word)
            while _text(told.events) != "".join(WORDS[: i + 1]):
                await told.next()
        await hand.settle(lease, "".join(WORDS), 5)
        *events, usage, done = await told.rest()
        assert done is None
        assert (usage["choices"], usage["usage"]["completion_tokens"]) == ([], 5)
        assert events[-1]["choices"][0]["finish_reason"] == "stop"
        assert sum("role" in event["choices"][0]["delta"] for event in events) == 1


async def test_a_completion_comes_as_it_is_made(herder: Serving, broker: Broker) -> None:
    hand = Hand(broker)
    async with _told(herder, COMPLETIONS, prompt="Once", echo=True) as told:
        lease = await hand.lease()
        await hand.say(lease, 0, *WORDS)
        await hand.settle(lease, "".join(WORDS), 5)
        *events, end, done = await told.rest()
        assert _text(events) == "Once" + "".join(WORDS)
        assert (end["choices"][0]["finish_reason"], done) == ("stop", None)
        assert all("usage" not in event for event in [*events, end])


async def test_a_call_is_told_whole_and_text_before_it_at_once(herder: Serving, broker: Broker) -> None:
    hand = Hand(broker)
    tools = [{"type": "function", "function": {"name": "now"}}]
    pieces = ["I look.", " <tool", "_call>", '{"name": "now"}', "</tool_call>"]
    async with _told(herder, CHATS, messages=ASK, tools=tools, max_tokens=9) as told:
        lease = await hand.lease()
        await hand.say(lease, 0, pieces[0])
        while _text(told.events) != "I look.":
            await told.next()
        await hand.say(lease, 1, *pieces[1:])
        await hand.settle(lease, "".join(pieces), 5)
        events = await told.rest()
        assert _text(events) == "I look. "
        calls = [c for e in events if e for c in e["choices"][0]["delta"].get("tool_calls", [])]
        assert [(c["index"], c["function"]) for c in calls] == [(0, {"name": "now", "arguments": "{}"})]
        assert events[-2]["choices"][0]["finish_reason"] == "tool_calls"


async def test_a_worker_that_dies_is_not_noticed_where_the_next_says_the_same(
    herder: Serving, broker: Broker
) -> None:
    hand = Hand(broker)
    async with _told(herder, CHATS, messages=ASK, max_tokens=9) as told:
        first = await hand.lease()
        await hand.say(first, 0, "Bl", "u")
        while _text(told.events) != "Blu":
            await told.next()
        await hand.die(first)
        second = await hand.lease()
        await hand.say(second, 0, "B", "lue.")
        await hand.settle(second, "Blue.", 2)
        assert _text(await told.rest()) == "Blue."


async def test_a_worker_that_answers_differently_ends_the_stream_with_an_error(
    herder: Serving, broker: Broker
) -> None:
    hand = Hand(broker)
    async with _told(herder, CHATS, messages=ASK, max_tokens=9) as told:
        first = await hand.lease()
        await hand.say(first, 0, "Bl")
        while _text(told.events) != "Bl":
            await told.next()
        await hand.die(first)
        second = await hand.lease()
        await hand.say(second, 0, "Red.")
        error = (await told.rest())[-1]["error"]
        assert error["type"] == "conflict_error"
        job = await broker.job(second.job_id)
        while job is not None and not job.cancel_requested:
            job = await broker.job(second.job_id)


async def test_a_job_that_fails_ends_its_stream_with_an_error_and_is_refunded(
    herder: Serving, broker: Broker
) -> None:
    hand = Hand(broker)
    async with _told(herder, COMPLETIONS, prompt="Once") as told:
        await hand.settle(await hand.lease(), "", 0, Outcome.FAILED)
        (event,) = await told.rest()
        assert event["error"]["code"] == "answer_failed"
    account = await herder.herd.ledger.account("alice")
    assert account is not None
    assert (account.available, account.held) == (10**9, 0)


async def _both(broker: Broker) -> list[Lease]:
    """Both items of a batch, in the worker's hands."""
    leases: list[Lease] = []
    async with asyncio.timeout(WAIT_S):
        while len(leases) < 2:
            leases += await broker.lease(WORKER, MODEL, slots=4, kv_free=10**6, kv_total=10**6)
    return sorted(leases, key=lambda lease: lease.brief.prompt)


async def test_of_several_prompts_each_is_told_as_it_ends(herder: Serving, broker: Broker) -> None:
    hand = Hand(broker)
    body = {"prompt": ["a", "b"], "max_tokens": 5, "echo": True, "stream_options": {"include_usage": True}}
    async with _told(herder, COMPLETIONS, **body) as told:
        first, second = await _both(broker)
        await hand.settle(second, "B")
        event = await told.next()
        assert [(c["index"], c["text"], c["finish_reason"]) for c in event["choices"]] == [(1, "bB", "stop")]
        await hand.settle(first, "A")
        *events, usage, done = await told.rest()
        assert [(c["index"], c["text"]) for c in events[-1]["choices"]] == [(0, "aA")]
        assert (usage["choices"], usage["usage"]["completion_tokens"], done) == ([], 2, None)
        assert len({each["id"] for each in [*events, usage]}) == 1


async def test_of_several_prompts_one_that_fails_is_an_error_at_the_end(
    herder: Serving, broker: Broker
) -> None:
    hand = Hand(broker)
    async with _told(herder, COMPLETIONS, prompt=["a", "b"], max_tokens=5) as told:
        first, second = await _both(broker)
        await hand.settle(first, "", 0, Outcome.FAILED)
        await hand.settle(second, "B")
        answer, error = await told.rest()
        assert answer["choices"][0]["text"] == "B"
        assert error["error"]["code"] == "answer_failed"


async def _until_held(herder: Serving, credits_: int) -> None:
    """Until so much is held of alice's."""
    async with asyncio.timeout(WAIT_S):
        while (account := await herder.herd.ledger.account("alice")) is None or account.held != credits_:
            await herder.herd.broker.ping()


async def test_who_leaves_between_two_answers_pays_for_the_first(herder: Serving, broker: Broker) -> None:
    hand = Hand(broker)
    async with herder.client() as client:
        body = {"prompt": ["a", "b", "c"], "max_tokens": 5, "stream": True}
        async with client.stream("POST", COMPLETIONS, json=body) as response:
            told, first = Told(response), await hand.lease()
            await hand.settle(first, "A")
            assert (await told.next())["choices"][0]["text"] == "A"
    await _until_held(herder, 0)  # without a sweep, and without a courier
    account, paid = await herder.herd.ledger.account("alice"), await broker.job(first.job_id)
    assert account is not None
    assert paid is not None
    assert account.available == 10**9 - (paid.captured or 0) < 10**9


@pytest.mark.parametrize("prompt", ["a", ["a", "b"]])
async def test_who_is_gone_before_the_first_word_is_refunded(herder: Serving, prompt: Any) -> None:
    body = json.dumps({"prompt": prompt, "max_tokens": 5, "stream": True}).encode()
    coming: list[Any] = [{"type": "http.request", "body": body}]

    async def receive() -> Any:
        return coming.pop() if coming else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        assert message.get("status", 200) == 200, message

    scope = {
        "type": "http", "method": "POST", "path": COMPLETIONS, "raw_path": COMPLETIONS.encode(), "query_string": b"",
        "headers": [(b"x-api-key", herder.key.encode())], "client": ("127.0.0.1", 1), "http_version": "1.1",
        "scheme": "http", "asgi": {"version": "3.0", "spec_version": "2.3"},
    }  # fmt: skip
    app: Any = herder.running.config.app
    await app(scope, receive, send)
    jobs, _ = await herder.herd.broker.jobs("alice", before=None, limit=1)
    batches, _ = await herder.herd.batches.batches("alice", before=None, limit=1)
    assert [*jobs, *batches], "it was bought"
    await _until_held(herder, 0)  # without a sweep, and without a courier


async def test_of_two_who_read_the_same_the_first_to_go_leaves_it_to_the_other(
    herder: Serving, broker: Broker
) -> None:
    headers = {"Idempotency-Key": "one"}
    hand, body = Hand(broker), {"prompt": ["a", "b"], "max_tokens": 5}
    async with herder.client() as first, herder.client() as second:
        whole = asyncio.create_task(second.post(COMPLETIONS, json=body, headers=headers))
        await herder.until(lambda: herder.sample("herder_long_polls") == 1)
        streaming = {**body, "stream": True}
        async with first.stream("POST", COMPLETIONS, json=streaming, headers=headers) as response:
            told = Told(response)
            await hand.settle(await hand.lease(), "A")
            assert (await told.next())["choices"]
        herd = herder.herd
        await herder.until(lambda: list(herd.attendance._names.values()) == [1] and not herd.cancel._tasks)
        await hand.settle(await hand.lease(), "B")
        reply = await asyncio.wait_for(whole, WAIT_S)
    assert [choice["text"] for choice in reply.json()["choices"]] == ["A", "B"], reply.text


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("prompt", ["Once", ["Once", "Twice"]])
async def test_a_caller_who_goes_away_is_refunded(
    herder: Serving, broker: Broker, streaming: bool, prompt: Any
) -> None:
    body = {"prompt": prompt, "stream": streaming}
    async with herder.client() as client:
        task = asyncio.create_task(client.post(COMPLETIONS, json=body))
        names: list[bytes] = []
        while not names:
            names = await broker.redis.zrange(broker.keys("presence"), 0, -1)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    await _until_held(herder, 0)  # without a sweep, and without a courier
    account = await herder.herd.ledger.account("alice")
    assert account is not None
    assert account.available == 10**9
    jobs, _ = await broker.jobs("alice", before=None, limit=10)
    assert {job.status for job in jobs} <= {Status.CANCELLED}
