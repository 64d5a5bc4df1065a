"""Held beginnings: who holds one takes the job first, within a window; others leave it a moment; price rules."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

import pytest

from herder import broker as broker_module
from herder.brief import Brief
from herder.broker import Broker
from herder.clock import SimulatedClock
from herder.pricing import head_start_ms
from herder.protocol import Taken
from herder.settings import Settings
from tests.integration.leasing import OPENING, WORKERS, Bench, opened
from tests.integration.ring import CARD, MODEL, STATS

SECOND = 1_000


@pytest.fixture
async def bench(timed_broker: Broker) -> Bench:
    bench = Bench(timed_broker)
    await bench.open("ann", "bob", "cay", "dan", workers=WORKERS, funds=10**9)
    return bench


@pytest.mark.parametrize("beyond_ms", [0, 1])
async def test_who_holds_the_beginning_takes_it_first_within_the_window_and_never_beyond(
    settings: Settings, clock: SimulatedClock, beyond_ms: int
) -> None:
    """A bid of a thousandth more stands 5.2 s further ahead: inside a window as wide as that, outside of any other."""
    ahead_ms = head_start_ms(1_001, settings.doubling_ms)
    assert ahead_ms > settings.prefix_window_ms
    bench = await opened(settings, clock, prefix_window_ms=ahead_ms - beyond_ms)
    await bench.done("w1", OPENING)
    clock.advance(60 * SECOND)
    first = await bench.prompt("bob", "something else " * 40, multiplier=1.001)
    ours = await bench.prompt("ann", OPENING + "and then?")
    clock.advance(SECOND)
    order = [first, ours] if beyond_ms else [ours, first]
    assert await bench.jobs("w1") + await bench.jobs("w1") == order
    await bench.broker.close()


async def test_a_bid_is_first_whatever_is_held_of_the_others(bench: Bench, clock: SimulatedClock) -> None:
    await bench.done("w1", OPENING)
    clock.advance(60 * SECOND)
    held = [await bench.prompt("ann", f"{OPENING} {i}", tokens=1) for i in range(6)]
    bid = await bench.prompt("cay", "a bid that came last " * 40, multiplier=1.001)
    clock.advance(SECOND)
    assert await bench.jobs("w1", slots=2) == [bid, held[0]]


async def test_the_longest_match_is_first(bench: Bench, clock: SimulatedClock) -> None:
    await bench.done("w1", OPENING + "A" * 3_000)
    clock.advance(60 * SECOND)
    some = await bench.prompt("ann", OPENING + "B" * 3_000)
    none = await bench.prompt("bob", "C" * 3_000)
    most = await bench.prompt("ann", OPENING + "A" * 2_900, tokens=1)
    clock.advance(SECOND)
    assert await bench.jobs("w1", slots=2) == [some, most]
    assert await bench.jobs("w1") == [none]


async def test_a_window_of_nothing_switches_it_off(settings: Settings, clock: SimulatedClock) -> None:
    bench = await opened(settings, clock, prefix_window_ms=0)
    await bench.done("w1", OPENING)
    clock.advance(60 * SECOND)
    first = await bench.prompt("bob", "something else " * 40)
    ours = await bench.prompt("ann", OPENING)
    assert await bench.jobs("w2") == [first]
    assert await bench.jobs("w2") == [ours]
    keys, redis = bench.broker.keys, bench.broker.redis
    assert await bench.broker.fetch(redis.exists(keys("prefixes", MODEL))) == 0
    await bench.broker.close()


async def test_nobody_is_passed_for_ever(bench: Bench, clock: SimulatedClock) -> None:
    """Whoever's beginning nobody holds is passed `lease_skips_max` times, and then is next."""
    await bench.done("w1", OPENING)
    clock.advance(600 * SECOND)
    poor = await bench.prompt("bob", "something else " * 40)
    skips_max = bench.broker.settings.lease_skips_max
    order = []
    for i in range(skips_max + 2):
        await bench.prompt("ann", f"{OPENING} {i}", tokens=1)
        clock.advance(1)
        order += await bench.jobs("w1")
    assert order.index(poor) == skips_max


async def test_a_job_is_left_to_the_idle_worker_that_holds_its_beginning(
    bench: Bench, clock: SimulatedClock
) -> None:
    wait_ms = bench.broker.settings.prefix_wait_ms
    await bench.done("w2", OPENING)
    clock.advance(SECOND)
    for holder_comes in (True, False):
        job = await bench.prompt("ann", OPENING + "and then?")
        clock.advance(40)
        assert await bench.take("w1") == Taken([], wait_ms - 40)
        clock.advance(wait_ms - 41)
        assert await bench.take("w1") == Taken([], 1)
        if holder_comes:
            taken = await bench.take("w2")
            assert [lease.job_id for lease in taken.leases] == [job]
            await bench.settle(taken.leases[0], 1, worker="w2")
        else:
            clock.advance(1)
            assert await bench.jobs("w1") == [job]


