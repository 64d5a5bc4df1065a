"""What the reference knows of an account, a job, a batch, a webhook; and what it throws when the herd disagrees."""

from __future__ import annotations

from dataclasses import dataclass, field

from herder.batches import Charge, Item
from herder.lifecycle import LIVE, Status
from herder.protocol import Ask, Webhook
from herder.webhook_records import DeliveryStatus, NewDelivery


class Violation(AssertionError):
    """The herd and the reference disagree."""


def expect(actual: object, predicted: object, what: str) -> None:
    """Raise Violation unless the two are equal."""
    if actual != predicted:
        raise Violation(f"{what}: the herd says {actual!r}, the reference {predicted!r}")


class Time:
    """The herd's time: never runs back; after the server's clock was set back it goes on at half speed."""

    def __init__(self) -> None:
        self.now = self.raw = 0

    def tick(self, raw: int) -> None:
        """A script runs while the server's clock shows `raw`."""
        if raw >= self.now:
            if raw > self.now:
                self.now = self.raw = raw
            return
        self.raw = min(self.raw, raw)
        if raw - self.raw >= 2:
            self.now += (raw - self.raw) // 2
            self.raw = raw


@dataclass
class Account:
    """Balances, what has been deposited under which id, where ends are told that name no address."""

    available: int = 0
    held: int = 0
    suspended: bool = False
    deposits: dict[str, int] = field(default_factory=dict)
    default: Webhook | None = None


@dataclass
class Job:
    """One accepted job; with a `batch`, its item `index`."""

    ask: Ask
    hold: int
    joined_ms: int = 0
    skips: int = 0  # times it was passed
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
    used: int = 0
    ended_ms: int = 0
    text: str | None = None
    choices: str | None = None
    chunks: list[tuple[int, int, int, int | None]] = field(
        default_factory=list
    )  # attempt, first, count, choice
    batch: Batch | None = None
    index: int = 0
    custom_id: str | None = None

    @property
    def live(self) -> bool:
        """Queued or running."""
        return self.status in LIVE

    def owned_by(self, worker: str, attempt: int) -> bool:
        """Whether this worker speaks for the current attempt."""
        return self.live and self.attempt == attempt and self.worker == worker


@dataclass
class Batch:
    """One batch that was paid for. Every number of it is counted from its items, none is kept."""

    charge: Charge
    items: list[Item]
    stored: int  # with those that the balance did not reach to
    created_ms: int
    cancel: bool = False
    cancelled_to: int = 0
    waiting: bool = True  # there is something to feed or to cancel
    jobs: list[Job] = field(default_factory=list)
    results: list[int] = field(default_factory=list)  # in order of their end
    ended_ms: int | None = None
    purged: int = 0

    @property
    def fed(self) -> int:
        """Items that are or were jobs."""
        return len(self.jobs)

    @property
    def unfed_fee(self) -> int:
        """What the items hold that are not yet jobs."""
        return sum(item.fee for item in self.items[self.fed :])

    @property
    def hold(self) -> int:
        """What the batch holds in all."""
        return self.unfed_fee + sum(job.hold for job in self.jobs)

    def count(self, status: Status) -> int:
        """Items in a state."""
        return sum(job.status is status for job in self.jobs)


@dataclass
class Endpoint:
    """A webhook address."""

    account: str
    url: str
    secret: str
    old_secrets: tuple[str, ...] = ()
    old_until_ms: int = 0
    disabled_ms: int = 0
    disabled_why: str = ""
    created_ms: int = 0


@dataclass
class Delivery:
    """A webhook. Pending, it is due (`due_ms`) or under way (`flight_ms`: when that is given up), never both."""

    new: NewDelivery
    created_ms: int
    due_ms: int | None
    next_ms: int | None
    flight_ms: int | None = None
    status: DeliveryStatus = DeliveryStatus.PENDING
    attempt: int = 0
    answered: int = 0  # the last attempt that was answered for
    tries: int = 0
    last_ms: int | None = None
    last_status: int | None = None
    last_error: str | None = None
    ended_ms: int | None = None
    body: str = ""

    @property
    def pending(self) -> bool:
        """There will be another attempt."""
        return self.status is DeliveryStatus.PENDING

    def flying(self, now: int) -> bool:
        """Whether an attempt is under way that is not to be given up yet."""
        return self.flight_ms is not None and self.flight_ms > now

    def late(self, attempt: int) -> bool:
        """Whether this attempt was given up, and no other has been begun: its answer still counts."""
        given_up = self.pending and self.flight_ms is None and self.attempt == attempt
        return given_up and self.answered != attempt


@dataclass(frozen=True)
class Told:
    """One callback: what ended, how, and who wants to hear of it."""

    subject: str
    account: str
    status: str
    at: int
    webhook: Webhook | None

    def fields(self) -> dict[str, str]:
        """Its entry of the callback queue."""
        kind = "batch" if self.subject.startswith("batch_") else "job"
        entry = {kind: self.subject, "account": self.account, "status": self.status, "at": str(self.at)}
        if self.webhook:
            entry |= {"webhook_url": self.webhook.url, "endpoint": self.webhook.endpoint}
        return entry
