"""What several routes ask for, and declare, in the same words: pages of a list, and a purchase. Knows no route."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import Header, Query
from pydantic import BeforeValidator

from herder.errors import (
    AccountSuspended,
    Conflict,
    FeeTooLow,
    HerderError,
    IdempotencyConflict,
    InsufficientFunds,
    MaxFeeExceeded,
    NotFound,
    NoWorker,
    Overloaded,
    UnknownModel,
)


def _digits(text: object) -> object:
    """What a query says of a whole number: digits alone, not `1.0` or `1_0`."""
    if isinstance(text, str) and not re.fullmatch("-?[0-9]{1,20}", text, re.ASCII):
        raise ValueError("must be a whole number")
    return text


def _truth(text: object) -> object:
    """What a query says of a switch: as a body would, not `yes`, `on` or `1`."""
    if isinstance(text, str) and text not in ("true", "false"):
        raise ValueError("must be true or false")
    return text


Flag = Annotated[bool, BeforeValidator(_truth)]
Whole = Annotated[int, BeforeValidator(_digits)]
Limit = Annotated[Whole, Query(ge=1, le=100)]
# Of a list by sequence number; other lists have cursors of their own.
Cursor = Annotated[str | None, Query(pattern="^[0-9]{1,15}$", description="`next` of the page before")]
Wait = Annotated[
    float,
    Query(
        ge=0,
        le=3600,
        allow_inf_nan=False,
        description="seconds to wait for its end; HERDER_WAIT_S_MAX at most",
    ),
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern="^[!-~]+$",
        description="the same key with the same body is the same job, paid once; a UUID does well",
    ),
]

# How a purchase can be refused, besides what is wrong with its body.
NOT_SOLD: tuple[type[HerderError], ...] = (
    InsufficientFunds, FeeTooLow, MaxFeeExceeded, AccountSuspended, UnknownModel, NotFound, Conflict,
    IdempotencyConflict, Overloaded, NoWorker,
)  # fmt: skip


def sold_headers(what: str) -> dict[str, Any]:
    """The headers of an answer to a purchase of a job or a batch."""
    return {
        "Location": {"description": f"the {what}'s address", "schema": {"type": "string"}},
        "Idempotent-Replayed": {
            "description": f"`true` where this Idempotency-Key had made the {what} before",
            "schema": {"type": "string"},
        },
    }
