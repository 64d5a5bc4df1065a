"""Who is tried next: endpoints, their turns and limits, and attempts that nobody answered for; time stands still."""

from __future__ import annotations

from dataclasses import replace

import pytest

from herder.broker import Broker
from herder.clock import SimulatedClock
from herder.deliveries import DOWN_AFTER, PROBE_MAX_MS, PROBE_MS
from herder.webhook_records import Attempted, DeliveryStatus, NewDelivery
from tests.integration.desk import DAY_MS, HOST_MAX, Desk
from tests.integration.ring import Ring


@pytest.fixture
def desk(timed_broker: Broker, clock: SimulatedClock) -> Desk:
    return Desk(timed_broker, clock)


async def test_a_host_has_so_many_attempts_at_a_time(desk: Desk) -> None:
    await desk.post("a", 20)
    claimed = await desk.claim()
    assert len(claimed) == HOST_MAX
    assert await desk.claim() == []
    await desk.post("b")
    assert await desk.hosts(100) == {"b": 1}
    for id_, attempt in claimed[:3]:
        assert await desk.tell(id_, attempt, DAY_MS)
    assert await desk.hosts(100) == {"a": 3}


async def _down(desk: Desk) -> None:
    """Host a goes down, with more that is due."""
    await desk.post("a", 40)
    failed = 0
    while failed < DOWN_AFTER:
        claimed = await desk.claim()
        assert len(claimed) == HOST_MAX
        for id_, attempt in claimed:
            assert await desk.tell(id_, attempt, DAY_MS)
        failed += len(claimed)


async def test_a_host_that_stays_down_is_asked_less_and_less(desk: Desk) -> None:
    await _down(desk)
    pauses = []
    for _ in range(7):
        since = desk.clock.now_ms
        while not (claimed := await desk.claim()):
            desk.later(100)
        pauses.append(desk.clock.now_ms - since)
        assert await desk.tell(*claimed[0], DAY_MS)
    assert pauses == [PROBE_MS, PROBE_MS, *(2**n * PROBE_MS for n in (1, 2, 3)), PROBE_MAX_MS, PROBE_MAX_MS]


async def test_a_host_that_is_down_is_asked_once_at_a_time_until_it_answers(desk: Desk) -> None:
    await _down(desk)
    await desk.post("b", 2)
    assert await desk.hosts(100) == {"b": 2}  # others have their room
    desk.later(PROBE_MS)
    [down] = await desk.claim()
    assert await desk.tell(*down, DAY_MS)
    desk.later(PROBE_MS - 1)
    assert await desk.claim() == []
    desk.later(1)
    [tried] = await desk.claim()
    assert await desk.door.attempted(Attempted(*tried, DeliveryStatus.DELIVERED, response_status=204))
    assert await desk.hosts(100) == {"a": HOST_MAX}


async def test_another_account_at_the_same_host_does_not_wait(desk: Desk) -> None:
    await desk.post("a", 200)
    assert len(await desk.claim()) == HOST_MAX
    await desk.post("a", 2, account="bob")
    assert len(await desk.claim()) == 2


async def test_what_was_never_sent_says_nothing_of_its_host(desk: Desk) -> None:
    await desk.post("a", DOWN_AFTER + 20)
    for _ in range(DOWN_AFTER):
        [tried, *_] = await desk.claim(1)
        assert await desk.tell(*tried)
    assert await desk.hosts(100) == {"a": HOST_MAX}


async def test_room_is_shared_out_among_hosts(desk: Desk) -> None:
    for host in "abc":
        await desk.post(host, 20)
    assert await desk.hosts(9) == {"a": 3, "b": 3, "c": 3}
    desk.later(1)
    assert await desk.hosts(2) == {"a": 1, "b": 1}
    desk.later(1)
    assert await desk.hosts(2) == {"c": 1, "a": 1}
    assert sum((await desk.hosts(100)).values()) == 3 * HOST_MAX - 13


async def test_a_backlog_of_dead_hosts_does_not_come_first_for_ever(desk: Desk) -> None:
    """Two dead hosts have much that is due for long; a third one's first webhook waits for one turn of each."""
    await desk.post("a", 100)
    await desk.post("b", 100)
    flying = await desk.claim(4)
    desk.later(1_000)
    await desk.post("c")
    seen: list[str] = []
    for _ in range(3):  # one attempt ends, and so there is room for one
        desk.later(10)
        await desk.tell(*flying.pop(0), pause_ms=0)
        (claimed,) = await desk.claim(1)
        flying.append(claimed)
        seen.append(claimed[0].removeprefix("msg_")[0])
    assert "c" in seen


