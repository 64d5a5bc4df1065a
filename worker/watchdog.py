"""The watchdog: a worker that has work and gets nowhere ends itself, with every thread's traceback on stderr.

Two watch each other's blind spot. A task of the event loop sees an engine whose step does not end. A thread of the
interpreter's own, which needs neither the event loop nor the GIL, sees an event loop that has not come round: native
code that keeps the GIL, or a loop that is stuck. Must not know of the broker or of Redis, whose silence is no wedge.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import sys
from collections.abc import Callable

from herder.logs import get_logger
from worker.progress import Progress

EXIT_WEDGED = 5
"""The engine got nowhere; starting again may help. (The interpreter's own thread can only end with 1.)"""
LOOKS = 8
"""Looks in the time that a worker may get nowhere."""

log = get_logger(__name__)


def end_process() -> None:
    """Say where every thread is, and go: nothing that is wedged is waited for."""
    sys.stdout.flush()
    sys.stderr.flush()
    faulthandler.dump_traceback(all_threads=True)
    os._exit(EXIT_WEDGED)


class Watchdog:
    """Watches `progress` for as long as `busy()`; `limit_ms` 0 watches nothing."""

    def __init__(
        self,
        progress: Progress,
        busy: Callable[[], bool],
        limit_ms: int,
        end: Callable[[], None] = end_process,
    ) -> None:
        self._progress = progress
        self._busy = busy
        self._limit_s = limit_ms / 1000
        self._end = end
        self._watching = self._armed = False

    async def watching(self) -> None:
        """Look, and let the interpreter's own thread know that we still do."""
        if not self._limit_s:
            return
        try:
            self._watching = True
            while True:
                self._armed = False
                self.look()
                await asyncio.sleep(self._limit_s / LOOKS)
        finally:
            self._watching = self._armed = False
            faulthandler.cancel_dump_traceback_later()

    def look(self) -> None:
        """End the process if it has had work for too long of which nothing came. Called when work begins, too."""
        if not self._limit_s:
            return
        if not self._busy():
            self._progress.moved()
            # One without work may stand still for as long as it is made to: stopped, paused with its container.
            faulthandler.cancel_dump_traceback_later()
            self._armed = False
        elif self._progress.silent_s >= self._limit_s:
            log.error("no step has ended: the worker ends itself", silent_s=round(self._progress.silent_s, 1))
            self._end()
        elif self._watching and not self._armed:
            faulthandler.dump_traceback_later(self._limit_s, exit=True)
            self._armed = True
