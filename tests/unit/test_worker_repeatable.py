"""Jobs that are to repeat themselves, and jobs that want nothing of the cache: what each of them begins with."""

from __future__ import annotations

from herder.brief import Brief
from tests.unit.prefix_bench import SYSTEM, Bench
from worker.pace import BLOCK


def test_a_job_that_is_to_repeat_itself_begins_alone_with_an_empty_cache() -> None:
    bench = Bench()
    bench.run(SYSTEM + "One?")
    assert bench.run(SYSTEM + "One?", tokens=9).cached
    (alone,) = bench.admit_all(Brief(SYSTEM + "One?", repeatable=True))
    while not alone.decoding:
        bench.step()
    assert alone.cached == 0
    assert bench.scheduler.prefixes.kept_cells == 0
    # In company it takes what there is: it would not repeat itself anyway.
    (beside,) = bench.admit_all(Brief(SYSTEM + "One!", repeatable=True))
    bench.finish()
    assert beside.cached == len(SYSTEM) + 3
    # What it leaves is for others.
    assert bench.run(SYSTEM + "One?").cached == len(SYSTEM) + 3


def test_jobs_that_are_to_repeat_themselves_are_company_for_each_other() -> None:
    bench = Bench()
    bench.run(SYSTEM + "One?")
    burst = [bench.admit_all(Brief(SYSTEM + f"{i}?", repeatable=True))[0] for i in range(3)]
    bench.finish()
    assert [job.cached for job in burst] == [len(SYSTEM)] * 3


def test_a_job_that_is_to_repeat_itself_reads_its_prompt_in_equal_steps() -> None:
    bench = Bench(context=2_000)
    steps = []
    for ms in (0.1, 1.0, 100.0):
        for _ in range(5):
            bench.admit("x" * 100)
            while bench.scheduler.held:
                bench.step(token_ms=ms)
        before = len(bench.engine.steps)
        bench.admit_all(Brief("y" * 500, repeatable=True))
        bench.finish()
        steps.append(
            [[(row.start, len(row.tokens)) for row in step.rows] for step in bench.engine.steps[before:]]
        )
    assert steps[0] == steps[1] == steps[2]
    assert len(steps[0]) == -(-500 // BLOCK) + 4


def test_a_job_without_its_prompt_cached_takes_nothing_in_company_either() -> None:
    bench = Bench()
    bench.run(SYSTEM + "One?")
    bench.admit("another", tokens=50)
    bench.step()
    (mine,) = bench.admit_all(Brief(SYSTEM + "One?", cache_prompt=False, repeatable=True))
    bench.finish()
    assert mine.cached == 0


def test_its_answers_share_their_prompt_all_the_same() -> None:
    bench = Bench()
    answers = bench.admit_all(Brief(SYSTEM + "One?", n=3, cache_prompt=False, repeatable=True))
    bench.finish()
    assert [answer.cached for answer in answers] == [0, len(SYSTEM) + 3, len(SYSTEM) + 3]
