"""Exact counts where it is close: a real vocabulary in the counting child, and what happens without one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from herder.counting import Counter
from herder.protocol import ModelCard
from herder.settings import Settings
from tests.engines.random_model import vocabulary_file
from tests.integration.api import CARD, MODEL, STATS, WORKER, Front, open_front, problem

CONTEXT = 64


@pytest.fixture(scope="module")
def vocabulary() -> bytes:
    return vocabulary_file("llama-spm").read_bytes()


@pytest.fixture
async def counter(vocabulary: bytes) -> AsyncIterator[Counter]:
    async def fetch(model: str) -> bytes | None:
        return {"spm": vocabulary, "broken": b"GGUF and no more", "none": None}[model]

    counter = Counter(fetch)
    yield counter
    await counter.close()


async def test_counts_are_llama_cpps_own(counter: Counter) -> None:
    # llama.cpp's own test vectors for this vocabulary, and the start token it adds.
    assert await counter.count("spm", "Hello world") == 1 + 2
    assert await counter.count("spm", " Hello World!") == 1 + 4
    assert await counter.count("spm", "3" * 9) == 1 + 10
    assert await counter.count("spm", "</s>") == 1 + 1, "special tokens are recognised"


async def test_tokens_are_spelled_where_a_text_is_cut_into_exactly_these(counter: Counter) -> None:
    # llama.cpp's own test vectors again: "Hello world", with the start token or without.
    assert await counter.spell("spm", [15043, 3186]) == "Hello world"
    assert await counter.spell("spm", [1, 15043, 3186]) == "Hello world"
    # An "H" as a byte, which a worker would cut otherwise; half a character; no token at all.
    for tokens in ([75], [243], [10**6], [-1], [1], []):
        assert await counter.spell("spm", tokens) == "", tokens
    assert await counter.spell("none", [1]) is None


async def test_a_killed_child_is_started_again(counter: Counter) -> None:
    assert await counter.count("spm", "Hello world") == 3
    process = counter._child._process
    assert process is not None
    process.kill()
    await process.wait()
    assert await counter.count("spm", "Hello world") == 3
    assert counter._child.starts == 2


async def test_without_a_usable_vocabulary_nobody_knows(counter: Counter) -> None:
    assert await counter.count("broken", "Hello") is None
    assert await counter.count("none", "Hello") is None
    assert await counter.count("spm", "Hello world") == 3, "and it is that model's trouble only"


@pytest.fixture
async def front(settings: Settings) -> AsyncIterator[Front]:
    async with open_front(settings, worker=False) as front:
        yield front


def card(max_piece_bytes: int = 48) -> ModelCard:
    return replace(CARD, context=CONTEXT, template=None, max_piece_bytes=max_piece_bytes)


async def test_close_to_the_limit_the_herder_counts(front: Front, vocabulary: bytes) -> None:
    await front.herd.broker.register_worker(WORKER, card(), STATS, vocabulary)
    text = "Hello world " * 10  # 120 bytes: by the bounds alone anything from 3 to 128 tokens
    counted = await front.herd.counter.count(MODEL, text)
    assert counted is not None
    fits, too_much = CONTEXT - counted, CONTEXT - counted + 1
    assert 0 < fits < CONTEXT - 8
    document = problem(
        await front.client.post("/v1/jobs", json={"prompt": text, "tokens": too_much}),
        422,
        "context_exceeded",
    )
    assert (document["prompt_tokens"], document["limit"]) == (counted, CONTEXT)
    assert await front.balances() == (1_000, 0)
    assert (await front.client.post("/v1/jobs", json={"prompt": text, "tokens": fits})).status_code == 202


async def test_without_a_vocabulary_the_worker_decides(front: Front) -> None:
    await front.herd.broker.register_worker(WORKER, card(), STATS, None)
    reply = await front.client.post("/v1/jobs", json={"prompt": "Hello world " * 10, "tokens": 60})
    assert reply.status_code == 202


async def test_the_shortest_answer_in_a_form_is_counted_and_the_count_remembered(
    front: Front, vocabulary: bytes
) -> None:
    """By the bounds alone 3 tokens of 48 bytes might do; this vocabulary takes more, and needs no second question."""
    await front.herd.broker.register_worker(WORKER, card(), STATS, vocabulary)
    body = {"prompt": "a", "output_type": {"a": "int", "why": ["because", "why not"]}}
    shortest = '{"a":0,"why":"because"}'
    needed = await front.herd.counter.cut(MODEL, shortest)
    assert needed is not None
    assert 3 < needed < len(shortest)
    starts = front.herd.counter._child.starts
    for path in ("/v1/jobs", "/v1/quote", "/v1/jobs"):
        reply = await front.client.post(path, json=body | {"tokens": needed - 1})
        document = problem(reply, 422, "invalid_request")
        assert (document["errors"][0]["field"], document["limit"]) == ("tokens", needed)
    assert await front.balances() == (1_000, 0)
    await front.herd.counter.close()
    for tokens, status in ((needed - 1, 422), (needed, 202)):
        assert (await front.client.post("/v1/jobs", json=body | {"tokens": tokens})).status_code == status
    assert front.herd.counter._child.starts == starts
