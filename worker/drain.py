"""How a worker comes to its end: told once it finishes what it holds; told again, or too late, it hands the rest back.

One that retires by itself is in no hurry: it finishes, however long that takes, unless it is then told.

Knows when, not what: what is held and how it is handed back is the runner's. Must not know of the engine or of Redis.
"""

from __future__ import annotations

import asyncio
from typing import Literal


class Drain:
    """The end of one worker, from the first word of it until nothing is held or nobody waits for that any more."""

    def __init__(self, drain_ms: int) -> None:
        self._drain_s = drain_ms / 1000
        self._told, self._asked = asyncio.Event(), asyncio.Event()
        self._at_once, self._empty = asyncio.Event(), asyncio.Event()
        self.retired = False

    def tell(self) -> None:
        """The first time: finish. The second time: do not."""
        if self._asked.is_set():
            self._at_once.set()
        self._asked.set()
        self._told.set()

    def retire(self) -> None:
        """Finish; nobody waits. What is held ends by its own number of tokens, or the watchdog ends it."""
        self.retired = True
        self._told.set()

    def emptied(self) -> None:
        """Nothing is held, and nothing more will come."""
        self._empty.set()

    @property
    def told(self) -> bool:
        """Whether the worker is to end."""
        return self._told.is_set()

    async def until_told(self) -> None:
        """Wait for the first word."""
        await self._told.wait()

    async def until_over(self) -> None:
        """Wait until nothing is held, the time to drain is over, or a second word."""
        waits = [asyncio.create_task(event.wait()) for event in (self._empty, self._at_once)]
        waits.append(asyncio.create_task(self._too_late()))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _too_late(self) -> Literal[True]:
        await self._asked.wait()
        await asyncio.sleep(self._drain_s)
        return True
