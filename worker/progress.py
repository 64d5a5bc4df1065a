"""Does the engine get on? When its step began, and when anything last came of what the worker holds.

Pure but for the clock that it is given. Must not know of jobs, of the broker or of what a step does.
"""

from __future__ import annotations

from collections.abc import Callable


class Progress:
    """The times of one engine's steps, by `now`, in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._began: float | None = None
        self._moved = now()
        self.last_s = 0.0
        """What the last step took."""

    def began(self) -> None:
        """A step was handed to the engine."""
        self._began = self._now()

    def ended(self) -> float:
        """It has come to an end, well or not; its milliseconds."""
        assert self._began is not None, "no step was under way"
        self.last_s = self._now() - self._began
        self._began = None
        self.moved()
        return self.last_s * 1000

    def moved(self) -> None:
        """There was nothing to do, or something was done."""
        self._moved = self._now()

    @property
    def mid_step(self) -> bool:
        """Whether the engine is in the middle of a step (a wedged one always is)."""
        return self._began is not None

    @property
    def step_s(self) -> float:
        """How long the step under way has taken; 0 between two."""
        return 0.0 if self._began is None else self._now() - self._began

    @property
    def silent_s(self) -> float:
        """How long it is since anything moved."""
        return self._now() - self._moved
