"""What must be true of presences: who has one, by when it lapses, what becomes of those that nobody renewed.

A part of the reference, beside jobs and money; knows no Redis and no Lua.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from herder.lifecycle import Status
from herder.settings import Settings

if TYPE_CHECKING:
    from tests.simulation.reference import Reference


class PresenceReference:
    """All presences, by the name of their job or batch: when each lapses."""

    def __init__(self, reference: Reference, s: Settings) -> None:
        self._all = reference
        self._grace_ms = s.presence_ms
        self._grace_until = 0
        self._swept_ms: int | None = None
        self._each_ms: dict[str, int] = {}
        self.until: dict[str, int] = {}

    def begin(self, name: str, presence_ms: int) -> None:
        """Something was sold whose caller cannot come back for it, or (0) can."""
        if presence_ms:
            self._each_ms[name] = presence_ms
            self.until[name] = self._all.now + presence_ms

    def replay(self, name: str, presence_ms: int) -> tuple[str, str]:
        """What was sold is asked for again: whoever asks waits now. Never shortens, and puts back nothing."""
        if presence_ms and name in self.until:
            self._all.counts["presences renewed by a replay"] += 1
            self.until[name] = max(self.until[name], self._all.now + presence_ms)
        return "REPLAY", name

    def renew(self, names: Sequence[str]) -> set[str]:
        """A herder speaks up for these, late perhaps; those of which that is not heard (any more)."""
        gone = {name for name in names if name not in self.until}
        for name in names:
            if name not in gone:
                late = self.until[name] <= self._all.now
                self._all.counts["presences renewed late" if late else "presences renewed"] += 1
                self.until[name] = self._all.now + self._each_ms[name]
        self._all.counts["presences asked for and gone"] += len(gone)
        return gone

    def end(self, name: str) -> None:
        """A job or a batch has ended, however."""
        if self.until.pop(name, None) is not None:
            kind = name.partition("_")[0]
            self._all.counts["a batch ends in presence" if kind == "batch" else "a job ends in presence"] += 1

    def restart(self, *, first: bool) -> None:
        """Another life of Redis (or the first one that a sweep sees): herders could not speak up before."""
        self._grace_until = 0 if first else self._all.now + self._grace_ms

    def sweep(self, most: int, pause_ms: int) -> None:
        """Those that lapsed first are cancelled, so many of them at most; none for a while where the sweeps paused."""
        if self._swept_ms is not None and self._all.now - self._swept_ms >= pause_ms:
            self._all.counts["sweeps after a pause"] += 1
            self._grace_until = self._all.now + self._grace_ms
        self._swept_ms = self._all.now
        due = sorted((until, name) for name, until in self.until.items() if until <= self._all.now)
        if self._all.now < self._grace_until:
            self._all.counts["absence forgiven"] += len(due)
            return
        self._all.counts["absences left to the next sweep"] += len(due[most:])
        for _, name in due[:most]:
            del self.until[name]
            self._cancel(name)

    def _cancel(self, name: str) -> None:
        """As its caller would have it."""
        batch = self._all.batches.batches.get(name)
        if batch is not None:
            self._all.counts["absence from a batch"] += 1
            self._all.counts["absence from a batch that is cancelled"] += batch.cancel
            if not batch.cancel:
                batch.cancel = batch.waiting = True
            return
        job = self._all.jobs[name]
        if job.status is Status.QUEUED:
            self._all.end("h3", job, 0)
            return
        self._all.go("i5", job)
        job.cancel = True
