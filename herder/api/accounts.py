"""`/v1/account`: the caller's own account and its ledger. Reads only."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request

from herder.api.callers import Caller
from herder.api.parameters import Limit
from herder.api.problems import declared
from herder.api.shapes import Account, Entries
from herder.api.shown import account_of, entry_of
from herder.api.state import Herd, herd_of
from herder.errors import InvalidRequest, NotFound

router = APIRouter(prefix="/v1/account", tags=["accounts"])

EntryCursor = Annotated[
    str | None, Query(pattern="^[1-9][0-9]{0,14}-[0-9]{1,15}$", description="`next` of the page before")
]


@router.get("", response_model=Account, summary="The account", responses=declared(NotFound))
async def account(request: Request, key: Caller) -> Account:
    """What it can spend, and what its live jobs hold."""
    record = await herd_of(request).ledger.account(key.account)
    if record is None:
        raise NotFound(f"no account {key.account}")
    return account_of(record)


@router.get(
    "/ledger", response_model=Entries, summary="Its ledger", responses=declared(NotFound, InvalidRequest)
)
async def ledger(request: Request, key: Caller, limit: Limit = 20, cursor: EntryCursor = None) -> Entries:
    """Every movement of its credits, newest first."""
    return await entries_of(herd_of(request), key.account, limit, cursor)


async def entries_of(herd: Herd, account: str, limit: int, cursor: str | None) -> Entries:
    """A page of an account's ledger."""
    postings, after = await herd.ledger.postings(account, before=cursor, limit=limit)
    return Entries(entries=[entry_of(posting) for posting in postings], next=after)
