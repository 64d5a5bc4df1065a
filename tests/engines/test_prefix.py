"""Prefix reuse on a real model: an answer is the one that it would have been, and what is shared is computed once."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

from herder.brief import Sampling
from herder.protocol import Lease
from tests.engines.bench import Answer, Driver, MeasuredEngine, a_lease, same
from worker.kept import packed, shared_length
from worker.tuning import Tuning

HERD_TINY = Path(str(files("herder") / "models" / "herd-tiny.gguf"))
SLOTS, CONTEXT, KV = 8, 512, 1_024
SYSTEM = "You are a shepherd who has many llamas, and you answer in one short sentence. " * 4
QUESTIONS = (
    "What is the capital of France?", "What colour is grass?", "How many legs has a llama?", "Who are you?",
    "Tell me about hills.", "What do llamas eat?", "Is it cold?", "Where is the sea?",
)  # fmt: skip


@pytest.fixture(scope="module")
def engine() -> Iterator[MeasuredEngine]:
    """Eight slots over a cache that holds two whole contexts."""
    engine = MeasuredEngine(
        HERD_TINY, slots=SLOTS, context=CONTEXT, kv_tokens=KV, threads=2, tuning=Tuning(kv_unified="on")
    )
    yield engine
    engine.close()


def ask(prompt: str, *, tokens: int = 24, account: str = "alice") -> Lease:
    """A job whose answer has all its tokens, so that the company stays."""
    return a_lease(prompt, tokens=tokens, account=account, sampling=Sampling(ignore_eos=True))


def alone(engine: MeasuredEngine, prompt: str, tokens: int = 24) -> Answer:
    """The answer with nothing in the cache."""
    (answer,) = Driver(engine).run(ask(prompt, tokens=tokens))
    assert answer.cached == 0
    return answer


def computed(driver: Driver, since: int) -> int:
    """Tokens that were decoded since a step."""
    return sum(len(row.tokens) for step in driver.engine.steps[since:] for row in step.rows)


def test_parallel_jobs_compute_their_common_beginning_once(engine: MeasuredEngine) -> None:
    expected = [alone(engine, SYSTEM + question) for question in QUESTIONS]
    lengths = [len(engine.tokenize(SYSTEM + question)) for question in QUESTIONS]
    shared = min(
        shared_length(
            packed(engine.tokenize(SYSTEM + QUESTIONS[0])), packed(engine.tokenize(SYSTEM + question))
        )
        for question in QUESTIONS[1:]
    )
    # More than the cache could hold if each had cells of its own: they are shared in llama.cpp as well.
    assert sum(lengths) + 8 * 24 > KV
    driver, since = Driver(engine), len(engine.steps)
    leases = [ask(SYSTEM + question) for question in QUESTIONS]
    for lease in leases:
        driver.admit(lease)
    while any(s.slot is None for s in driver.scheduler.held):
        assert driver.step()
    assert len(driver.scheduler.held) == len(QUESTIONS)
    while driver.step():
        pass
    answers = [driver.answers[lease.job_id] for lease in leases]
    assert answers[0].cached == 0
    assert min(answer.cached for answer in answers[1:]) >= shared
    prompts = lengths[0] + sum(n - a.cached for n, a in zip(lengths[1:], answers[1:], strict=True))
    decoded = sum(len(answer.tokens) - 1 for answer in answers)
    assert computed(driver, since) == prompts + decoded
    assert prompts <= lengths[0] + sum(n - shared for n in lengths[1:])
    agreed = [same(a, b) for a, b in zip(expected, answers, strict=True)]
    assert sum(agreed) >= len(agreed) / 2


def test_what_one_job_has_shared_stays_when_it_is_cancelled(engine: MeasuredEngine) -> None:
    expected = [alone(engine, SYSTEM + question) for question in QUESTIONS[:3]]
    driver = Driver(engine)
    leases = [ask(SYSTEM + question) for question in QUESTIONS[:3]]
    first, *others = [driver.admit(lease) for lease in leases]
    while not all(s.decoding for s in (first, *others)):
        driver.step()
    driver.scheduler.cancel(first.lease.job_id)
    # Its cells go to jobs that need all the room there is.
    strangers = [ask("a stranger " * 30 + str(i), tokens=40, account="bob") for i in range(4)]
    driver.run(*strangers)
    assert all(s.cached > 0 for s in others)
    for lease, answer in zip(leases[1:], expected[1:], strict=True):
        same(answer, driver.answers[lease.job_id])


@pytest.mark.parametrize("share", [False, True])
def test_chat_turns_reuse_what_there_is_to_reuse(share: bool) -> None:
    """Several users at once, more than there are slots; each turn's prompt has the whole chat before it."""
    engine = MeasuredEngine(HERD_TINY, slots=3, context=CONTEXT, threads=2)
    try:
        driver = Driver(engine)
        users = [f"user {i}" for i in range(6)]
        chats = {user: f"You talk to {user}. " + SYSTEM[:100] for user in users}
        before: dict[str, list[int]] = {user: [] for user in users}
        reused = reusable = 0
        for turn in range(5):
            for some in (users[:3], users[3:]):
                prompts = {user: chats[user] + f"\nUser: {QUESTIONS[turn]}\nLlama:" for user in some}
                leases = [ask(prompts[user], tokens=12, account=user) for user in some]
                answers = driver.run(*leases)
                for user, answer in zip(some, answers, strict=True):
                    tokens = engine.tokenize(prompts[user])
                    reusable += min(shared_length(packed(before[user]), packed(tokens)), len(tokens) - 1)
                    reused += answer.cached if turn else 0
                    before[user] = tokens + answer.tokens
                    chats[user] = prompts[user] + answer.text
        assert reusable > 1_000
        assert reused >= 0.9 * reusable
    finally:
        engine.close()


def test_answers_stay_what_they_are_in_a_cache_that_is_always_full(engine: MeasuredEngine) -> None:
    """Jobs come and go, begin where others are or were, and take the room of what is kept."""
    prompts = [SYSTEM[: 60 * (i % 4)] + QUESTIONS[i % 7] + " And then? " * (i % 3 * 6) for i in range(28)]
    expected = [alone(engine, prompt, tokens=8 + i % 20) for i, prompt in enumerate(prompts)]
    driver, since = Driver(engine), len(engine.steps)
    waiting = [ask(prompt, tokens=8 + i % 20) for i, prompt in enumerate(prompts)]
    leases = list(waiting)
    for turn in range(10_000):
        if waiting and driver.scheduler.free_slots and turn % 2:
            driver.admit(waiting.pop(0))
        if not driver.step() and not waiting:
            break
    answers = [driver.answers[lease.job_id] for lease in leases]
    agreed = [same(a, b) for a, b in zip(expected, answers, strict=True)]
    assert sum(agreed) >= len(agreed) / 2
    assert sum(answer.cached > 0 for answer in answers) > len(answers) / 2
    assert any(step.copies for step in engine.steps[since:])
    cuts = [slot for step in engine.steps[since + 1 :] for slot, _ in step.trims]
    assert len(cuts) > 5
