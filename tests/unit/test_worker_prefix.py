"""What is reused of the cache, who waits for whom, and what gives way."""

from __future__ import annotations

from dataclasses import replace

import pytest

from herder.brief import Brief
from tests.unit.worker_bench import a_lease
from worker.engine import Row, Step, StepFailed
from worker.fake import FakeEngine
from worker.kept import DECAY, GROWTH, LEAST_SHARE, Allowance, Kept, Owner, packed, shared_length
from worker.scheduler import FOLLOW_LEAST, STILL_MAX, Scheduler
from worker.sequence import Sequence

SYSTEM = "You are a shepherd who answers in one short sentence, and never in two. "
assert len(SYSTEM) > FOLLOW_LEAST


class Bench:
    """A scheduler over a scripted engine, stepped by hand."""

    def __init__(self, *, slots: int = 4, context: int = 400, kv_tokens: int = 0, sequences: int = 0) -> None:
        self.engine = FakeEngine(slots=slots, context=context, kv_tokens=kv_tokens, sequences=sequences)
        self.scheduler = Scheduler(self.engine.facts)

    def admit(
        self, prompt: str, *, tokens: int = 5, account: str = "alice", shares: bool = False
    ) -> Sequence:
        """A job comes in."""
        lease = a_lease(prompt, tokens=tokens, account=account)
        lease = replace(lease, brief=Brief(prompt, share_prefix=shares))
        sequence = Sequence(lease, list(prompt.encode()))
        self.scheduler.admit(sequence)
        return sequence

    def step(self, ms: float = 1.0) -> Step:
        """One step."""
        step = self.scheduler.plan()
        assert step is not None
        self.scheduler.apply(step, self.engine.step(step), ms, self.engine.piece, self.engine.ends)
        return step

    def run(self, prompt: str, *, tokens: int = 5, account: str = "alice", shares: bool = False) -> Sequence:
        """Answer one job."""
        sequence = self.admit(prompt, tokens=tokens, account=account, shares=shares)
        self.finish()
        return sequence

    def finish(self) -> None:
        """Step until nothing is held."""
        for _ in range(1_000):
            if not self.scheduler.held:
                return
            self.step()
        raise AssertionError("it never ends")

    @property
    def computed(self) -> int:
        """Tokens that all steps so far have computed."""
        return sum(len(row.tokens) for step in self.engine.steps for row in step.rows)


# --- what is reused --------------------------------------------------------------------------------------


def test_the_second_use_of_a_prefix_reuses_it_to_the_token() -> None:
    bench = Bench()
    assert bench.run(SYSTEM + "One?").cached == 0
    assert bench.run(SYSTEM + "Two?").cached == len(SYSTEM)
    assert bench.run(SYSTEM + "Two!").cached == len(SYSTEM) + 3
    assert bench.run("another").cached == 0


def test_a_chat_goes_on_behind_its_last_answer() -> None:
    bench = Bench()
    chats = [SYSTEM + f"I am {name}. " for name in ("Ann", "Bob", "Cleo", "Dan", "Eve", "Flo")]
    reused = reusable = 0
    for turn in range(5):
        for i, chat in enumerate(chats):
            sequence = bench.run(chat)
            reused += sequence.cached if turn else 0
            reusable += len(chat) - len(" And then?") if turn else 0
            chats[i] = chat + sequence.text + " And then?"
    # All but the last token of each answer, which was never decoded.
    assert reused == reusable - 6 * 4


def test_a_prompt_that_is_all_there_still_computes_its_last_token() -> None:
    bench = Bench()
    bench.run("hello", tokens=20)
    again = bench.run("hello", tokens=20)
    assert again.cached == 4
    assert again.text


def test_a_live_job_is_a_source_and_its_answer_is_one_too() -> None:
    bench = Bench()
    long = bench.admit(SYSTEM, tokens=60)
    for _ in range(40):
        bench.step()
    assert not long.ended
    longer = bench.admit(SYSTEM + long.text[:20] + "!")
    bench.step()
    assert longer.cached == len(SYSTEM) + 20
    bench.finish()
    assert long.text.encode() == bench.run(SYSTEM, tokens=60).text.encode()


@pytest.mark.parametrize(
    ("first", "then", "cached"), [(False, True, 0), (True, False, 0), (True, True, len(SYSTEM))]
)
def test_accounts_share_only_where_both_allow_it(first: bool, then: bool, cached: int) -> None:
    bench = Bench()
    bench.run(SYSTEM + "One?", shares=first)
    assert bench.run(SYSTEM + "Two?", account="bob", shares=then).cached == cached
    live = bench.admit(SYSTEM + SYSTEM, account="cleo", shares=first, tokens=200)
    bench.step()
    bench.step()
    other = bench.admit(SYSTEM + SYSTEM, account="dan", shares=then)
    while other.slot is None or not other.decoding:
        bench.step()
    assert not live.ended
    assert (other.cached > len(SYSTEM)) is bool(cached)


