"""Whose turn it is to make room for a fresh process: one worker's of a herd at a time.

A lock on a file that the supervisor has opened once for each of its workers. It belongs to that opening, not to a
process, so it is held from when a worker leaves until its heir, whatever becomes of the first one, is at work. Must not
know of jobs or of Redis.
"""

from __future__ import annotations

import contextlib
import fcntl


class Turn:
    """`lock` is the descriptor that the supervisor has passed on; without one it is always this worker's turn."""

    def __init__(self, lock: int | None = None) -> None:
        self._lock = lock

    def take(self) -> bool:
        """Take the turn, if no other worker has it."""
        if self._lock is None:
            return True
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # nobody holds such a lock
            return True
        return True

    def over(self) -> None:
        """This worker is at work: whoever it has replaced is."""
        if self._lock is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(self._lock, fcntl.LOCK_UN)
