"""OpenAI's streams over sockets: pieces as they are made, workers that die, readers that go; and bodies at random."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as rules
from hypothesis import strategies as st

from herder.audit import audit
from herder.broker import Broker
from herder.lifecycle import Status
from herder.protocol import Outcome
from herder.settings import Settings
from tests.integration.live import CREDITS, live
from tests.integration.streaming import WAIT_S, Hand, Serving, serving

COMPLETIONS, CHATS = "/v1/completions", "/v1/chat/completions"
ASK = [{"role": "user", "content": "hello"}]
WORDS = ["Bl", "\u2028", "ue", "\r\n", "é."]


@pytest.fixture
async def herder(settings: Settings) -> AsyncIterator[Serving]:
    async with serving(settings) as herder:
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
        assert response.headers["x-herder-job-id"].startswith("job_")
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


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("prompt", ["Once", ["Once", "Twice"]])
async def test_a_caller_who_goes_away_is_refunded(
    herder: Serving, broker: Broker, streaming: bool, prompt: Any
) -> None:
    body = {"prompt": prompt, "stream": streaming and isinstance(prompt, str)}
    async with herder.client() as client:
        task = asyncio.create_task(client.post(COMPLETIONS, json=body))
        names: list[bytes] = []
        while not names:
            names = await broker.redis.zrange(broker.keys("presence"), 0, -1)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    account = await herder.herd.ledger.account("alice")
    while account is not None and (account.available, account.held) != (10**9, 0):
        account = await herder.herd.ledger.account("alice")
    jobs, _ = await broker.jobs("alice", before=None, limit=10)
    assert {job.status for job in jobs} <= {Status.CANCELLED}


# --- bodies at random ------------------------------------------------------------------------------------------

ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 30) | st.floats(-3, 3) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
SHARED = {
    "model": st.none() | st.sampled_from(["toy", "tgi", "", "no"]),
    "n": st.integers(0, 5), "max_tokens": st.integers(-1, 40), "seed": st.integers(), "stream": st.booleans(),
    "temperature": st.floats(-1, 3), "top_p": st.floats(0, 1), "max_fee": st.integers(0, 100),
    "stop": st.lists(st.text(max_size=3), max_size=3), "multiplier": st.floats(0, 3),
    "logit_bias": st.dictionaries(st.integers(0, 300).map(str), st.integers(-101, 101), max_size=2),
    "service_tier": st.sampled_from(["auto", "flex", "x"]), "stream_options": st.just({"include_usage": True}),
    "metadata": st.dictionaries(st.text(max_size=3), ANY, max_size=2),
}  # fmt: skip
PARTS = st.lists(st.builds(lambda text: {"type": "text", "text": text}, st.text(max_size=5)), max_size=2)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["user", "assistant", "developer", "tool", "x"]),
            "content": st.text(max_size=9) | PARTS,
        },
        optional={"tool_calls": ANY, "name": ANY},
    ),
    max_size=3,
)  # fmt: skip
FORM = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
TOOL = {"type": "function", "function": {"name": "now", "parameters": FORM}}
CHAT = SHARED | {
    "messages": MESSAGES, "tools": st.just([TOOL]) | ANY,
    "logprobs": st.booleans(), "top_logprobs": st.integers(-1, 21),
    "tool_choice": st.sampled_from(["auto", "none", "required", {"type": "function", "function": {"name": "now"}}]),
    "response_format": st.just({"type": "json_schema", "json_schema": {"schema": FORM}}) | ANY,
}  # fmt: skip
TEXT = SHARED | {
    "prompt": st.text(max_size=9) | st.lists(st.text(max_size=3) | st.integers(-1, 300), max_size=3) | ANY,
    "logprobs": st.integers(-1, 21), "echo": st.booleans(), "suffix": ANY, "best_of": ANY,
}  # fmt: skip


def _body(fields: dict[str, st.SearchStrategy[Any]], needed: str) -> st.SearchStrategy[dict[str, Any]]:
    """Bodies with the one field that is needed and any of the others, each right, null, or anything."""
    others = {name: each | st.none() | ANY for name, each in fields.items() if name != needed}
    return st.fixed_dictionaries({needed: fields[needed]}, optional=others)


BODIES = st.one_of(
    st.tuples(st.just(CHATS), _body(CHAT, "messages")), st.tuples(st.just(COMPLETIONS), _body(TEXT, "prompt"))
)  # fmt: skip


async def test_no_body_is_a_500_and_no_credit_is_lost(settings: Settings, broker: Broker) -> None:
    statuses: dict[int, int] = {}
    with (
        live(settings) as herder,
        httpx.Client(base_url=herder.url, trust_env=False, timeout=WAIT_S) as client,
    ):
        client.headers["X-API-Key"] = herder.key

        @given(asked=BODIES)
        @rules(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
        def ask(asked: tuple[str, dict[str, Any]]) -> None:
            path, body = asked
            reply = client.post(path, json=body)
            statuses[reply.status_code] = statuses.get(reply.status_code, 0) + 1
            assert reply.status_code in (200, 400, 402, 404), reply.text
            if reply.status_code == 200 and body.get("stream"):
                assert reply.text.endswith("data: [DONE]\n\n"), reply.text

        await asyncio.to_thread(ask)
        assert statuses[200] >= 10, statuses
        report = await audit(broker)
        assert report.problems == ()
        account = next(row for row in report.rows if row.account == "fuzz")
        assert account.held == 0
        assert account.available + report.revenue == CREDITS
