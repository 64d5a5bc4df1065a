"""The scheduler under any order of jobs, cancels, losses and faults: its promises hold at every step."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.worker_bench import a_lease
from worker.engine import KvFull, Step, StepFailed
from worker.fake import FakeEngine, script
from worker.scheduler import Scheduler
from worker.sequence import Sequence

SLOTS, CONTEXT, KV = 3, 60, 100
STEPS_MAX = 3_000

# A job: (account, length of what it shares with others, length of its own, tokens).
JOB = st.tuples(st.sampled_from("ab"), st.integers(0, 30), st.integers(0, 25), st.integers(1, 20))
DEED = st.one_of(
    st.tuples(st.just("job"), JOB),
    st.tuples(st.just("step"), st.sampled_from(["ok", "ok", "ok", "slow", "full", "failed"])),
    st.tuples(st.just("cancel"), st.integers(0, 20)),
    st.tuples(st.just("drop"), st.integers(0, 20)),
)


class World:
    """A scheduler over a scripted engine that checks every row against its own cache."""

    def __init__(self) -> None:
        self.engine = FakeEngine(slots=SLOTS, context=CONTEXT, kv_tokens=KV)
        self.scheduler = Scheduler(self.engine.facts)
        self.all: list[Sequence] = []
        self.waiting: list[Sequence] = []

    def job(self, account: str, shared: int, own: int, tokens: int) -> None:
        prompt = ("shared prefix of everybody's " * 2)[:shared] + f"{len(self.all)}" * own
        sequence = Sequence(a_lease(prompt, tokens=tokens, account=account), list(prompt.encode()))
        self.all.append(sequence)
        if self.scheduler.free_slots:
            self.scheduler.admit(sequence)
        else:
            self.waiting.append(sequence)

    def check(self, step: Step) -> None:
        """What every plan must keep."""
        running = [s for s in self.scheduler.held if s.slot is not None]
        assert len(running) <= SLOTS
        assert sum(s.reserved for s in running) <= KV
        decoding = [s for s in running if s.decoding]
        # Everybody who is producing is served by every step, and before any prompt.
        assert [row.slot for row in step.rows[: len(decoding)]] == [s.slot for s in decoding]
        assert all(len(row.tokens) == 1 and row.sample for row in step.rows[: len(decoding)])
        assert len({row.slot for row in step.rows}) == len(step.rows)
        # A prompt is never starved by those who produce.
        if any(not s.decoding for s in running):
            assert len(step.rows) > len(decoding)

    def step(self, how: str = "ok") -> bool:
        step = self.scheduler.plan()
        if step is None:
            return False
        self.check(step)
        try:
            if how == "full":
                self.engine.step(replace(step, rows=()))
                raise KvFull("the test says so")
            sampled = self.engine.step(step)
            if how == "failed":
                raise StepFailed("the test says so")
        except KvFull:
            self.scheduler.refused(step)
        except StepFailed as error:
            self.scheduler.failed(step, str(error))
        else:
            elapsed_ms = 900.0 if how == "slow" else 3.0
            self.scheduler.apply(step, sampled, elapsed_ms, self.engine.piece, self.engine.ends)
        while self.waiting and self.scheduler.free_slots:
            self.scheduler.admit(self.waiting.pop(0))
        return True

    def end(self) -> None:
        for _ in range(STEPS_MAX):
            if not self.step():
                break
        assert all(s.ended for s in self.all), "something was starved"
        assert self.scheduler.free_slots == SLOTS
        assert self.scheduler.kv_free == KV


@settings(deadline=None)
@given(st.lists(DEED, max_size=60))
def test_every_promise_holds_and_everything_ends(deeds: list[tuple[str, object]]) -> None:
    world = World()
    disturbed: set[str] = set()
    for name, what in deeds:
        if name == "job":
            world.job(*what)  # type: ignore[misc]
        elif name == "step":
            if what == "failed":
                disturbed |= {s.lease.job_id for s in world.scheduler.held}
            world.step(str(what))
        elif world.all:
            sequence = world.all[int(what) % len(world.all)]  # type: ignore[call-overload]
            disturbed.add(sequence.lease.job_id)
            if sequence in world.waiting:
                world.waiting.remove(sequence)
                sequence.cancel()
            elif name == "cancel":
                world.scheduler.cancel(sequence.lease.job_id)
            else:
                world.scheduler.drop(sequence.key)
    world.end()
    for sequence in world.all:
        fits = sequence.prompt_tokens > 0 and sequence.reserved <= CONTEXT
        if sequence.lease.job_id in disturbed:
            continue
        if not fits:
            assert sequence.failure is not None
            assert sequence.failure.code == "context_exceeded"
        elif sequence.failure is None:
            # Company, prefixes and faults of others leave no trace in the answer.
            prompt = sequence.lease.brief.prompt.encode()
            assert sequence.text.encode() == bytes(script(prompt)[: sequence.lease.tokens])
        else:
            assert sequence.failure.code == "engine_error"


@given(st.lists(JOB, min_size=1, max_size=8))
def test_without_faults_every_job_that_fits_is_answered_in_full(
    jobs: list[tuple[str, int, int, int]],
) -> None:
    world = World()
    for job in jobs:
        world.job(*job)
    world.end()
    for sequence in world.all:
        if sequence.prompt_tokens > 0 and sequence.reserved <= CONTEXT:
            assert sequence.produced == sequence.lease.tokens


@given(st.integers(1, 19), st.integers(20, 40))
def test_cached_tokens_are_those_of_the_same_account_only(shared: int, length: int) -> None:
    world = World()
    world.job("a", length, 0, 2)
    world.end()
    first = world.all[0]
    again = replace(first.lease, job_id="again")
    for account in ("a", "b"):
        sequence = Sequence(replace(again, account=account), list(again.brief.prompt.encode()))
        world.scheduler.admit(sequence)
        world.scheduler.plan()
        assert sequence.cached == (length - 1 if account == "a" else 0)
        world.scheduler.drop(sequence.key)
