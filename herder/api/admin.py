"""`/v1/admin`: every account, its money and its keys. An admin key is asked for before anything is read."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request

from herder.api.accounts import EntryCursor, entries_of
from herder.api.bodies import ACCOUNT_PATTERN, AccountRequest, AdjustRequest, DepositRequest, KeyRequest
from herder.api.callers import Admin
from herder.api.parameters import Cursor, Limit, Whole
from herder.api.problems import declared
from herder.api.reading import admin_body_of
from herder.api.schema import json_body
from herder.api.shapes import Account, Accounts, Audit, Entries, Key, KeyList, NewKey
from herder.api.shown import account_of, audit_of, key_fields
from herder.api.state import Herd, herd_of
from herder.audit import audit
from herder.errors import Conflict, Forbidden, InsufficientFunds, InvalidRequest, NotFound
from herder.records import AccountRecord, Role

router = APIRouter(prefix="/v1/admin", tags=["admin"])

AccountId = Annotated[str, Path(description="an account's id", examples=["alice"])]
_ACCOUNT = re.compile(ACCOUNT_PATTERN.strip("^$"), re.ASCII)


@router.post(
    "/accounts",
    status_code=201,
    response_model=Account,
    summary="Create an account",
    responses=declared(Forbidden, Conflict, body=True),
    openapi_extra=json_body(AccountRequest),
)
async def create(
    request: Request, _: Admin, body: Annotated[AccountRequest, Depends(admin_body_of(AccountRequest))]
) -> Account:
    """A new account, with a first deposit where `credits` says so. A refusal leaves no account behind."""
    return account_of(await herd_of(request).ledger.create_account(body.id, body.credits or 0))


@router.get(
    "/accounts",
    response_model=Accounts,
    summary="List accounts",
    responses=declared(Forbidden, InvalidRequest),
)
async def accounts(
    request: Request,
    _: Admin,
    limit: Annotated[Whole | None, Query(ge=1, le=100)] = None,
    cursor: Cursor = None,
) -> Accounts:
    """Oldest first; all of them on one page, unless there is a `limit`."""
    records = await herd_of(request).ledger.accounts()
    first = int(cursor or 0)  # they are never deleted, so a place stays what it is
    after = len(records) if limit is None else first + limit
    more = str(after) if after < len(records) else None
    return Accounts(accounts=[account_of(record) for record in records[first:after]], next=more)


@router.get(
    "/accounts/{account}",
    response_model=Account,
    summary="Show an account",
    responses=declared(Forbidden, NotFound),
)
async def show(request: Request, _: Admin, account: AccountId) -> Account:
    """Its balances."""
    return account_of(await _known(herd_of(request), account))


@router.post(
    "/accounts/{account}/deposit",
    response_model=Account,
    summary="Deposit credits",
    responses=declared(Forbidden, NotFound, Conflict, body=True),
    openapi_extra=json_body(DepositRequest),
)
async def deposit(
    request: Request,
    _: Admin,
    account: AccountId,
    body: Annotated[DepositRequest, Depends(admin_body_of(DepositRequest))],
) -> Account:
    """Mint credits into it. With a `deposit_id` a repetition counts once; with another amount it is a conflict."""
    herd = herd_of(request)
    _checked(account)
    return account_of(await herd.ledger.deposit(account, body.amount, body.deposit_id, body.memo))


@router.post(
    "/accounts/{account}/adjust",
    response_model=Account,
    summary="Correct a balance",
    responses=declared(Forbidden, NotFound, InsufficientFunds, body=True),
    openapi_extra=json_body(AdjustRequest),
)
async def adjust(
    request: Request,
    _: Admin,
    account: AccountId,
    body: Annotated[AdjustRequest, Depends(admin_body_of(AdjustRequest))],
) -> Account:
    """Add or take credits; never more than are available."""
    herd = herd_of(request)
    _checked(account)
    return account_of(await herd.ledger.adjust(account, body.amount, body.memo))


@router.post(
    "/accounts/{account}/suspend",
    response_model=Account,
    summary="Suspend an account",
    responses=declared(Forbidden, NotFound),
)
async def suspend(request: Request, _: Admin, account: AccountId) -> Account:
    """It can no longer submit; what is queued and running goes on."""
    _checked(account)
    return account_of(await herd_of(request).ledger.suspend(account, True))


@router.post(
    "/accounts/{account}/resume",
    response_model=Account,
    summary="Resume an account",
    responses=declared(Forbidden, NotFound),
)
async def resume(request: Request, _: Admin, account: AccountId) -> Account:
    """It can submit again."""
    _checked(account)
    return account_of(await herd_of(request).ledger.suspend(account, False))


@router.get(
    "/accounts/{account}/ledger",
    response_model=Entries,
    summary="An account's ledger",
    responses=declared(Forbidden, NotFound, InvalidRequest),
)
async def ledger(
    request: Request, _: Admin, account: AccountId, limit: Limit = 20, cursor: EntryCursor = None
) -> Entries:
    """Every movement of its credits, newest first."""
    herd = herd_of(request)
    await _known(herd, account)
    return await entries_of(herd, account, limit, cursor)


@router.get(
    "/accounts/{account}/keys",
    response_model=KeyList,
    summary="List keys",
    responses=declared(Forbidden, NotFound),
)
async def keys(request: Request, _: Admin, account: AccountId) -> KeyList:
    """An account's keys, revoked ones too; never their secrets."""
    herd = herd_of(request)
    await _known(herd, account)
    return KeyList(keys=[Key.model_validate(key_fields(k)) for k in await herd.ledger.keys(account)])


@router.post(
    "/accounts/{account}/keys",
    status_code=201,
    response_model=NewKey,
    summary="Make a key",
    responses=declared(Forbidden, NotFound, body=True),
    openapi_extra=json_body(KeyRequest),
)
async def create_key(
    request: Request,
    _: Admin,
    account: AccountId,
    body: Annotated[KeyRequest, Depends(admin_body_of(KeyRequest))],
) -> NewKey:
    """A new key; its secret is in this answer and nowhere else."""
    _checked(account)
    record, secret = await herd_of(request).ledger.create_key(account, Role(body.role), body.label)
    return NewKey.model_validate({**key_fields(record), "key": secret})


@router.delete(
    "/accounts/{account}/keys/{key_id}",
    response_model=Key,
    summary="Revoke a key",
    responses=declared(Forbidden, NotFound),
)
async def revoke_key(request: Request, _: Admin, account: AccountId, key_id: str) -> Key:
    """It is refused from now on; by other replicas of the herder a tenth of a second later."""
    _checked(account)
    herd = herd_of(request)
    try:
        return Key.model_validate(key_fields(await herd.ledger.revoke_key(account, key_id)))
    finally:  # the reply may be what gets lost
        herd.keys.forget()


@router.get("/audit", response_model=Audit, summary="Check the books", responses=declared(Forbidden))
async def audited(request: Request, _: Admin) -> Audit:
    """Fold every posting and compare with every balance. Reads all of the ledger, so not for every minute."""
    return audit_of(await audit(herd_of(request).broker))


def _checked(account: str) -> None:
    if not _ACCOUNT.fullmatch(account):
        raise NotFound("no such account")


async def _known(herd: Herd, account: str) -> AccountRecord:
    _checked(account)
    record = await herd.ledger.account(account)
    if record is None:
        raise NotFound(f"no account {account}")
    return record
