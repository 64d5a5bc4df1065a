"""What the reference knows of one account and one job, and what it throws when the herd disagrees."""

from __future__ import annotations

from dataclasses import dataclass, field

from herder.lifecycle import LIVE, Status
from herder.protocol import Ask


class Violation(AssertionError):
    """The herd and the reference disagree."""


def expect(actual: object, predicted: object, what: str) -> None:
    """Raise Violation unless the two are equal."""
    if actual != predicted:
        raise Violation(f"{what}: the herd says {actual!r}, the reference {predicted!r}")


@dataclass
class Account:
    """Balances and what has been deposited under which id."""

    available: int = 0
    held: int = 0
    suspended: bool = False
    deposits: dict[str, int] = field(default_factory=dict)


@dataclass
class Job:
    """One accepted job."""

    ask: Ask
    hold: int
    status: Status = Status.QUEUED
    attempt: int = 0
    worker: str = ""
    cancel: bool = False
    next_index: int = 0
    company: bool = False
    alone: bool = False
    blame_company: float = 0  # lapses and deaths in company; being killed is half a death
    blame_alone: float = 0
    lease_until: int = 0
    settled_attempt: int = 0
    captured: int | None = None
    ended_ms: int = 0
    text: str | None = None
    chunks: list[tuple[int, int, int]] = field(default_factory=list)  # attempt, first index, count

    @property
    def live(self) -> bool:
        """Queued or running."""
        return self.status in LIVE

    def owned_by(self, worker: str, attempt: int) -> bool:
        """Whether this worker speaks for the current attempt."""
        return self.live and self.attempt == attempt and self.worker == worker
