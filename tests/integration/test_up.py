"""What `herder up` does when a worker has died: its jobs go back in line, and its heir is given its model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from herder import up
from herder.broker import Broker
from herder.errors import RedisUnavailable
from herder.settings import Settings
from herder.supervisor import Child
from herder.waiting import Waiting
from tests.integration.ring import MODEL, Ring


@pytest.fixture
def herd(settings: Settings, broker: Broker) -> Iterator[up.Herd]:
    """One that has not been started, on a Redis of the tests."""
    herd = up.Herd(settings.model_copy(update={"model": ()}), lambda name, line: None)
    herd.broker = broker
    yield herd
    herd._turns.close()


def told(child: Child) -> tuple[str, str]:
    """The id and the model with which it is started now."""
    argv = list(child.command())
    return argv[argv.index("--id") + 1], argv[argv.index("--model") + 1]


def away(broker: Broker, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Redis does not answer the first questions of a supervisor."""
    answered, left = broker.worker_states, [None] * times

    async def asked() -> object:
        if left:
            left.pop()
            raise RedisUnavailable("away")
        return await answered()

    monkeypatch.setattr(broker, "worker_states", asked)


async def test_an_heir_has_the_model_that_was_chosen_though_redis_was_away(
    herd: up.Herd, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(up, "RELEASE_PAUSE_S", 0.01)
    (child,) = herd._workers()
    first, model = told(child)
    assert model == ""
    door = Waiting(broker)
    await door.wait(first)
    await door.appoint(None, "herd-tiny")
    away(broker, monkeypatch, 3)
    assert child.ended_by_itself is not None
    await child.ended_by_itself(1)
    heir, model = told(child)
    assert heir != first
    assert model == "herd-tiny"


async def test_jobs_of_a_dead_worker_go_back_though_redis_was_away(
    herd: up.Herd, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(up, "RELEASE_PAUSE_S", 0.01)
    (child,) = herd._workers()
    worker, _ = told(child)
    ring = await Ring(broker).open("ann", workers=(worker,))
    await ring.submit("ann")
    await ring.lease_one(worker)
    away(broker, monkeypatch, 1)
    assert child.ended_by_itself is not None
    assert await child.ended_by_itself(1)
    state = await broker.model_state(MODEL)
    assert state is not None
    assert (state.queue_length, state.workers) == (1, 0)


async def test_a_supervisor_does_not_wait_for_redis_for_ever(
    herd: up.Herd, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(up, "RELEASE_PAUSE_S", 0.01)
    monkeypatch.setattr(up, "RELEASE_S", 0.1)
    (child,) = herd._workers()
    told(child)
    away(broker, monkeypatch, 10_000)
    assert child.ended_by_itself is not None
    assert not await child.ended_by_itself(1)
