"""Who starts next: bids, arrival, accounts' clocks, the frontier, room; and that nobody waits for ever."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from herder.broker import Broker, connect
from herder.clock import SimulatedClock
from herder.pricing import head_start_ms
from herder.settings import Settings
from tests.integration.batch_bench import BatchBench
from tests.integration.pace import Arrival, Pace
from tests.integration.ring import MODEL, Ring
from tests.simulation.mutants import Mutant, broken

NO_FRONTIER = Mutant("no frontier", "submit", "math.min(NOW, math.max(frontier, NOW - A.window_ms))", "NOW")
CROWD = 200


async def starts(ring: Ring, count: int) -> list[str]:
    """The next jobs to start, one at a time."""
    return [(await ring.lease_one()).job_id for _ in range(count)]


async def test_a_bid_starts_within_two_starts(timed_broker: Broker, clock: SimulatedClock) -> None:
    accounts = [f"a{i}" for i in range(CROWD)]
    ring = await Ring(timed_broker).open(*accounts, "hasty")
    for account in accounts:
        await ring.submit(account, tokens=32)
        clock.advance(10)
    running = await ring.lease("w1", slots=2)
    bid = await ring.submit("hasty", tokens=32, multiplier=1.5)
    assert bid.position == 0
    order = []
    for lease in running:
        await ring.settle(lease, 32)
        order.append((await ring.lease_one()).job_id)
    assert bid.job_id in order


async def test_equal_bids_start_in_order_of_arrival(timed_broker: Broker, clock: SimulatedClock) -> None:
    rng = random.Random(7)
    accounts = [f"a{i}" for i in range(CROWD)]
    ring = await Ring(timed_broker).open(*accounts)
    came: list[str] = []
    started: list[str] = []
    for account in accounts:
        came.append((await ring.submit(account, tokens=rng.choice((1, 32, 300)))).job_id)
        clock.advance(rng.choice((0, 0, 1, 500, 20_000)))
        if rng.random() < 0.3:
            started += await starts(ring, 1) if len(came) > len(started) else []
    started += await starts(ring, CROWD - len(started))
    assert started == came


async def test_within_the_window_order_is_by_bid(timed_broker: Broker, clock: SimulatedClock) -> None:
    bids = (1.0, 3.0, 1.2, 100.0, 1.5, 2.0)
    ring = await Ring(timed_broker).open(*(f"a{bid}" for bid in bids), funds=10_000_000)
    jobs = {}
    for bid in bids:
        jobs[(await ring.submit(f"a{bid}", multiplier=bid)).job_id] = bid
        clock.advance(1_000)
    assert [jobs[job] for job in await starts(ring, len(bids))] == sorted(bids, reverse=True)


async def newcomers(
    broker: Broker, clock: SimulatedClock, *, measured: float, crowd: Sequence[Arrival]
) -> list[int]:
    """One account has a crowd of jobs waiting; how many starts does each of some single jobs wait meanwhile?"""
    ring = await Ring(broker).open("heavy", *(f"new{i}" for i in range(8)))
    pace = Pace(ring, clock, slots=2, ms_per_token=20)
    await pace.measure(measured)
    single = [
        Arrival(5_000 + len(crowd) * 35 * i, f"new{i}") for i in range(8)
    ]  # over four fifths of the time
    served = await pace.serve([*crowd, *single])
    assert len(served) == len(crowd) + 8
    return [job.starts_waited for job in served if job.account != "heavy"]


@pytest.mark.parametrize(("measured", "jobs"), [(0.75, 100), (1.0, 100), (1.25, 500)])
async def test_a_newcomer_does_not_wait_for_somebodys_500_jobs(
    timed_broker: Broker, clock: SimulatedClock, measured: float, jobs: int
) -> None:
    """Whether the herd knows its speed or is wrong by a quarter either way."""
    crowd = [Arrival(0, "heavy")] * jobs
    assert max(await newcomers(timed_broker, clock, measured=measured, crowd=crowd)) <= 2


async def test_a_bid_on_the_last_of_many_jobs_moves_no_newcomer_back(
    timed_broker: Broker, clock: SimulatedClock
) -> None:
    """It is taken from far behind the line: those it overtook have not been served."""
    crowd = [
        *[Arrival(0, "heavy")] * 200,
        Arrival(0, "heavy", multiplier=2.0),
        Arrival(1, "heavy", multiplier=2.0),
    ]
    assert max(await newcomers(timed_broker, clock, measured=1.25, crowd=crowd)) <= 2


async def test_without_the_frontier_a_newcomer_would_wait(settings: Settings, clock: SimulatedClock) -> None:
    """The control of the test above: the same herd, wrong by a quarter, where newcomers are stamped with the time."""
    with broken(NO_FRONTIER):
        broker = await connect(settings, clock)
    await broker.set_prices(10, 1)
    assert max(await newcomers(broker, clock, measured=1.25, crowd=[Arrival(0, "heavy")] * 200)) > 20
    await broker.close()


async def test_an_idle_herd_serves_the_heavy_account_at_full_speed(
    timed_broker: Broker, clock: SimulatedClock
) -> None:
    ring = await Ring(timed_broker).open("heavy")
    pace = Pace(ring, clock, slots=2, ms_per_token=20)
    await pace.measure(0.5)  # its clock runs twice as fast as the herd
    served = await pace.serve([Arrival(0, "heavy")] * 50)
    assert max(job.started_ms for job in served) == 24 * 32 * 20


async def test_two_heavy_accounts_share(timed_broker: Broker, clock: SimulatedClock) -> None:
    ring = await Ring(timed_broker).open("ann", "bob")
    pace = Pace(ring, clock, slots=2, ms_per_token=20)
    await pace.measure()
    await pace.serve([*[Arrival(0, "ann")] * 60, *[Arrival(4_000, "bob")] * 60], until="bob")
    both = [pace.jobs[job].account for job in pace.starts][20:80]
    assert abs(both.count("ann") - both.count("bob")) <= 4


async def test_a_low_bid_under_a_flood_of_high_ones_starts_within_its_bound(
    settings: Settings, clock: SimulatedClock
) -> None:
    """Whoever overtakes a job came before it, or within window + the difference of the head starts after it."""
    settings = settings.model_copy(update={"doubling_ms": 10_000, "window_ms": 5_000})
    broker = await connect(settings, clock)
    await broker.set_prices(10, 1)
    rich = [f"rich{i}" for i in range(120)]
    ring = await Ring(broker).open("low", *rich)
    pace = Pace(ring, clock, slots=2, ms_per_token=20)
    await pace.measure()
    # 2 slots start a job each 320 ms; twice as many bids of 2.0 come, each from somebody new.
    flood = [Arrival(160 * i, account, multiplier=2.0) for i, account in enumerate(rich)]
    served = await pace.serve([*flood, Arrival(1_000, "low")], until="low")
    (low,) = [job for job in served if job.account == "low"]
    bound = settings.window_ms + head_start_ms(2_000, settings.doubling_ms)
    overtook = [job for job in served if 0 <= job.place < low.place and job.came_ms > low.came_ms]
    assert overtook
    assert max(job.came_ms for job in overtook) <= low.came_ms + bound
    assert [job for job in served if job.place < 0], "the flood was over before the low bid started"
    await broker.close()


async def test_a_job_that_does_not_fit_is_not_starved(timed_broker: Broker, clock: SimulatedClock) -> None:
    """Smaller jobs pass it `lease_skips_max` times; then its room is kept."""
    skips = timed_broker.settings.lease_skips_max
    ring = await Ring(timed_broker).open("big", "small", funds=100_000_000)
    await ring.submit("small", tokens=50)
    (lease,) = await timed_broker.lease("w1", MODEL, slots=1, kv_free=100, kv_total=100)
    clock.advance(600_000)
    big = await ring.submit("big", tokens=90)
    for _ in range(skips + 5):
        clock.advance(1)
        await ring.submit("small", tokens=1, multiplier=1.0)
    passed = 0
    while small := await timed_broker.lease("w1", MODEL, slots=1, kv_free=45, kv_total=100):
        await ring.settle(small[0], 1)
        passed += 1
    assert passed == skips
    await ring.settle(lease, 50)
    (first,) = await timed_broker.lease("w1", MODEL, slots=1, kv_free=100, kv_total=100)
    assert first.job_id == big.job_id


async def test_a_small_worker_sees_past_jobs_that_only_a_large_one_can_run(timed_broker: Broker) -> None:
    accounts = [f"big{i}" for i in range(60)]
    ring = await Ring(timed_broker).open(*accounts, "small")
    for account in accounts:
        await ring.submit(account, tokens=500)
    small = await ring.submit("small", tokens=5, multiplier=1.0)
    (lease,) = await timed_broker.lease("w1", MODEL, slots=4, kv_free=100, kv_total=100)
    assert lease.job_id == small.job_id


async def test_unused_tokens_give_clock_time_back(timed_broker: Broker) -> None:
    """An account that asked for much and used little stands no further back than one that asked for little."""
    ring = await Ring(timed_broker).open("ann", "bob", "cay")
    for account in ("ann", "bob"):
        await ring.submit(account, tokens=1_000)
        await ring.settle(await ring.lease_one(), 1 if account == "ann" else 1_000)
    cay = await ring.submit("cay", tokens=20)
    ann, bob = await ring.submit("ann", tokens=20), await ring.submit("bob", tokens=20)
    late = await ring.submit("cay", tokens=20)
    # ann used 1 token (20 ms), cay stands 20 tokens (400 ms) on, bob 1,000 tokens (20 s).
    assert await starts(ring, 4) == [cay.job_id, ann.job_id, late.job_id, bob.job_id]


async def test_where_a_job_would_stand_is_where_it_stands(
    timed_broker: Broker, clock: SimulatedClock
) -> None:
    rng = random.Random(3)
    accounts = [f"a{i}" for i in range(10)]
    ring = await Ring(timed_broker).open(*accounts, funds=10_000_000)
    for _ in range(100):
        account, bid = rng.choice(accounts), rng.choice((1.0, 1.0, 1.5, 20.0))
        told = await timed_broker.hypothetical_position(account, MODEL, round(bid * 1_000))
        assert (await ring.submit(account, multiplier=bid)).position == told
        clock.advance(rng.choice((0, 100, 5_000, 700_000)))
        if rng.random() < 0.3:
            await ring.settle(await ring.lease_one(), rng.randint(1, 20))


async def test_the_time_of_an_empty_line_is_added_up_however_it_fills_again(
    timed_broker: Broker, clock: SimulatedClock
) -> None:
    """By a submission, by what a worker gives back, by a batch: the last accepted multiplier decays by it."""
    ring = await Ring(timed_broker).open("ann")
    bench = BatchBench(ring)

    async def market() -> tuple[int, int]:
        told = await timed_broker.hash_of("model", MODEL)
        return int(told["empty_since"]), int(told.get("empty_ms", 0))

    await ring.submit("ann")
    lease = await ring.lease_one()
    assert await market() == (clock.now_ms, 0)
    clock.advance(300)
    await timed_broker.release("w1", [(lease.job_id, lease.attempt)], died=False)
    assert await market() == (0, 300)
    await ring.lease_one()
    clock.advance(20)
    batch = await bench.paid(1)
    assert (await market())[0] == clock.now_ms - 20
    await bench.fed(batch)
    assert await market() == (0, 320)
    await ring.lease_one()
    clock.advance(1)
    await ring.submit("ann")
    assert await market() == (0, 321)