async def test_a_host_that_waits_keeps_its_turn_however_much_more_comes(desk: Desk) -> None:
    await desk.post("a")
    for _ in range(5):
        desk.later(10)
        await desk.post("b", 3)
        await desk.post("a")
    assert await desk.hosts(1) == {"a": 1}


async def test_an_attempt_that_nobody_answered_for_is_made_again(desk: Desk) -> None:
    (id_,) = await desk.post("a")
    assert await desk.claim() == [(id_, 1)]
    desk.later(desk.flight_ms - 1)
    assert await desk.claim() == []
    desk.later(1)
    assert await desk.claim() == [(id_, 2)]
    assert not await desk.tell(id_, 1), "the first attempt is not the one under way"
    assert await desk.tell(id_, 2)
    found = await desk.door.delivery(id_)
    assert found is not None
    assert (found.tries, found.attempt, found.status) == (1, 2, DeliveryStatus.DEAD)


async def test_a_late_answer_counts_as_long_as_no_other_attempt_was_begun(desk: Desk) -> None:
    ids = await desk.post("a", HOST_MAX + 1)
    first = await desk.claim()
    desk.later(2 * desk.flight_ms)
    assert await desk.tell(*first[0], pause_ms=DAY_MS)
    again = dict(await desk.claim())
    assert first[0][0] not in again
    assert set(again) == set(ids) - {first[0][0]}


async def test_what_came_of_an_attempt_is_told_once(desk: Desk) -> None:
    (id_,) = await desk.post("a")
    await desk.claim()
    assert await desk.tell(id_, 1, pause_ms=0)
    assert not await desk.tell(id_, 1, pause_ms=0)
    assert await desk.claim() == [(id_, 2)]
    assert await desk.tell(id_, 2)
    assert not await desk.tell(id_, 2)


async def test_a_pause_is_waited_for(desk: Desk) -> None:
    (id_,) = await desk.post("a")
    await desk.claim()
    await desk.tell(id_, 1, pause_ms=5_000)
    desk.later(4_999)
    assert await desk.claim() == []
    desk.later(1)
    assert await desk.claim() == [(id_, 2)]


async def test_a_redelivery_whose_last_answer_is_repeated_is_not_over(desk: Desk) -> None:
    """The reply of `attempted` gets lost, the owner redelivers, `attempted` is sent again: it changes nothing."""
    await Ring(desk.broker).open("alice")
    (id_,) = await desk.post("a")
    endpoint = await desk.door.ensure_endpoint("alice", "http://a/", "ep_1", "whsec_c2VjcmV0")
    assert endpoint == "ep_1"
    await desk.claim()
    await desk.tell(id_, 1)
    await desk.door.redeliver("alice", id_)
    assert not await desk.tell(id_, 1)
    assert await desk.claim() == [(id_, 2)]


async def test_a_callback_that_was_taken_is_not_posted_again(desk: Desk) -> None:
    entry = await desk.broker.fetch(desk.broker.redis.xadd(desk.broker.keys("callbacks"), {"job": "x"}))
    new = NewDelivery("msg_1", "alice", "ep_1", "http://a/", "alice@a:80", "job.succeeded", "job_1", 7)
    assert await desk.door.answer([(entry.decode(), new)]) == (1, 1)
    await desk.claim()
    assert await desk.door.answer([(entry.decode(), replace(new, at_ms=8))]) == (0, 0)
    found = await desk.door.delivery("msg_1")
    assert found is not None
    assert (found.at_ms, found.attempt) == (7, 1)


async def test_nothing_is_left_of_a_host_that_has_nothing_left(desk: Desk) -> None:
    ids = await desk.post("a", 3)
    for id_, attempt in await desk.claim():
        await desk.tell(id_, attempt)
    keys = desk.broker.keys
    names = [keys("due", "alice@a:80"), keys("flights", "alice@a:80"), keys("due_lanes")]
    names += [keys("flying", "alice@a:80"), keys("flying", "alice")]
    assert await desk.broker.fetch(desk.broker.redis.exists(*names)) == 0
    desk.later(desk.broker.settings.webhook_ttl_ms + 1)
    await desk.broker.sweep()
    assert await desk.door.deliveries("alice", status=None, before=None, limit=10) == ([], None)
    assert [await desk.door.delivery(id_) for id_ in ids] == [None] * 3
