"""Workers that wait for a model: one that has died since is not the one that gets it."""

from __future__ import annotations

import pytest

from herder.broker import GONE_LEASES, Broker
from herder.clock import SimulatedClock
from herder.waiting import Waiting
from tests.integration.ring import CARD, STATS


@pytest.fixture
def door(timed_broker: Broker) -> Waiting:
    """On a clock that the test moves."""
    return Waiting(timed_broker)


async def test_the_model_goes_to_the_worker_that_spoke_last(door: Waiting, clock: SimulatedClock) -> None:
    assert await door.wait("dead") is None
    clock.advance(5_000)
    assert await door.wait("heir") is None
    assert await door.those() == ["dead", "heir"]
    assert await door.appoint(None, "herd-tiny") == ("OK", "heir")
    assert await door.wait("heir") == "herd-tiny"


async def test_one_that_its_supervisor_has_buried_waits_no_more(door: Waiting, timed_broker: Broker) -> None:
    await door.wait("dead")
    await timed_broker.leave("dead")
    assert await door.those() == []
    assert await door.appoint("dead", "herd-tiny") == ("NONE", "")
    assert await door.appoint(None, "herd-tiny") == ("NONE", "")
    assert await door.inherited("dead") == ""


async def test_one_that_has_been_silent_for_long_is_forgotten(
    door: Waiting, timed_broker: Broker, clock: SimulatedClock
) -> None:
    gone_ms = GONE_LEASES * timed_broker.settings.lease_ms
    await door.wait("w1")
    clock.advance(gone_ms)
    assert await door.those() == ["w1"]
    clock.advance(1)
    assert await door.those() == []
    assert await door.appoint("w1", "herd-tiny") == ("NONE", "")


async def test_each_of_those_that_wait_gets_one_model(door: Waiting, timed_broker: Broker) -> None:
    for worker in ("w1", "w2"):
        await door.wait(worker)
    first = await door.appoint(None, "herd-tiny")
    second = await door.appoint(None, "herd-tiny")
    assert {first, second} == {("OK", "w1"), ("OK", "w2")}
    assert await door.appoint(None, "herd-tiny") == ("NONE", "")
    assert await door.appoint("w1", "herd-tiny") == ("OK", "w1")
    assert await door.appoint("w1", "other") == ("HAS", "herd-tiny")
    await timed_broker.register_worker("w3", CARD, STATS, None)
    assert await door.appoint("w3", "other") == ("HAS", CARD.model)
    await door.failed("w2", "no such file")
    assert (await door.inherited("w1"), await door.inherited("w2")) == ("herd-tiny", "")


@pytest.mark.parametrize("named", [True, False])
async def test_one_that_comes_back_under_its_name_is_given_another_model(door: Waiting, named: bool) -> None:
    await door.wait("w1")
    assert await door.appoint("w1", "typo.gguf") == ("OK", "w1")
    assert await door.wait("w1") == "typo.gguf"
    await door.failed("w1", "typo.gguf: no such file")
    # Gone, it says why to whoever asks the same again, and takes no other.
    assert await door.appoint("w1", "typo.gguf") == ("OK", "w1")
    assert (await door.appointment("w1")).why == "typo.gguf: no such file"
    assert await door.appoint("w1", "herd-tiny") == ("HAS", "typo.gguf")
    assert await door.wait("w1") is None
    assert await door.appoint("w1" if named else None, "herd-tiny") == ("OK", "w1")
    assert (await door.appointment("w1")).why is None
    assert await door.wait("w1") == "herd-tiny"
    assert await door.inherited("w1") == "herd-tiny"
