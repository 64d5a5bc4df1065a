"""A KV cache in parts, one for each slot: a job goes on where its beginning is, or gets a copy."""

from __future__ import annotations

import random

from tests.unit.prefix_bench import SYSTEM, Bench
from worker.fake import FakeEngine
from worker.pace import BLOCK
from worker.scheduler import Scheduler


class PartsBench(Bench):
    """Slots that share nothing."""

    def __init__(self, *, slots: int = 2, context: int = 400) -> None:
        super().__init__(slots=slots, context=context)
        self.engine = FakeEngine(slots=slots, context=context, shares_cells=False)
        self.scheduler = Scheduler(self.engine.facts)


def test_a_chat_goes_on_in_its_own_slot() -> None:
    bench = PartsBench()
    first = bench.run(SYSTEM + "one", tokens=20)
    other = bench.run("Something else altogether, and long enough.", tokens=20)
    turn = SYSTEM + "one" + first.text + " and two"
    again = bench.run(turn, tokens=5)
    # The last token of an answer is not decoded until something follows it.
    assert again.cached == len(SYSTEM + "one" + first.text) - 1
    assert (other.cached, bench.scheduler.prefixes.copies) == (0, {})
    assert not any(step.copies for step in bench.engine.steps)


def test_jobs_that_begin_alike_compute_it_once_and_copy_it() -> None:
    bench = PartsBench(slots=3)
    jobs = [bench.admit(SYSTEM * 3 + str(i)) for i in range(3)]
    bench.step()
    assert [job.slot for job in jobs] == [0, None, None]
    bench.finish()
    assert [job.cached for job in jobs] == [0, len(SYSTEM * 3), len(SYSTEM * 3)]
    assert all(len(job.text) == 5 for job in jobs)
    assert bench.computed == len(SYSTEM * 3) + 3 * 5


def test_a_few_tokens_are_not_worth_a_copy() -> None:
    bench = PartsBench(slots=3)
    first = bench.admit("A sheep. " + "x" * 90, tokens=20)
    bench.step()
    second = bench.admit("A sheep. " + "y" * 90)
    bench.finish()
    assert (first.cached, second.cached) == (0, 0)
    assert not any(step.copies for step in bench.engine.steps)


def test_what_is_kept_is_copied_where_a_slot_is_to_spare() -> None:
    bench = PartsBench(slots=2)
    long = bench.run(SYSTEM * 2 + "a long chat", tokens=60)
    other = bench.run(SYSTEM * 2 + "some other", tokens=5)
    assert other.cached == len(SYSTEM * 2)
    again = bench.run(SYSTEM * 2 + "a long chat" + long.text + "?", tokens=2)
    assert again.cached == len(SYSTEM * 2 + "a long chat") + 59


def test_the_only_slot_goes_on_whatever_is_lost() -> None:
    bench = PartsBench(slots=1)
    bench.run(SYSTEM + "x" * 200)
    assert bench.run(SYSTEM + "y").cached == len(SYSTEM)


def test_what_is_worth_more_than_the_beginning_is_not_cut_for_it() -> None:
    bench = PartsBench(slots=2)
    long = bench.run(SYSTEM * 4 + "a long chat", tokens=30)
    short = bench.run(SYSTEM[:40] + "something short", tokens=2)
    assert short.cached == 40
    again = bench.run(SYSTEM * 4 + "a long chat" + long.text + "?", tokens=2)
    assert again.cached >= len(SYSTEM * 4)


def test_every_job_has_room_however_full_the_slots_are() -> None:
    # The engine asserts that no slot is overfilled and that nothing is copied.
    bench = PartsBench(slots=3, context=120)
    shuffled = random.Random(7)
    done = 0
    for _ in range(600):
        if bench.scheduler.free_slots and shuffled.random() < 0.7:
            size = shuffled.randrange(1, 100)
            bench.admit((SYSTEM * 2)[:size], tokens=min(120 - size, shuffled.randrange(1, 90)))
            done += 1
        if bench.scheduler.held:
            bench.step()
            assert bench.scheduler.prefixes.cells.used <= bench.engine.facts.kv_tokens
    bench.finish()
    assert done > 10


def test_only_its_own_account_goes_on_in_a_slot() -> None:
    bench = PartsBench(slots=1)
    bench.run(SYSTEM, account="alice")
    assert bench.run(SYSTEM + "x", account="bob").cached == 0
    assert bench.run(SYSTEM + "y", account="bob").cached == len(SYSTEM)


def test_a_prompt_beside_readers_comes_in_whole_blocks_whether_or_not_slots_share_cells() -> None:
    for bench, beside in ((Bench(slots=2, context=4_000), 1), (PartsBench(slots=2, context=4_000), -1)):
        reader = bench.admit("Once upon a time", tokens=400)
        while not reader.decoding:
            bench.step()
        bench.admit("x" * 3_500, tokens=1)
        for _ in range(12):  # they learn what a step takes
            bench.step(token_ms=1.0)
        (rows,) = (len(row.tokens) for row in bench.step(token_ms=1.0).rows if len(row.tokens) > 1)
        assert rows > BLOCK
        assert (rows + beside) % BLOCK == 0
