"""What ended jobs leave in the cache: how much of it is kept, and what goes first."""

from __future__ import annotations

import pytest

from tests.unit.prefix_bench import SYSTEM, Bench
from tests.unit.worker_bench import a_lease
from worker.engine import Row, Step, StepFailed
from worker.fake import FakeEngine
from worker.kept import (
    DECAY,
    GROWTH,
    LEAST_SHARE,
    REMEMBERED,
    SPARE,
    WANTED_LEAST,
    Allowance,
    Kept,
    Owner,
    packed,
    shared_length,
)
from worker.sequence import Sequence


def test_more_is_kept_than_there_are_slots() -> None:
    bench = Bench(slots=1, sequences=6, context=1_000)
    prompts = [f"{i} {SYSTEM}" for i in range(5)]
    for prompt in prompts:
        bench.run(prompt)
    for prompt in prompts:
        assert bench.run(prompt).cached == len(prompt) - 1


def test_the_only_slot_is_taken_whatever_it_keeps() -> None:
    bench = Bench(slots=1, sequences=1)
    for _ in range(3):
        assert bench.run(SYSTEM).text


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
    for _ in range(3):
        bench.run("often " * 15, tokens=1)
    bench.run("once! " * 15, tokens=1)
    bench.run("x" * 300, tokens=10)
    assert bench.run("often " * 15 + "?", tokens=1).cached == 90
    once = bench.run("once! " * 15, tokens=1)
    assert 0 < once.cached < 89


def test_cells_that_kept_slots_share_among_themselves_give_way_as_well() -> None:
    bench = Bench(slots=1, context=100, kv_tokens=100, sequences=5)
    for i in range(3):
        bench.run(SYSTEM + f"{i}", tokens=1)
    assert bench.run("x" * 90, tokens=5).text


def test_a_source_that_is_kept_needs_room_of_its_own() -> None:
    bench = Bench(slots=2, context=200, kv_tokens=200)
    bench.run(SYSTEM, tokens=1)
    live = bench.admit("y" * 90, tokens=10)
    bench.step()
    # 72 cells are there already; they stay, and count once.
    late = Sequence(a_lease(SYSTEM + "z" * 10, tokens=18), list((SYSTEM + "z" * 10).encode()))
    prefixes = bench.scheduler.prefixes
    source, _ = prefixes.find(late)
    assert source.length == len(SYSTEM)
    assert prefixes.fits(late, source)
    assert not prefixes.fits(late, source, ahead=1)
    assert not live.ended


def test_what_goes_between_a_plan_and_its_step_leaves_the_plan_sound() -> None:
    for order in ("source", "target", "both"):
        bench = Bench(slots=3)
        source = bench.admit(SYSTEM, tokens=90)
        while not source.decoding:
            bench.step()
        target = bench.admit(SYSTEM + "and more")
        bench.scheduler.plan()
        assert target.cached == len(SYSTEM)
        for sequence in (source, target):
            if order in ("both", "source" if sequence is source else "target"):
                bench.scheduler.cancel(sequence.lease.job_id)
        last = bench.admit(SYSTEM + "and more of it")
        bench.finish()
        assert len(last.text) == 5


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
    least = 16_000 * LEAST_SHARE
    assert allowance.cells == 16_000
    allowance.began(alice, packed([1] * 100), 0, 0)
    assert allowance.cells == least + int((16_000 - least) * (1 - DECAY))
    for i in range(200):
        allowance.began(alice, packed([i] * 100), 0, 0)
    assert allowance.cells == least
    # Too few tokens to be wanted.
    allowance.began(alice, packed([1] * 100), WANTED_LEAST - 1, 2_000)
    assert allowance.cells == least
    # What one job needed is kept for the next ones, and more than that by a part.
    allowance.began(alice, packed([1] * 100), 99, 2_000)
    assert allowance.cells == 2_000 * SPARE
    for i in range(REMEMBERED - 1):
        allowance.began(alice, packed([i] * 100), 99, 400)
        assert allowance.cells == 2_000 * SPARE
    allowance.began(alice, packed([1] * 100), 99, 400)
    assert allowance.cells == 3_000 - (3_000 - 400 * SPARE) * DECAY
    for i in range(200):
        allowance.began(alice, packed([i] * 100), 99, 400)
    assert allowance.cells == 400 * SPARE


def test_the_allowance_grows_by_what_has_gone_too_early() -> None:
    alice = Owner("alice", shares=False)
    allowance = Allowance(16_000)
    for i in range(200):
        allowance.began(alice, packed([i] * 100), 0, 0)
    # As good as if it had been there, once.
    allowance.went(Kept(alice, packed([2] * 500), 0, 0))
    before = allowance.cells
    allowance.began(alice, packed([2] * 400), 0, 0)
    assert allowance.cells == before + GROWTH * 400
    allowance.began(alice, packed([2] * 400), 0, 0)
    assert allowance.cells == before + GROWTH * 400
    for _ in range(REMEMBERED):
        allowance.began(alice, packed([4] * 400), 0, 0)
    assert allowance.cells < before + GROWTH * 400
    # Never because of another's.
    allowance.went(Kept(alice, packed([3] * 500), 0, 0))
    before = allowance.cells
    allowance.began(Owner("bob", shares=True), packed([3] * 400), 0, 0)
    assert allowance.cells < before


def test_of_jobs_with_one_beginning_little_but_that_is_kept() -> None:
    bench = Bench(slots=2, context=4_000, sequences=100)
    system = SYSTEM * 5
    for i in range(200):
        bench.admit(
            f"{system}{i:03} {i * 7919 % 1000:03} asks for something of its own, and nobody asks it again"
        )
        if i % 2:
            bench.finish()
    bench.admit("something else")
    bench.step()
    kept = bench.scheduler.prefixes.kept_cells
    assert len(system) <= kept <= 2 * len(system)
    bench.finish()
    assert bench.run(f"{system}What now?").cached >= len(system)


def test_a_slow_chat_among_quick_jobs_is_lost_once_and_then_kept() -> None:
    bench = Bench(slots=2, context=4_000, sequences=100)
    chat = "It was a dark and stormy night. " * 8
    for turn in range(12):
        sequence = bench.run(chat)
        assert turn < 2 or sequence.cached >= len(chat) - len(" And then?") - 1
        chat += sequence.text + " And then?"
        for i in range(20):
            bench.run(f"{SYSTEM}{turn:03} {i:03} asks for something of its own, and nobody asks it again")


def test_what_nobody_wants_again_does_not_fill_the_cache() -> None:
    bench = Bench(slots=1, context=4_000, sequences=100)
    most = 0
    for i in range(90):
        bench.run(f"{i:03} " * 60, tokens=1)
        most = max(most, bench.scheduler.prefixes.kept_cells)
    assert most > 1_000
    # What the last job has left waits for the next one, and no step passes over it but what is allowed.
    assert bench.scheduler.prefixes.kept_cells <= 4_000 * LEAST_SHARE + 240
    bench.admit("something else")
    bench.step()
    assert bench.scheduler.prefixes.kept_cells <= 4_000 * LEAST_SHARE


@pytest.mark.parametrize("slots", [1, 4])
def test_the_same_again_finds_all_of_it_however_little_may_be_kept(slots: int) -> None:
    bench = Bench(slots=slots, context=4_000, sequences=100)
    for i in range(90):
        bench.run(f"{i:03} " * 60, tokens=1)
    prompt = "What was that? " * 40
    assert bench.run(prompt).cached == 0
    assert bench.run(prompt).cached == len(prompt) - 1


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
