"""The life of a job as one table; the scripts, the docs and the tests are checked against it.

Knows nothing of Redis, HTTP or money amounts: only which state may follow which, by whose hand, through
which script. Anything finer than these six states (prefill, decoding, a pending webhook) is data.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """The six states of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


TERMINAL = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED, Status.EXPIRED})
LIVE = frozenset({Status.QUEUED, Status.RUNNING})


@dataclass(frozen=True)
class Transition:
    """One row: `source` is None where the job does not exist yet; `script` names a file of `herder/lua/`."""

    row: str
    source: Status | None
    target: Status
    event: str
    script: str
    made_by: str
    money: str


_Q, _R, _S, _F, _C = Status.QUEUED, Status.RUNNING, Status.SUCCEEDED, Status.FAILED, Status.CANCELLED

TABLE: tuple[Transition, ...] = (
    Transition("a", None, _Q, "submit", "submit", "api", "hold the fee"),
    Transition("a2", None, _Q, "its batch is fed", "feed", "herder, courier", "- (held with its batch)"),
    Transition("b", _Q, _R, "lease", "lease", "worker", "-"),
    Transition("r", _R, _R, "renew", "renew", "worker", "-"),
    Transition("t", _R, _R, "chunk", "chunk", "worker", "-"),
    Transition("c", _R, _S, "settle", "settle", "worker", "capture what was used, void the rest"),
    Transition("d", _R, _F, "settle with an error", "settle", "worker", "void"),
    Transition("e", _R, _Q, "release", "release", "worker", "- (not counted as a lapse)"),
    Transition("f", _R, _Q, "lease lapsed", "sweep", "sweep", "-"),
    Transition("f2", _R, _Q, "its worker died", "release", "supervisor", "-"),
    Transition("g", _R, _F, "lapsed alone, twice", "sweep", "sweep", "void"),
    Transition("g2", _R, _F, "its worker died under it alone, twice", "release", "supervisor", "void"),
    Transition("h", _Q, _C, "cancel", "cancel", "api", "void"),
    Transition("h2", _Q, _C, "its batch is cancelled", "feed", "herder, courier", "void"),
    Transition("h3", _Q, _C, "its caller is gone", "sweep", "sweep", "void"),
    Transition("i4", _R, _R, "cancel flag of its batch", "feed", "herder, courier", "-"),
    Transition("i0", _R, _R, "cancel flag", "cancel", "api", "-"),
    Transition("i5", _R, _R, "cancel flag, its caller is gone", "sweep", "sweep", "-"),
    Transition(
        "i",
        _R,
        _C,
        "settle after the cancel flag",
        "settle",
        "worker",
        "capture tokens produced, void the rest",
    ),
    Transition("i1", _R, _C, "lapse after the cancel flag", "sweep", "sweep", "void"),
    Transition("i2", _R, _C, "release after the cancel flag", "release", "worker, supervisor", "void"),
    Transition("l", _Q, _R, "renew by the current attempt", "renew", "worker", "-"),
    Transition("m", _Q, _S, "late settle by the current attempt", "settle", "worker", "as c"),
    Transition("m2", _Q, _F, "late settle with an error", "settle", "worker", "as d"),
)

# Scripts that change state but not the state of a job.
OTHER_SCRIPTS: dict[str, str] = {
    "account": "create an account, with its first credits; suspend or resume one",
    "deposit": "mint credits into an account, or adjust its balance",
    "key": "store, revoke an API key",
    "worker": "register a worker and its model card, or take it off the list",
    "waiting": "say that a worker waits for a model, and take it, or say why it cannot be served",
    "appoint": "choose the model of a worker that waits for one",
    "prices": "set the price list; a change raises its version",
    "schema": "stamp an empty database with the schema version, or read the one it has",
    "throttle": "take one request from a rate limit",
    "callback": "take answered callbacks off the callback queue, and post webhooks for them",
    "store": "store items of a batch, before anything is held",
    "charge": "hold the fee of a stored batch, and set it going",
    "abandon": "mark a batch to be cancelled",
    "present": "say that callers still wait for their jobs and batches",
    "keep": "keep a file of an account's for a time",
    "discard": "forget such a file",
    "endpoint": "make, rotate, switch, delete a webhook address, or set an account's default",
    "claim": "take attempts to deliver that are due",
    "attempted": "record what came of an attempt to deliver",
    "write": "keep what a delivery says, ahead of its first attempt",
    "redeliver": "make an ended delivery due again",
    "held": "read why deliveries wait whose time has come",
}


def allowed(source: Status | None, target: Status) -> bool:
    """Whether any row of the table leads from `source` to `target`."""
    return any(t.source == source and t.target == target for t in TABLE)
