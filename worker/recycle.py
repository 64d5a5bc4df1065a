"""When a worker makes room for a fresh process: after so many jobs, or when its memory has grown too much.

Native code leaks, and a process that is replaced between two jobs costs nobody anything. Knows when, not how: the
runner drains and leaves. Must not know of jobs or of Redis.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from herder.logs import get_logger
from worker.turn import Turn

WARM_JOBS = 64
"""Jobs before the first measure: by then the buffers that are made on first use are there."""
SPREAD = 4
"""A worker stays for up to this part more jobs than the limit: those who take no turns are spread."""

log = get_logger(__name__)


def own_memory_mb() -> float | None:
    """Memory of this process that is no file's: weights that are mapped do not count. None where nobody says."""
    try:
        lines = Path("/proc/self/status").read_text("ascii").splitlines()
    except OSError:
        return None
    kilobytes = [int(line.split()[1]) for line in lines if line.startswith("RssAnon:")]
    return kilobytes[0] / 1024 if kilobytes else None


class Recycling:
    """The two limits, 0 for none. `due` is asked after jobs have ended; it takes the `turn`, or waits for it."""

    def __init__(
        self,
        jobs: int = 0,
        growth_mb: int = 0,
        memory_mb: Callable[[], float | None] = own_memory_mb,
        draw: Callable[[], float] = random.random,
        turn: Turn | None = None,
    ) -> None:
        self._jobs = jobs + int(jobs / SPREAD * draw())
        self._growth_mb = growth_mb
        self._memory_mb = memory_mb
        self._warm_mb: float | None = None
        self._turn = turn or Turn()

    def fresh(self) -> None:
        """This process is at work: the turn of the one that it has replaced, if any, is over."""
        self._turn.over()

    def due(self, jobs_done: int) -> bool:
        """Whether to leave now, after so many jobs; says why."""
        if self._jobs and jobs_done >= self._jobs:
            return self._taken(jobs_done=jobs_done)
        if not self._growth_mb or jobs_done < WARM_JOBS:
            return False
        memory_mb = self._memory_mb()
        if memory_mb is None:
            return False
        if self._warm_mb is None:
            self._warm_mb = memory_mb
        grown_mb = memory_mb - self._warm_mb
        return grown_mb >= self._growth_mb and self._taken(grown_mb=round(grown_mb))

    def _taken(self, **why: int) -> bool:
        if not self._turn.take():
            return False
        log.info("making room for a fresh process", **why)
        return True
