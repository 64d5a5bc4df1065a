"""What the reads of the broker and the ledger return: accounts, keys, postings, models, workers, the market.

Frozen dataclasses; no IO. Money in credits, times in milliseconds since the epoch, multipliers in thousandths.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from herder.protocol import ModelCard, WorkerStats


class Role(StrEnum):
    """What a key may do: a client's key spends its account, an admin's key runs the herd."""

    CLIENT = "client"
    ADMIN = "admin"


@dataclass(frozen=True)
class AccountRecord:
    """An account and its two balances."""

    account: str
    available: int
    held: int
    suspended: bool
    created_ms: int


@dataclass(frozen=True)
class KeyRecord:
    """An API key without its secret; `key_id` is safe to show."""

    key_id: str
    account: str
    role: Role
    label: str
    created_ms: int
    revoked: bool


class PostingKind(StrEnum):
    """Why credits moved."""

    DEPOSIT = "deposit"  # mint → available
    ADJUST = "adjust"  # mint ↔ available
    HOLD = "hold"  # available → held
    CAPTURE = "capture"  # held → revenue
    VOID = "void"  # held → available


@dataclass(frozen=True)
class Posting:
    """One immutable movement of `amount` credits between two balances (`mint`, `available`, `held`, `revenue`)."""

    posting_id: str
    kind: PostingKind
    source: str
    target: str
    amount: int
    job_id: str | None
    memo: str
    at_ms: int
    batch_id: str | None = None


@dataclass(frozen=True)
class ModelState:
    """A model of the herd as it stands: its card, its live workers and its line.

    `slots` are those of all workers, `slots_most` of the one that has most. `ms_per_token` is the herd's measured speed
    over all its workers; `last_multiplier_milli` is already decayed; `mean_tokens` is how long answers have lately been
    (0: none yet).
    """

    card: ModelCard
    workers: int
    slots: int
    busy: int
    queue_length: int
    last_multiplier_milli: int
    ms_per_token: float
    tokens_per_second: float
    mean_tokens: float = 0.0
    slots_most: int = 0

    def eta_ms(self, jobs: float) -> int | None:
        """How long so many jobs will probably take the herd; None while nothing has been measured."""
        if not self.ms_per_token or not self.mean_tokens:
            return None
        return round(jobs * self.mean_tokens * self.ms_per_token)


@dataclass(frozen=True)
class WorkerState:
    """A worker as its last heartbeat described it."""

    worker: str
    model: str
    stats: WorkerStats
    last_seen_ms: int


@dataclass(frozen=True)
class AuditRow:
    """One account in an audit: what the postings fold to beside what Redis holds."""

    account: str
    available: int
    available_folded: int
    held: int
    held_folded: int
    postings: int

    @property
    def drifted(self) -> bool:
        """Whether a balance differs from its postings."""
        return self.available != self.available_folded or self.held != self.held_folded


@dataclass(frozen=True)
class AuditReport:
    """The result of `herder audit`: a row an account, the books, and every problem found, in words."""

    rows: tuple[AuditRow, ...]
    revenue: int
    revenue_folded: int
    mint: int
    mint_folded: int
    problems: tuple[str, ...] = field(default=())

    @property
    def clean(self) -> bool:
        """Whether nothing drifted."""
        return not self.problems
