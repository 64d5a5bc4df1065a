"""Time as the broker sees it: Redis's own, unless a test drives a simulated one.

Every script takes its time from Redis `TIME`; a `SimulatedClock` overrides that argument, which is how the same
Lua runs under the simulation. Nothing else in the herder may ask the operating system for the time of day.
"""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """What the broker asks before each script: None means "use the server's time"."""

    def override_ms(self) -> int | None:
        """Milliseconds since the epoch, or None for Redis's own clock."""
        ...


class ServerClock:
    """The real one: every script reads Redis `TIME` for itself."""

    def override_ms(self) -> int | None:
        """Always None."""
        return None


class SimulatedClock:
    """A clock that moves only when it is told to, backwards too if a test wants to see that survived."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self.now_ms = now_ms

    def override_ms(self) -> int | None:
        """The simulated now."""
        return self.now_ms

    def advance(self, ms: int) -> None:
        """Move by `ms`, which may be negative."""
        self.now_ms += ms