def test_an_engine_that_cannot_trim_reuses_nothing() -> None:
    bench = Bench()
    bench.scheduler = Scheduler(replace(bench.engine.facts, trimmable=False))
    for _ in range(3):
        assert bench.run(SYSTEM).cached == 0
    together = [bench.admit(SYSTEM) for _ in range(4)]
    bench.step()
    assert all(s.slot is not None for s in together)
    bench.finish()
    assert all(not step.copies for step in bench.engine.steps)


# --- who waits for whom ----------------------------------------------------------------------------------


def test_jobs_that_come_together_compute_their_common_beginning_once() -> None:
    bench = Bench(slots=8)
    jobs = [bench.admit(SYSTEM * 3 + f"{i}?", tokens=9) for i in range(8)]
    assert bench.scheduler.kv_reserved == sum(s.reserved for s in jobs)
    bench.finish()
    assert [s.cached for s in jobs] == [0] + [len(SYSTEM * 3)] * 7
    assert bench.computed == len(SYSTEM * 3) + 8 * (2 + 8)


def test_shared_cells_count_once() -> None:
    # Room for one whole prompt and little else: all eight fit because they share.
    need = len(SYSTEM * 3) + 8 * 20
    bench = Bench(slots=8, kv_tokens=need)
    jobs = [bench.admit(SYSTEM * 3 + f"{i}?", tokens=18) for i in range(8)]
    while any(s.slot is None for s in jobs):
        bench.step()
        assert not any(s.ended for s in jobs)
    assert bench.scheduler.kv_reserved == need
    assert bench.scheduler.kv_free == 0
    # The one that computed it all ends first; its cells stay for the others.
    bench.scheduler.cancel(jobs[0].lease.job_id)
    assert bench.scheduler.kv_reserved == need - 20
    bench.finish()
    assert bench.scheduler.kv_free == need
    assert all(len(s.text) == 18 for s in jobs[1:])


def test_a_job_that_waits_for_another_is_passed_by_and_keeps_its_place() -> None:
    bench = Bench()
    leader = bench.admit(SYSTEM * 3 + "leader", tokens=50)
    follower = bench.admit(SYSTEM * 3 + "follower")
    stranger = bench.admit("a stranger's prompt, which is long as well, and longer than a step can bear " * 2)
    bench.step()
    assert [s.slot is None for s in (leader, follower, stranger)] == [False, True, False]
    while follower.slot is None:
        bench.step(ms=200.0)
    assert leader.done >= len(SYSTEM * 3)
    while not follower.decoding:
        bench.step(ms=200.0)
    assert not stranger.decoding


@pytest.mark.parametrize("how", ["cancel", "drop", "fail"])
def test_who_waited_for_a_job_that_ends_goes_on_by_itself(how: str) -> None:
    bench = Bench()
    leader = bench.admit(SYSTEM * 4 + "leader")
    followers = [bench.admit(SYSTEM * 4 + f"{i}") for i in range(3)]
    bench.step()
    done = leader.done
    assert 0 < done < len(SYSTEM * 4)
    if how == "cancel":
        bench.scheduler.cancel(leader.lease.job_id)
    elif how == "drop":
        bench.scheduler.drop(leader.key)
    else:
        step = bench.scheduler.plan()
        assert step is not None
        bench.engine.step(step)
        assert bench.scheduler.failed(step, "the test says so") == [leader]
    bench.step()
    # What the leader has left is used where it is sound; one of them leads the others.
    assert followers[0].cached == (0 if how == "fail" else done)
    assert followers[1].slot is None
    bench.finish()
    assert [s.cached for s in followers[1:]] == [len(SYSTEM * 4)] * 2
    assert all(len(s.text) == 5 for s in followers)


def test_nobody_waits_for_a_job_that_does_not_move() -> None:
    bench = Bench()
    leader = bench.admit(SYSTEM * 4 + "leader")
    follower = bench.admit(SYSTEM * 4 + "follower")
    plans = 0
    while follower.slot is None:
        # Planned and never decoded, as if every step were refused.
        assert bench.scheduler.plan() is not None
        plans += 1
        assert plans < STILL_MAX + 5
    assert plans > STILL_MAX
    assert leader.done == 0
    bench.finish()
    assert follower.cached == 0


def test_a_short_common_beginning_is_not_worth_waiting_for() -> None:
    bench = Bench()
    jobs = [bench.admit(SYSTEM[: FOLLOW_LEAST - 1] + f"{i}" * 40) for i in range(3)]
    bench.step()
    assert all(s.slot is not None for s in jobs)


# --- what is kept ----------------------------------------------------------------------------------------


def test_more_is_kept_than_there_are_slots() -> None:
    bench = Bench(slots=1, sequences=6, context=1_000)
    prompts = [f"{i} {SYSTEM}" for i in range(5)]
    for prompt in prompts:
        bench.run(prompt)
    for prompt in prompts:
        assert bench.run(prompt).cached == len(prompt) - 1


