"""Bodies at random to OpenAI's routes: none is a fault of ours, and no credit is lost."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from hypothesis import HealthCheck, given
from hypothesis import settings as rules
from hypothesis import strategies as st

from herder.audit import audit
from herder.broker import Broker
from herder.settings import Settings
from tests.integration.live import CREDITS, live
from tests.integration.streaming import WAIT_S

COMPLETIONS, CHATS = "/v1/completions", "/v1/chat/completions"
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
