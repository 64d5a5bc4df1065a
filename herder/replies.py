"""What the scripts reply, as values and exceptions. Pure; the words are those at the head of each file of `lua/`."""

from __future__ import annotations

from typing import Any

from herder.brief import brief_of
from herder.errors import (
    AccountSuspended,
    HerderError,
    IdempotencyConflict,
    InsufficientFunds,
    NotFound,
    Overloaded,
    UnknownModel,
)
from herder.pricing import Terms
from herder.protocol import Lease


def refusal(reply: list[Any], what: str, account: str, fee: int, depth_max: int) -> HerderError:
    """The exception for a refused sale; `what` is a prompt or a batch, which costs `fee` credits."""
    match reply:
        case ["POOR", available]:
            return InsufficientFunds(
                f"this {what} costs {fee} credits and {available} are available",
                needed=fee,
                balance=int(available),
            )
        case ["CONFLICT"]:
            return IdempotencyConflict("this Idempotency-Key was used with another body; use a new key")
        case ["SUSPENDED"]:
            return AccountSuspended(f"account {account} is suspended; ask whoever runs the herd")
        case ["NO_MODEL", model]:
            return UnknownModel(f"no model {model} in this herd")
        case ["FULL", depth]:
            return Overloaded(
                f"{depth} jobs are queued, the most is {depth_max}; try again later", retry_after=5
            )
        case ["NO_ACCOUNT"]:
            return NotFound(f"no account {account}")
    raise AssertionError(f"unexpected reply to the sale of a {what}: {reply}")


def lease_of(row: list[Any]) -> Lease:
    """One row of lease.lua's reply."""
    job_id, attempt, account, tokens, base, fee, prompt_fee, token_fee, given = row
    return Lease(
        job_id=text_of(job_id),
        attempt=int(attempt),
        account=text_of(account),
        brief=brief_of(given),
        tokens=int(tokens),
        terms=Terms(int(prompt_fee), int(token_fee), int(base), int(fee)),
    )


def text_of(value: Any) -> Any:
    """A word of a reply; numbers stay what they are."""
    return value.decode() if isinstance(value, bytes) else value
