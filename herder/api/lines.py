"""Where the queued jobs of this process's streams stand in their lines: one round trip a second for all of them.

Looks only while somebody waits in a line, and tells each only what changed. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
from contextvars import Context
from itertools import islice
from typing import Protocol

from herder.api.market import Market
from herder.broker import Broker
from herder.errors import RedisUnavailable
from herder.logs import get_logger

LOOK_S = 1.0
ASK_MAX = 1_000  # jobs in one round trip, so that a thousand others are not kept from their tokens

log = get_logger(__name__)


class InLine(Protocol):
    """Who wants to know where a job stands."""

    @property
    def job_id(self) -> str:
        """The job."""
        ...

    @property
    def model(self) -> str:
        """Whose line it stands in."""
        ...

    def stands(self, position: int, eta_ms: int | None) -> None:
        """Be told: `position` counts from 0, `eta_ms` is None while nothing was measured."""
        ...


class _Place:
    """What one was told last, and its member of the queue, which never changes and is asked for once."""

    def __init__(self, told: int | None) -> None:
        self.told = told
        self.member: bytes | None = None


class Lines:
    """All who wait, and the task that looks for them."""

    def __init__(self, broker: Broker, market: Market) -> None:
        self._broker = broker
        self._market = market
        self._places: dict[InLine, _Place] = {}
        self._task: asyncio.Task[None] | None = None

    def watch(self, waiting: InLine, told: int | None) -> None:
        """Tell it from now on, first when its place is another than what it was told already."""
        self._places[waiting] = _Place(told)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="herder-lines", context=Context())

    def forget(self, waiting: InLine) -> None:
        """It waits no longer."""
        self._places.pop(waiting, None)

    async def _run(self) -> None:
        while self._places:
            await asyncio.sleep(LOOK_S)
            try:
                waiting = iter(list(self._places.items()))
                while some := dict(islice(waiting, ASK_MAX)):
                    await self._look(some)
            except RedisUnavailable:
                continue  # whoever waits goes on waiting; the next look is in a second
            except Exception:
                log.exception("queue positions could not be read")

    async def _look(self, some: dict[InLine, _Place]) -> None:
        broker = self._broker
        new = [one for one, place in some.items() if place.member is None]
        if new:
            pipe = broker.redis.pipeline(transaction=False)
            for one in new:
                pipe.hget(broker.keys("job", one.job_id), "member")
            for one, member in zip(new, await broker.fetch(pipe.execute()), strict=True):
                some[one].member = member
        known = [(one, place.member) for one, place in some.items() if place.member is not None]
        pipe = broker.redis.pipeline(transaction=False)
        for one, member in known:
            pipe.zrank(broker.keys("queue", one.model), member)
        for (one, _), rank in zip(known, await broker.fetch(pipe.execute()), strict=True):
            place = some[one]
            if rank is not None and rank != place.told:
                state = await self._market.state(one.model)
                if self._places.get(one) is place:
                    place.told = rank
                    one.stands(rank, state.eta_ms(rank) if state else None)