def test_what_holds_all_of_another_takes_its_place() -> None:
    bench = Bench(slots=1, sequences=4)
    kept = bench.scheduler.prefixes
    bench.run("a turn of a chat", tokens=1)
    bench.run("a turn of a chat" + " that goes on", tokens=3)
    assert kept.kept_cells == len("a turn of a chat that goes on") + 2
    # The shorter one again: nothing more is kept than there was.
    bench.run("a turn of a chat", tokens=1)
    assert kept.kept_cells == len("a turn of a chat that goes on") + 2
    # One that others may use is not replaced by one that they may not.
    bench.run("for everybody", shares=True, tokens=1)
    bench.run("for everybody and for me", tokens=1)
    assert bench.run("for everybody", account="bob", shares=True, tokens=1).cached == len("for everybody") - 1


def test_work_that_is_paid_takes_the_room_of_what_is_kept() -> None:
    bench = Bench(slots=2, context=200, kv_tokens=240)
    for letter in "abc":
        bench.run(letter * 70, tokens=2)
    assert bench.scheduler.prefixes.kept_cells > 150
    assert bench.scheduler.kv_free == 240
    jobs = [bench.admit(letter * 100, tokens=20) for letter in "xy"]
    bench.step()
    assert all(s.slot is not None for s in jobs)
    bench.finish()


def test_what_is_used_often_stays_and_the_rest_goes_from_its_end() -> None:
    bench = Bench(slots=1, context=400, kv_tokens=400, sequences=8)
    bench.run("often " * 15, tokens=1)
    for i in range(3):
        bench.run("often " * 15 + f"{i}", tokens=1)
    bench.run("once! " * 15, tokens=1)
    bench.run("x" * 300, tokens=10)
    assert bench.run("often " * 15 + "?", tokens=1).cached == 90
    once = bench.run("once! " * 15, tokens=1)
    assert 0 < once.cached < 89


def test_what_is_kept_is_pinned_while_it_is_copied() -> None:
    bench = Bench(slots=2, context=300, kv_tokens=300)
    bench.run(SYSTEM, tokens=1)
    first = bench.admit(SYSTEM + "1", tokens=100)
    second = bench.admit("z" * 60, tokens=60)
    bench.step()
    assert first.cached == len(SYSTEM)
    assert second.slot is not None
    bench.finish()
    assert len(first.text) == 100


def test_the_allowance_follows_what_is_wanted_again() -> None:
    alice = Owner("alice", shares=False)
    allowance = Allowance(16_000)
    assert allowance.cells == 16_000
    for i in range(200):
        allowance.began(alice, packed([i] * 100), 0, 0)
    assert allowance.cells == 16_000 * LEAST_SHARE
    allowance.began(alice, packed([1] * 100), 99, 99)
    assert allowance.cells == 16_000 * LEAST_SHARE + GROWTH * 99
    # What has gone is wanted: as good as if it had been there, once.
    allowance.went(Kept(alice, packed([2] * 500), 0, 0))
    before = allowance.cells
    allowance.began(alice, packed([2] * 400), 0, 0)
    assert allowance.cells == before + GROWTH * 400
    before = allowance.cells
    allowance.began(alice, packed([2] * 400), 0, 0)
    assert allowance.cells == before - int(before * DECAY)
    # Never because of another's.
    allowance.went(Kept(alice, packed([3] * 500), 0, 0))
    before = allowance.cells
    allowance.began(Owner("bob", shares=True), packed([3] * 400), 0, 0)
    assert allowance.cells < before


def test_what_nobody_wants_again_does_not_fill_the_cache() -> None:
    bench = Bench(slots=1, context=4_000, sequences=100)
    most = 0
    for i in range(90):
        bench.run(f"{i:03} " * 60, tokens=1)
        most = max(most, bench.scheduler.prefixes.kept_cells)
    assert most > 2_000
    assert bench.scheduler.prefixes.kept_cells <= 4_000 * LEAST_SHARE


def test_tokens_are_compared_without_a_loop() -> None:
    tokens = list(range(1_000))
    for at in (0, 1, 255, 256, 999):
        other = [*tokens[:at], -5, *tokens[at + 1 :]]
        assert shared_length(packed(tokens), packed(other)) == at
        assert shared_length(packed(tokens), packed(tokens[:at])) == at
        assert shared_length(packed(tokens), packed(other), at) == 0
    assert shared_length(packed(tokens), packed(tokens), 999) == 1_000
    assert shared_length(b"", packed(tokens)) == 0
    # Tokens that differ in their highest bits only.
    assert shared_length(packed([7, 1]), packed([7, 1 + 2**24])) == 1


def test_a_wrong_copy_is_seen_by_the_scripted_engine() -> None:
    engine = FakeEngine(slots=2)
    engine.step(Step((Row(0, 0, (65, 66), sample=True),)))
    with pytest.raises(AssertionError, match="holds less"):
        engine.step(Step((), copies=((0, 1, 3),)))
    engine.step(Step((), copies=((0, 1, 2),)))
    assert engine.cells.used == 2
    with pytest.raises(AssertionError, match="holds something"):
        engine.step(Step((), copies=((0, 1, 2),)))
    with pytest.raises(StepFailed):
        engine.step(Step((Row(2, 0, tuple(b"[[fail]]"), sample=True),)))
