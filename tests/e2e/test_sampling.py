"""Sampling through a whole herd on the built-in model: seeds repeat, answers differ, chances add up, all is paid."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from llama_herder.answers import Sampling
from tests.e2e.books import closed_books
from tests.e2e.herd import Up, herd

QUESTION = "What is a chatbot?"
STRANGE = "zq of"  # the model was not trained on it, and is not sure


@pytest.fixture(scope="module")
def up() -> Iterator[Up]:
    with herd() as running:
        yield running
        running.stop()


def test_a_seed_repeats_and_answers_have_their_own_chance(up: Up) -> None:
    with up.client() as herder:

        def asked(seed: int) -> str:
            options: Sampling = {
                "temperature": 2.0,
                "top_k": 50,
                "top_p": 0.99,
                "repeat_penalty": 1.1,
                "seed": seed,
            }
            return herder.run(STRANGE, tokens=40, raw=True, timeout=60, **options).text

        assert asked(7) == asked(7)
        assert len({asked(seed) for seed in range(4)}) > 1
        job = herder.run(
            STRANGE, tokens=40, raw=True, n=4, temperature=2.0, seed=7, ignore_eos=True, timeout=60
        )
        assert job.result is not None
        choices = job.result.choices
        assert len({choice.text for choice in choices}) > 1
        assert [choice.completion_tokens for choice in choices] == [40] * 4
        assert (job.result.completion_tokens, job.captured) == (160, job.fee)
        assert {choice.finish_reason for choice in choices} == {"length"}
    closed_books(up, [job.id])


def test_a_seed_repeats_a_long_prompt_whatever_came_between(up: Up) -> None:
    long = "Once a shepherd asked his llama what a basket of wool would cost in the village. " * 4
    with up.client() as herder:
        texts, cached = set(), []
        for number in range(4):
            job = herder.run(long, tokens=60, temperature=1.5, seed=7, ignore_eos=True, timeout=60)
            texts.add(job.text)
            assert job.result is not None
            cached.append(job.result.cached_tokens)
            herder.run(f"{number} {long}", tokens=20 + number, timeout=60)
        assert len(texts) == 1
        assert cached == [0] * 4
        # The cache is there for who prefers it.
        job = herder.run(long, tokens=5, seed=7, cache_prompt=True, timeout=60)
        assert job.result is not None
        assert job.result.cached_tokens
    closed_books(up, [job.id])


def test_chances_are_those_of_the_model(up: Up) -> None:
    with up.client() as herder:
        job = herder.run(QUESTION, tokens=20, logprobs=20, timeout=60)
        assert job.result is not None
        chances = job.result.logprobs
        assert chances is not None
        assert len(chances) == job.result.completion_tokens
        for each in chances:
            # Greedy: the drawn token is the likeliest, and no two tokens are more than certain.
            assert (each.token, each.logprob) == (each.top[0].token, each.top[0].logprob)
            assert [other.logprob for other in each.top] == sorted(
                (o.logprob for o in each.top), reverse=True
            )
            assert sum(math.exp(other.logprob) for other in each.top) <= 1.001
        assert "".join(each.text for each in chances).strip() == job.text.strip()
        banned = {each.token: -100.0 for each in chances[:1]}
        other = herder.run(QUESTION, tokens=20, logit_bias=banned, logprobs=0, timeout=60)
        assert other.result is not None
        assert other.result.logprobs is not None
        assert other.result.logprobs[0].token == chances[0].top[1].token
    closed_books(up, [job.id, other.id])
