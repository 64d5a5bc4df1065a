"""Whom a lease must take: the line, its window, who holds which beginnings of prompts, what is left to whom.

A part of the reference, beside jobs and money; knows no Redis and no Lua. The ranks it is told.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING

from herder.settings import Settings
from tests.simulation.states import Job

if TYPE_CHECKING:
    from tests.simulation.reference import Reference

GENERATION_MS = 60_000
GENERATION_MAX = 10
HOLDERS_MAX = 2


@dataclass(frozen=True)
class Room:
    """What a worker has free and in all, and how far it looks beyond what it could take."""

    slots: int
    slots_total: int
    kv_free: int
    kv_total: int
    lookahead: int


@dataclass
class Standing:
    """A job of the line, as one worker sees it: how many blocks of it are held here, how long it is left to another."""

    job: Job
    rank: float
    place: int
    match: int = 0
    patience: int = 0

    @property
    def name(self) -> str:
        return self.job.ask.job_id


@dataclass
class Generation:
    """Who held which link in one stretch of time. A chain whose first link no other has is one field in Redis."""

    since: int | None = None
    holders: dict[str, list[str]] = field(default_factory=dict)
    alone: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def hold(self, worker: str, links: tuple[str, ...]) -> None:
        if links[0] not in self.holders:
            self.alone[links[0]] = links
        elif self.alone.get(links[0]) != links or self.holders[links[0]] != [worker]:
            self.alone.pop(links[0], None)
        for link in links:
            others = [name for name in self.holders.get(link, ()) if name != worker]
            self.holders[link] = [worker, *others[: HOLDERS_MAX - 1]]

    def fields(self) -> dict[bytes, bytes]:
        """As Redis has it."""
        folded = {link for links in self.alone.values() for link in links}
        held = {link: names for link, names in self.holders.items() if link not in folded}
        fields = {link.encode(): " ".join(names).encode() for link, names in held.items()}
        for first, links in self.alone.items():
            fields[first.encode()] = f"{json.dumps(links)} {self.holders[first][0]}".encode()
        return fields if self.since is None else fields | {b"since": str(self.since).encode()}


class Line:
    """Who is heard of, and who holds what: this generation's and the last one's."""

    def __init__(self, reference: Reference, s: Settings) -> None:
        self._all = reference
        self._window_ms, self._wait_ms = s.prefix_window_ms, s.prefix_wait_ms
        self._skips_max, self._gone_ms = s.lease_skips_max, 3 * s.lease_ms
        self._beats: dict[str, tuple[int, int]] = {}
        self._recent = Generation()
        self._before = Generation()

    # --- who is there ------------------------------------------------------------------------------------

    def beat(self, worker: str, slots: int) -> None:
        """A worker is heard of."""
        self._beats[worker] = self._all.now, slots

    def leave(self, worker: str) -> None:
        """It has said that it goes."""
        self._beats.pop(worker, None)

    def sweep(self) -> None:
        """Those that have been silent for long are forgotten."""
        self._beats = {w: beat for w, beat in self._beats.items() if beat[0] > self._all.now - self._gone_ms}

    def _free_slots(self, worker: str) -> int:
        heard, slots = self._beats.get(worker, (-self._gone_ms, 0))
        if heard < self._all.now - self._gone_ms:
            return 0
        return slots - len(self._all.running(worker))

    # --- who holds what ----------------------------------------------------------------------------------

    def _holders(self, link: str) -> set[str]:
        return {*self._recent.holders.get(link, ()), *self._before.holders.get(link, ())}

    def hold(self, worker: str, chains: Sequence[tuple[str, ...]]) -> None:
        """A worker has taken jobs with these chains, at one time."""
        if not any(chains):
            return
        since = self._recent.since
        old = since is not None and self._all.now - since >= GENERATION_MS
        if old or len(self._recent.fields()) >= GENERATION_MAX:
            self._recent, self._before = Generation(), self._recent
            self._all.counts["a generation of beginnings is over"] += 1
        if self._recent.since is None:
            self._recent.since = self._all.now
        for links in filter(None, chains):
            self._recent.hold(worker, links)
        self._all.counts["a beginning that one job has had"] += len(self._recent.alone)

    def generations(self) -> list[dict[bytes, bytes]]:
        """This one and the last one, as Redis has them."""
        return [self._recent.fields(), self._before.fields()]

    def _weigh(self, standing: Standing, worker: str) -> None:
        """How much is held here; for how long the job is left to another that holds a quarter of it more."""
        job = standing.job
        held = [(_blocks(link), self._holders(link)) for link in job.ask.chain]
        standing.match = max((blocks for blocks, names in held if worker in names), default=0)
        elsewhere = max(
            (
                blocks
                for blocks, names in held
                if any(self._free_slots(name) >= job.ask.brief.n for name in names - {worker})
            ),
            default=0,
        )
        if not job.alone and elsewhere and 4 * (elsewhere - standing.match) >= _blocks(job.ask.chain[-1]):
            standing.patience = max(0, job.joined_ms + self._wait_ms - self._all.now)

    # --- who is next -------------------------------------------------------------------------------------

    def take(
        self, worker: str, room: Room, line: Sequence[tuple[str, float]]
    ) -> tuple[list[str], int | None]:
        """The jobs that this worker must be given, in the order of the line, and when it is to ask again."""
        held = self._all.running(worker)
        if len(held) == 1 and held[0].alone:
            return [], None
        seen = self._seen(room, line)
        near = self._near(seen, room, line)
        for each in near:
            self._weigh(each, worker)
        arranged = sorted(near, key=lambda each: (-each.match, each.place)) + seen[len(near) :]
        taken, again = self._pick(arranged, len(near), room, len(held))
        for each in seen:
            passed = sum(each not in taken and other.place > each.place for other in taken)
            each.job.skips += passed
            if passed and each.match < max(other.match for other in taken):
                self._all.counts["passed by a longer match"] += 1
        taken.sort(key=lambda each: each.place)
        return [each.name for each in taken], again

    def _seen(self, room: Room, line: Sequence[tuple[str, float]]) -> list[Standing]:
        """What the worker looks at: not what only others can run, not what feed() will come for."""
        ours: list[Standing] = []
        for name, rank in line:
            job = self._all.jobs[name]
            fits = job.ask.kv_tokens <= room.kv_total and job.ask.brief.n <= room.slots_total
            if job.batch is not None and job.batch.cancel:
                self._all.counts["items of a cancelled batch passed by"] += 1
            elif fits:
                ours.append(Standing(job, rank, len(ours)))
            elif job.ask.brief.n > room.slots_total:
                self._all.counts["too many answers for a worker"] += 1
        return ours[: room.slots + room.lookahead]

    def _near(
        self, seen: Sequence[Standing], room: Room, line: Sequence[tuple[str, float]]
    ) -> list[Standing]:
        """Those within the window of the first one, if in that one's page of the line anything is held by anybody."""
        if not seen:
            return []
        size = room.slots + room.lookahead
        start = [name for name, _ in line].index(seen[0].name) // size * size
        chains = [self._all.jobs[name].ask.chain for name, _ in line[start : start + size]]
        if not any(self._holders(links[0]) for links in chains if links):
            return []
        limit = seen[0].rank + self._window_ms
        return [*takewhile(lambda each: each.rank <= limit and each.job.skips < self._skips_max, seen)]

    def _pick(
        self, arranged: Sequence[Standing], near: int, room: Room, held: int
    ) -> tuple[list[Standing], int | None]:
        slots, kv = room.slots, room.kv_free
        taken: list[Standing] = []
        left: list[int] = []
        for i, each in enumerate(arranged):
            job = each.job
            if i == near and left:
                break  # what stands further behind may not pass what is left to another
            company = job.alone and held + len(taken) > 0
            if job.ask.kv_tokens > kv or job.ask.brief.n > slots or company:
                if job.skips >= self._skips_max:
                    break
                continue
            if each.patience:
                self._all.counts["left to another worker"] += 1
                left.append(each.patience)
                continue
            taken.append(each)
            slots, kv = slots - job.ask.brief.n, kv - job.ask.kv_tokens
            if not slots or job.alone:
                break
        return taken, min(left, default=None)


def _blocks(link: str) -> int:
    return int(link.partition(".")[0])
