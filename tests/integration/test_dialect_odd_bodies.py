"""Whatever is sent to TGI's and Ollama's routes is no fault of ours, and loses no credit."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from herder.settings import Settings
from tests.integration.api import MODEL, open_front

ODD = st.none() | st.booleans() | st.integers(-5, 10**6) | st.floats(allow_nan=False) | st.text(max_size=5)
WILD = st.recursive(
    ODD, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=3), x, max_size=3), max_leaves=6
)
PARAMETERS = (
    "max_new_tokens do_sample temperature top_k typical_p repetition_penalty seed stop stop_sequences best_of truncate "
    "details top_n_tokens grammar num_predict num_ctx repeat_last_n min_p"
).split()
MESSAGE = st.dictionaries(
    st.sampled_from(["role", "content", "images", "tool_calls", "tool_name"]),
    WILD | st.just("user"),
    max_size=3,
)
HOW = st.dictionaries(st.sampled_from(PARAMETERS), ODD | WILD, max_size=2)
BODIES = {
    ("/", "/generate", "/generate_stream"): st.fixed_dictionaries(
        {"inputs": st.just("hi") | ODD}, optional={"parameters": HOW | ODD, "stream": ODD, "fee": ODD, "model": ODD}
    ),
    ("/api/generate", "/api/show"): st.fixed_dictionaries(
        {"prompt": st.just("hi") | ODD},
        optional={
            "options": HOW | ODD, "stream": ODD, "format": WILD, "think": ODD, "raw": ODD, "system": ODD,
            "model": ODD, "images": WILD, "top_logprobs": ODD, "logprobs": ODD,
        },
    ),
    ("/api/chat", "/tgi/v1/chat/completions"): st.fixed_dictionaries(
        {"messages": st.lists(st.just({"role": "user", "content": "hi"}) | MESSAGE, max_size=2) | ODD},
        optional={"options": HOW | ODD, "stream": ODD, "format": WILD, "tools": WILD, "model": ODD},
    ),
}  # fmt: skip

# One that is bought and streamed, one that is refused: which others are, is chance.
SURE: dict[tuple[str, ...], tuple[str, list[dict[str, Any]]]] = {
    paths: (path, [{field: good}, {field: 3}])
    for paths, path, field, good in zip(
        BODIES,
        ("/generate_stream", "/api/generate", "/api/chat"),
        ("inputs", "prompt", "messages"),
        ("hi", "hi", [{"role": "user", "content": "hi"}]),
        strict=True,
    )
}


@pytest.mark.parametrize("paths", BODIES)
def test_whatever_is_sent_is_no_fault_of_ours_and_loses_no_credit(
    settings: Settings, paths: tuple[str, ...]
) -> None:
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        front = runner.run(stack.enter_async_context(open_front(settings, credits_=100_000)))
        front.herd.stopping.set()  # nobody waits for an answer, and each job is cancelled
        seen: set[int] = set()

        path, bodies = SURE[paths]

        @example(body=bodies[0], path=path)
        @example(body=bodies[1], path=path)
        @given(body=BODIES[paths], path=st.sampled_from(paths))
        @examples(max_examples=120, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        def tried(body: dict[str, Any], path: str) -> None:
            content = json.dumps({"model": MODEL, **body})
            reply = runner.run(front.client.post(path, content=content))
            assert reply.status_code in (200, 400, 402, 404, 422, 503), reply.text
            if reply.status_code != 200:
                assert isinstance(reply.json()["error"], str)
            seen.add(reply.status_code)
            available, held = runner.run(front.balances())
            assert available + held == 100_000

        tried()
        assert {200, 422} <= seen
        runner.run(stack.aclose())
