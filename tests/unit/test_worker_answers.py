"""Several answers to one prompt, and what their tokens were worth: through the worker's loop to the settlement."""

from __future__ import annotations

from dataclasses import replace

from herder.brief import Brief, Sampling
from herder.choices import choices_of, logprobs_of
from herder.pricing import capture
from herder.protocol import FinishReason, Lease, Outcome
from tests.unit.worker_bench import TERMS, a_lease
from tests.unit.worker_loop import Gate, at_work
from worker.engine import Drawn, KvFull, Step
from worker.fake import FakeEngine

PROMPT = "tell me about llamas " * 5


def wanting(n: int, tokens: int = 20) -> Lease:
    """A lease that wants so many answers."""
    brief = Brief(PROMPT, sampling=Sampling(temperature=1.0), n=n)
    return replace(a_lease(tokens=tokens), brief=brief)


async def test_all_answers_are_made_told_and_paid_together() -> None:
    engine = FakeEngine(slots=4, context=200)
    async with at_work(engine) as bench:
        job, other = wanting(3), a_lease("another")
        bench.broker.queue += [job, other]
        bench.bell.ring("queue")
        await bench.settled(job.job_id, other.job_id)
    end = bench.broker.settled[job.job_id]
    assert (end.outcome, end.finish_reason, end.completion_tokens) == (
        Outcome.SUCCEEDED, FinishReason.LENGTH, 60,
    )  # fmt: skip
    assert end.captured == capture(TERMS, 60)
    assert end.choices is not None
    choices = choices_of(end.choices, end.text)
    assert len({choice.text for choice in choices}) == 3
    log = bench.broker.log[job.job_id]
    for i, choice in enumerate(choices):
        assert "".join(chunk.text for chunk in log if chunk.choice == i) == choice.text
        assert (choice.completion_tokens, choice.finish_reason) == (20, "length")
    assert {chunk.choice for chunk in bench.broker.log[other.job_id]} == {None}
    assert bench.broker.settled[other.job_id].choices is None
    # The prompt was computed once, but for its last token.
    computed = sum(len(row.tokens) for step in engine.steps for row in step.rows)
    assert computed <= len(PROMPT) + 2 + 3 * 20 + len("another") + 20


async def test_a_job_of_several_answers_waits_until_as_many_slots_are_free() -> None:
    engine = Gate(slots=2, context=200)
    engine.stop_after = 2
    async with at_work(engine) as bench:
        first, second = a_lease("one"), wanting(2)
        bench.broker.queue += [first, second]
        bench.bell.ring("queue")
        await engine.waiting.wait()
        assert list(bench.broker.queue) == [second]
        engine.allowed.set()
        await bench.settled(first.job_id, second.job_id)


async def test_a_cancel_stops_all_answers() -> None:
    engine = Gate(slots=2, context=200)
    engine.stop_after = 4
    async with at_work(engine) as bench:
        job = wanting(2, tokens=90)
        bench.broker.queue.append(job)
        bench.bell.ring("queue")
        await engine.waiting.wait()
        bench.broker.flagged.add(job.job_id)
        bench.bell.ring("worker", job.job_id.encode())
        await bench.heard("worker")
        engine.allowed.set()
        await bench.settled(job.job_id)
        end = bench.broker.settled[job.job_id]
        assert end.outcome is Outcome.CANCELLED
        assert 0 < end.completion_tokens < 20
        assert bench.runner.stats.busy == 0


class Narrow(FakeEngine):
    """Has never room for two rows that decode."""

    def step(self, step: Step) -> dict[int, Drawn]:
        """Full, or as it is."""
        if len(step.rows) > 1:
            raise KvFull("no room for two")
        return super().step(step)


async def test_one_answer_that_fails_ends_the_others_and_frees_their_slots() -> None:
    async with at_work(Narrow(slots=2, context=200)) as bench:
        job, after = wanting(2, tokens=90), a_lease("after", tokens=5)
        bench.broker.queue.append(job)
        bench.bell.ring("queue")
        await bench.settled(job.job_id)
        end = bench.broker.settled[job.job_id]
        assert (end.outcome, end.error_code, end.captured) == (Outcome.FAILED, "engine_error", 0)
        await bench.broker.until(lambda: bench.runner.stats.busy == 0)
        bench.broker.queue.append(after)
        bench.bell.ring("queue")
        await bench.settled(after.job_id)


async def test_log_probabilities_are_told_for_each_token_of_the_answer_and_no_more() -> None:
    async with at_work() as bench:
        brief = Brief("[[say:Hé]]", sampling=Sampling(logprobs=2))
        job, plain = replace(a_lease(), brief=brief), a_lease()
        bench.broker.queue += [job, plain]
        bench.bell.ring("queue")
        await bench.settled(job.job_id, plain.job_id)
    end = bench.broker.settled[job.job_id]
    assert end.logprobs is not None
    (chances,) = logprobs_of(end.logprobs)
    assert [each["token"] for each in chances] == list("Hé".encode())
    assert [each["text"] for each in chances] == ["H", "\ufffd", "\ufffd"]
    assert chances[0]["top"] == [
        {"token": 72, "text": "H", "logprob": -0.25}, {"token": 73, "text": "I", "logprob": -1.25},
    ]  # fmt: skip
    assert bench.broker.settled[plain.job_id].logprobs is None


async def test_the_end_can_be_ignored() -> None:
    async with at_work() as bench:
        job = replace(a_lease(tokens=9), brief=Brief("[[say:Hi]]", sampling=Sampling(ignore_eos=True)))
        bench.broker.queue.append(job)
        bench.bell.ring("queue")
        await bench.settled(job.job_id)
    end = bench.broker.settled[job.job_id]
    assert (end.text, end.finish_reason, end.completion_tokens) == ("Hi" + " " * 7, FinishReason.LENGTH, 9)
