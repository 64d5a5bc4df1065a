"""Who has which places: of an account, of a host, of an endpoint; and why a delivery without one waits."""

from __future__ import annotations

import pytest

from herder.broker import Broker
from herder.clock import SimulatedClock
from herder.courier import ATTEMPTS_MAX
from herder.deliveries import ACCOUNT_MAX, DOWN_AFTER, PROBE_MS, SOON_MS, Deliveries
from herder.webhook_records import Attempted, DeliveryStatus, HeldBack
from tests.integration.desk import DAY_MS, HOST_MAX, Desk


@pytest.fixture
def desk(timed_broker: Broker, clock: SimulatedClock) -> Desk:
    return Desk(timed_broker, clock)


async def test_an_account_has_so_many_attempts_at_a_time_wherever_they_go(desk: Desk) -> None:
    assert ACCOUNT_MAX == ATTEMPTS_MAX // 4
    for number in range(40):
        await desk.post(f"h{number}", path="hook")
    claimed = await desk.claim()
    assert len(claimed) == ACCOUNT_MAX
    desk.later(1)
    assert await desk.claim() == []
    for id_, attempt in claimed[:4]:
        assert await desk.tell(id_, attempt, DAY_MS)
    assert len(await desk.claim()) == 4
    desk.later(desk.flight_ms)  # its courier is lost
    assert len(await desk.claim()) == ACCOUNT_MAX


async def test_attempts_count_as_long_as_they_last_however_short_a_delivery_is_kept(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = desk.broker
    short = broker.settings.model_copy(update={"webhook_ttl_ms": 1_000})
    monkeypatch.setattr(broker, "settings", short)
    desk.door = Deliveries(broker)
    await desk.post("h", path="hook")
    await desk.claim()
    for scope in ("alice", "alice@h:80"):
        left_ms = await broker.fetch(broker.redis.pttl(broker.keys("flying", scope)))
        assert desk.flight_ms - 5_000 < left_ms <= desk.flight_ms


async def test_one_account_with_200_receivers_that_hang_stops_nobody_else(desk: Desk) -> None:
    for number in range(200):
        await desk.post(f"h{number}", 5, path="hook")
    flying = await desk.claim(ATTEMPTS_MAX)
    desk.later(1_000)
    assert await desk.claim(ATTEMPTS_MAX - len(flying)) == []
    desk.later(1_000)
    (id_,) = await desk.post("z", account="bob", path="hook")
    assert await desk.claim(1) == [(id_, 1)]  # even where the courier has a single place left


async def test_more_lanes_without_room_than_one_claim_looks_at_hide_nobody_for_long(desk: Desk) -> None:
    looked_max = 10
    desk.door = Deliveries(desk.broker, looked_max=looked_max)
    for number in range(ACCOUNT_MAX + 2 * looked_max):
        await desk.post(f"h{number}", path="hook")
    claimed = 0
    while claimed < ACCOUNT_MAX:
        desk.later(1)
        claimed += len(await desk.claim())
    (id_,) = await desk.post("z", account="bob", path="hook")
    found = []
    for _ in range(3):
        desk.later(1)
        found.append(await desk.claim())
    assert found == [[], [], [(id_, 1)]]


async def test_a_broken_endpoint_does_not_hold_up_another_of_its_host(desk: Desk) -> None:
    await desk.post("a", 60, path="broken")
    failed = 0
    while failed < DOWN_AFTER:
        for id_, attempt in await desk.claim():
            assert await desk.tell(id_, attempt, 0)
            failed += 1
    (good,) = await desk.post("a", path="good")
    assert await desk.claim() == [(good, 1)]


async def test_endpoints_of_one_host_share_its_places(desk: Desk) -> None:
    await desk.post("a", 20, path="x")
    flying = await desk.claim()
    assert len(flying) == HOST_MAX
    desk.later(1)
    waiting = [
        *await desk.post("a", path="y"),
        *await desk.post("a"),
    ]  # the latter as an earlier version named it
    assert await desk.claim() == []
    for id_, attempt in flying[:3]:
        assert await desk.tell(id_, attempt, DAY_MS)
        desk.later(1)
    claimed = [id_ for id_, _ in await desk.claim()]
    assert set(waiting) < set(claimed)
    assert len(claimed) == 3


async def test_a_delivery_says_why_it_waits(desk: Desk) -> None:
    ids = await desk.post("a", HOST_MAX + 1, path="hook")
    flying = await desk.claim()
    last = ids[-1]
    assert [one.held_back for one in await desk.held(*ids)] == [None] * len(ids)  # it has only just come
    desk.later(SOON_MS)
    under_way = [id_ for id_, _ in flying]
    assert {one.held_back for one in await desk.held(*under_way)} == {None}
    (busy,) = await desk.held(last)
    assert busy.held_back is HeldBack.BUSY
    for id_, attempt in flying:
        assert await desk.tell(id_, attempt, DAY_MS)
    assert {one.held_back for one in await desk.held(*under_way)} == {None}  # their time has not come
    assert [one.held_back for one in await desk.held()] == []


async def test_a_delivery_says_that_its_endpoint_is_down_and_when_it_is_asked_again(desk: Desk) -> None:
    ids = await desk.post("a", 40, path="hook")
    for _ in range(DOWN_AFTER // HOST_MAX):
        for id_, attempt in await desk.claim():
            assert await desk.tell(id_, attempt, DAY_MS)
    (down,) = await desk.held(ids[-1])
    assert (down.held_back, down.next_ms) == (HeldBack.ENDPOINT_DOWN, desk.clock.now_ms + PROBE_MS)
    desk.later(PROBE_MS)
    ((probe, attempt),) = await desk.claim()
    asked, waits = await desk.held(probe, ids[-1])
    assert asked.held_back is None
    assert (waits.held_back, waits.next_ms) == (
        HeldBack.ENDPOINT_DOWN,
        desk.clock.now_ms + desk.flight_ms,
    )
    assert await desk.door.attempted(Attempted(probe, attempt, DeliveryStatus.DELIVERED, response_status=204))
    desk.later(SOON_MS)
    assert [one.held_back for one in await desk.held(probe, ids[-1])] == [None, HeldBack.BUSY]
