"""Which request each call with an admin's key is: other people's accounts, and the audit.

Pure: builds `Call` values, as `_calls` does for everybody's.
"""

from __future__ import annotations

import uuid
from typing import Any

from llama_herder._calls import paging, part
from llama_herder._core import Call, Send
from llama_herder._json import Page, page_of
from llama_herder.types import Account, Audit, Key

_ACCOUNTS = "/v1/admin/accounts"
_UNSURE = "it may have happened all the same: look before you repeat it"


def create_account(name: str, credits_: int) -> Call[Account]:
    """A new account."""
    body = {"id": name, **({"credits": credits_} if credits_ else {})}
    return Call(Send("POST", _ACCOUNTS, body=body), Account.from_json, repeatable=False, unsure=_UNSURE)


def accounts(limit: int | None, cursor: str | None) -> Call[Page[Account]]:
    """All accounts."""
    return Call(Send("GET", _ACCOUNTS, params=paging(limit, cursor)), page_of("accounts", Account.from_json))


def show_account(name: str) -> Call[Account]:
    """One account by its name."""
    return Call(Send("GET", f"{_ACCOUNTS}/{part(name)}"), Account.from_json)


def deposit(name: str, amount: int, memo: str | None, deposit_id: str | None) -> Call[Account]:
    """Credits for an account. Repeatable: the deposit's id makes the herder count it once."""
    body: dict[str, Any] = {"amount": amount, "deposit_id": deposit_id or str(uuid.uuid4())}
    if memo:
        body["memo"] = memo
    unsure = f"it may have happened: the same deposit with deposit_id {body['deposit_id']} is counted once"
    return Call(
        Send("POST", f"{_ACCOUNTS}/{part(name)}/deposit", body=body), Account.from_json, unsure=unsure
    )


def adjust(name: str, amount: int, memo: str) -> Call[Account]:
    """A correction, up or down."""
    send = Send("POST", f"{_ACCOUNTS}/{part(name)}/adjust", body={"amount": amount, "memo": memo})
    return Call(send, Account.from_json, repeatable=False, unsure=_UNSURE)


def suspend(name: str, on: bool) -> Call[Account]:
    """Suspend an account, or let it go on."""
    return Call(Send("POST", f"{_ACCOUNTS}/{part(name)}/{'suspend' if on else 'resume'}"), Account.from_json)


def keys(name: str) -> Call[Page[Key]]:
    """The keys of an account, without their secrets."""
    return Call(Send("GET", f"{_ACCOUNTS}/{part(name)}/keys"), page_of("keys", Key.from_json))


def create_key(name: str, role: str | None, label: str | None) -> Call[Key]:
    """A new key; its secret is in this answer only."""
    body = {field: value for field, value in (("role", role), ("label", label)) if value}
    send = Send("POST", f"{_ACCOUNTS}/{part(name)}/keys", body=body)
    return Call(send, Key.from_json, repeatable=False, unsure=_UNSURE)


def revoke_key(name: str, key_id: str) -> Call[Key]:
    """An end to a key."""
    return Call(Send("DELETE", f"{_ACCOUNTS}/{part(name)}/keys/{part(key_id)}"), Key.from_json)


def audit() -> Call[Audit]:
    """Whether every balance is what its postings add up to."""
    return Call(Send("GET", "/v1/admin/audit"), Audit.from_json)
