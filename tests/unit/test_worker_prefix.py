"""What is reused of the cache, and who waits for whom."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.prefix_bench import SYSTEM, Bench
from worker.scheduler import FOLLOW_LEAST, STILL_MAX, Scheduler
from worker.sequence import Sequence

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


def test_an_answer_that_may_be_begun_anew_is_no_source() -> None:
    bench = Bench()
    typed = bench.admit(SYSTEM, tokens=60)
    typed.lease = replace(typed.lease, brief=replace(typed.lease.brief, schema="{}"))
    for _ in range(40):
        bench.step()
    late = Sequence(typed.lease, list((SYSTEM + typed.text[:20]).encode()))
    source, leader = bench.scheduler.prefixes.find(late)
    assert (source.length, leader) == (len(SYSTEM) - 1, None)


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
    bench = Bench(context=2_000)
    leader = bench.admit(SYSTEM * 3 + "leader", tokens=50)
    follower = bench.admit(SYSTEM * 3 + "follower")
    stranger = bench.admit(
        "a stranger's prompt, which is long as well, and longer than a step can bear " * 20
    )
    bench.step(token_ms=10.0)
    assert [s.slot is None for s in (leader, follower, stranger)] == [False, True, False]
    while follower.slot is None:
        bench.step(token_ms=10.0)
    assert leader.done >= len(SYSTEM * 3)
    while not follower.decoding:
        bench.step(token_ms=10.0)
    assert not stranger.decoding


def test_the_room_of_a_job_that_waits_is_left_to_it() -> None:
    leader_needs, follower_needs = len(SYSTEM * 3) + 6 + 50, 8 + 20
    bench = Bench(kv_tokens=leader_needs + follower_needs + 10)
    bench.admit(SYSTEM * 3 + "leader", tokens=50)
    follower = bench.admit(SYSTEM * 3 + "follower", tokens=20)
    stranger = bench.admit("stranger", tokens=follower_needs)
    small = bench.admit("s", tokens=2)
    assert bench.scheduler.kv_free == 0
    bench.step()
    assert bench.scheduler.kv_reserved == leader_needs + follower_needs + 8 + follower_needs + 3
    while follower.slot is None:
        assert [s.slot for s in (stranger, small)] == [None, None]
        bench.step()
    assert follower.cached == len(SYSTEM * 3)
    bench.finish()


def test_a_longer_part_to_come_does_not_hide_a_part_that_is_there() -> None:
    bench = Bench()
    there = bench.admit(SYSTEM, tokens=50)
    while not there.decoding:
        bench.step()
    # Bob's job may not begin with Alice's, so it computes all of it; a third one may begin with either.
    coming = bench.admit(SYSTEM + "more", account="bob", shares=True)
    bench.scheduler.plan()
    assert (coming.done, coming.slot is None) == (0, False)
    late = bench.admit(SYSTEM + "more!", shares=True)
    source, leader = bench.scheduler.prefixes.find(late)
    assert (source.slot, source.length) == (there.slot, len(SYSTEM))
    assert leader is not None
    assert (leader.sequence, leader.length) == (coming, len(SYSTEM + "more"))
    bench.finish()
    assert late.cached == len(SYSTEM)


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


def test_a_job_begins_a_step_later_where_copies_are_in_the_way() -> None:
    bench = Bench(slots=2, sequences=3)
    prompts = [f"{letter} {SYSTEM}" for letter in "ABC"]
    for prompt in prompts:
        bench.run(prompt, tokens=1)
    first = bench.admit(prompts[0] + "?", tokens=50)
    second = bench.admit(prompts[2] + "?", tokens=5)
    bench.step()
    assert [first.slot is None, second.slot is None] == [False, True]
    bench.step()
    assert (second.slot is None, first.ended) == (False, False)
    assert min(first.cached, second.cached) >= len(SYSTEM)


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
