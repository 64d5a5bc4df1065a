"""Workers that were started without a model, and wait until an administrator appoints one: their door to Redis.

Used by the worker that waits, by whoever appoints, and by the supervisor whose worker has died since. Knows no HTTP;
what a model is, the worker knows, which checks it as it checks HERDER_MODEL.
"""

from __future__ import annotations

from dataclasses import dataclass

from herder.broker import GONE_LEASES, Broker
from herder.replies import text_of

KEPT_MS = 30 * 86_400_000  # how long it is remembered which model a worker was appointed


@dataclass(frozen=True)
class Appointment:
    """What became of a worker: the model that it was appointed, why that cannot be served, and what it serves now."""

    model: str | None
    why: str | None
    serves: str | None


class Waiting:
    """Every transition of such a worker, and the reads. All methods raise RedisUnavailable."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def wait(self, worker: str) -> str | None:
        """This worker waits; the model that it is to serve, as soon as there is one."""
        return await self._say(worker, "wait") or None

    async def leave(self, worker: str) -> None:
        """It waits no more."""
        await self._say(worker, "leave")

    async def failed(self, worker: str, why: str) -> None:
        """It cannot serve the model that it was appointed."""
        await self._say(worker, "failed", why)

    async def _say(self, worker: str, op: str, why: str = "") -> str:
        return str(
            text_of(await self._broker.scripts.call("waiting", {"worker": worker, "op": op}, why or "?"))
        )

    async def appoint(self, worker: str | None, model: str) -> tuple[str, str]:
        """(`OK`, the worker), (`HAS`, its other model) or (`NONE`, "") where no such worker waits; None is any."""
        arguments = {
            "worker": worker, "model": model, "kept_ms": KEPT_MS,
            "gone_ms": GONE_LEASES * self._broker.settings.lease_ms,
        }  # fmt: skip
        word, *rest = [str(text_of(part)) for part in await self._broker.scripts.call("appoint", arguments)]
        return word, rest[0] if rest else ""

    async def those(self) -> list[str]:
        """The workers that wait, in order of when they last said so."""
        broker = self._broker
        oldest = await broker.now_ms() - GONE_LEASES * broker.settings.lease_ms
        ids = await broker.fetch(broker.redis.zrangebyscore(broker.keys("waiting"), oldest, "+inf"))
        return [found.decode() for found in ids]

    async def inherited(self, worker: str) -> str:
        """The model that the heir of a dead worker is to serve; empty where that waited, or could not serve it."""
        found = await self.appointment(worker)
        return found.model if found.model is not None and found.why is None else ""

    async def appointment(self, worker: str) -> Appointment:
        """What became of this one."""
        given, said = await self._broker.hashes_of([("appointed", worker), ("worker", worker)])
        return Appointment(given.get("model"), given.get("why"), said.get("model"))