async def test_what_stands_behind_the_window_does_not_pass_what_is_left(
    bench: Bench, clock: SimulatedClock
) -> None:
    await bench.done("w2", OPENING)
    clock.advance(SECOND)
    job = await bench.prompt("ann", OPENING, multiplier=2.0)
    behind = await bench.prompt("bob", "something else " * 40)
    assert (await bench.take("w1", slots=4)).leases == []
    close = await bench.prompt("cay", "close by " * 40, multiplier=2.0)
    assert await bench.jobs("w1", slots=4) == [close]
    assert await bench.jobs("w2", slots=4) == [job, behind]


@pytest.mark.parametrize("why", ["silent", "gone", "busy", "draining", "little", "both"])
async def test_nothing_is_left_to_whom_it_does_not_help(
    bench: Bench, clock: SimulatedClock, why: str
) -> None:
    """A holder that is silent, gone, busy or draining; that holds little of it; or no more than the one that asks."""
    await bench.done("w2", OPENING)
    clock.advance(SECOND)
    if why == "silent":
        clock.advance(3 * bench.broker.settings.lease_ms)
        await bench.broker.register_worker("w1", CARD, STATS, None)
    elif why == "gone":
        await bench.broker.leave("w2")
    elif why == "busy":
        for i in range(STATS.slots):
            await bench.prompt("dan", f"x{i}")
        assert len(await bench.jobs("w2", slots=4)) == STATS.slots
    elif why == "draining":
        await bench.broker.renew("w2", MODEL, [], replace(STATS, slots=0))
    elif why == "both":
        await bench.prompt("ann", OPENING)
        clock.advance(SECOND)
        assert len(await bench.jobs("w1")) == 1
    more = "x" * 10_000 if why == "little" else ""
    job = await bench.prompt("ann", OPENING + more)
    assert await bench.jobs("w1") == [job]


async def test_another_account_has_no_part_in_it(bench: Bench, clock: SimulatedClock) -> None:
    await bench.done("w2", OPENING)
    clock.advance(SECOND)
    job = await bench.prompt("bob", OPENING)
    assert await bench.jobs("w1") == [job]


async def test_what_is_known_is_bounded_and_expires(bench: Bench, clock: SimulatedClock) -> None:
    redis, keys = bench.broker.redis, bench.broker.keys
    with patch.object(broker_module, "PREFIXES_MAX", 10):
        for i in range(12):
            await bench.done("w1", f"{i} " + "x" * 1_000)
            clock.advance(1)
            for name in ("prefixes", "prefixes_before"):
                assert await bench.broker.fetch(redis.hlen(keys(name, MODEL))) < 10 + 4
    for name in ("prefixes", "prefixes_before"):
        assert 0 < await bench.broker.fetch(redis.pttl(keys(name, MODEL))) <= 2 * broker_module.PREFIX_TTL_MS


# --- several answers to a job -----------------------------------------------------------------------------


def answers(n: int) -> Brief:
    return Brief("hello", n=n)


async def test_a_job_takes_a_slot_for_each_of_its_answers(bench: Bench) -> None:
    jobs = [(await bench.submit("ann", brief=answers(n))).job_id for n in (2, 1, 3, 1)]
    assert await bench.jobs("w1", slots=4) == [jobs[0], jobs[1], jobs[3]]
    assert await bench.jobs("w2", slots=4) == [jobs[2]]


async def test_a_worker_with_fewer_slots_never_takes_it_and_does_not_wait_for_it(bench: Bench) -> None:
    """Nor does it count as passed there, or the larger worker would keep its room for it."""
    large = (await bench.submit("ann", brief=answers(3))).job_id
    for _ in range(20):
        small = (await bench.submit("bob", brief=answers(1))).job_id
        taken = await bench.take("w1", slots=2, slots_total=2)
        assert [lease.job_id for lease in taken.leases] == [small]
    key = bench.broker.keys("job", large)
    assert await bench.broker.fetch(bench.broker.redis.hget(key, "skips")) is None
    assert await bench.jobs("w2", slots=4) == [large]


async def test_room_for_all_answers_is_kept_in_the_end(bench: Bench) -> None:
    large = (await bench.submit("ann", brief=answers(4))).job_id
    skips_max = bench.broker.settings.lease_skips_max
    for _ in range(skips_max + 1):
        await bench.submit("bob", brief=answers(1))
    passed = 0
    while await bench.jobs("w1", slots=1):
        passed += 1
    assert passed == skips_max
    assert await bench.jobs("w1", slots=4) == [large]
