"""Lets one worker at a time make room for a fresh process: a file that is open once for each of them.

A lock on it belongs to the opening. Since that stays with the supervisor, it outlives the worker that took the lock,
until its heir lets go of it. Knows nothing of workers.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


class Turns:
    """Openings of one file of their own; `close` ends them."""

    def __init__(self) -> None:
        self._locks: list[int] = []
        self._path: Path | None = None

    def another(self) -> int:
        """A descriptor to lock, for one more worker and its heirs."""
        if self._path is None:
            lock, path = tempfile.mkstemp(prefix="herder-turn-")
            self._path = Path(path)
        else:
            lock = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        self._locks.append(lock)
        return lock

    def close(self) -> None:
        """Nobody is to be replaced any more."""
        while self._locks:
            os.close(self._locks.pop())
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            self._path = None
