"""Whom a lease must take: the line, its window, who holds which beginnings of prompts, what is left to whom.

A part of the reference, beside jobs and money; knows no Redis and no Lua. The ranks it is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, takewhile
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


class Line:
    """Who is heard of, and who holds what: this generation's and the last one's."""

    def __init__(self, reference: Reference, s: Settings) -> None:
        self._all = reference
        self._window_ms, self._wait_ms = s.prefix_window_ms, s.prefix_wait_ms
        self._skips_max, self._gone_ms = s.lease_skips_max, 3 * s.lease_ms
        self._beats: dict[str, tuple[int, int]] = {}
        self._recent: dict[str, list[str]] = {}
        self._before: dict[str, list[str]] = {}
        self._since: int | None = None
        self._since_before: int | None = None

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
        return {*self._recent.get(link, ()), *self._before.get(link, ())}

    def hold(self, worker: str, chains: Sequence[Sequence[str]]) -> None:
        """A worker has taken jobs with these chains, at one time."""
        if not any(chains):
            return
        old = self._since is not None and self._all.now - self._since >= GENERATION_MS
        if old or len(self._recent) + 1 >= GENERATION_MAX:
            self._recent, self._before = {}, self._recent
            self._since, self._since_before = None, self._since
            self._all.counts["a generation of beginnings is over"] += 1
        self._since = self._all.now if self._since is None else self._since
        for link in chain.from_iterable(chains):
            others = [name for name in self._recent.get(link, ()) if name != worker]
            self._recent[link] = [worker, *others[: HOLDERS_MAX - 1]]

    def generations(self) -> list[dict[bytes, bytes]]:
        """This one and the last one, as Redis has them."""
        return [
            {link.encode(): " ".join(names).encode() for link, names in held.items()}
            | ({} if since is None else {b"since": str(since).encode()})
            for held, since in ((self._recent, self._since), (self._before, self._since_before))
        ]

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
        limit = seen[0].rank + self._window_ms if seen else 0
        near = [
            *takewhile(lambda each: each.rank <= limit and each.job.skips < self._skips_max, seen),
        ]
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
