"""Accounts, their keys, their money: the broker's other half. Every balance is the fold of its postings.

Knows no HTTP. API keys are stored as an HMAC only; `apikeys` makes and checks them.
"""

from __future__ import annotations

import secrets
from typing import Any

from herder.apikeys import key_hmac, new_key, well_formed
from herder.broker import Broker
from herder.errors import Conflict, InsufficientFunds, InvalidRequest, NotFound
from herder.pricing import AMOUNT_LIMIT
from herder.records import AccountRecord, KeyRecord, Posting, PostingKind, Role

RESERVED = frozenset({"available", "held", "mint", "revenue"})
"""The balances of the books, which no account may be called: nobody could tell the two apart in a ledger."""


_KEY_FIELDS = ("key_id", "account", "role", "label", "created_ms", "revoked")


class Ledger:
    """Accounts on a broker. `key_secret` is the HMAC secret that all replicas share."""

    def __init__(self, broker: Broker, key_secret: bytes) -> None:
        self.broker = broker
        self._secret = key_secret

    # --- accounts ----------------------------------------------------------------------------------------

    async def account(self, account: str) -> AccountRecord | None:
        """An account and its balances, or None."""
        fields = await self.broker.hash_of("account", account)
        if not fields:
            return None
        return AccountRecord(
            account=account,
            available=int(fields["available"]),
            held=int(fields["held"]),
            suspended=fields["suspended"] == "1",
            created_ms=int(fields["created_ms"]),
        )

    async def accounts(self) -> list[AccountRecord]:
        """All accounts, oldest first."""
        broker = self.broker
        names = await broker.fetch(broker.redis.zrange(broker.keys("accounts"), 0, -1))
        found = [await self.account(name.decode()) for name in names]
        return [account for account in found if account is not None]

    async def create_account(self, account: str, first_credits: int = 0) -> AccountRecord:
        """A new account with its first credits, in one step: one that is refused leaves nothing behind.

        Raises Conflict if it exists, InvalidRequest for a reserved name and for too many credits (2^53 in all).
        """
        if account in RESERVED:
            message = f"{account} is a name of the ledger's own; take another"
            raise InvalidRequest(f"id: {message}", errors=[{"field": "id", "message": message}])
        if not 0 <= first_credits < AMOUNT_LIMIT:
            raise InvalidRequest(f"first credits are between 0 and {AMOUNT_LIMIT - 1}")
        arguments = {
            "op": "create", "account": account, "credits": first_credits, "amount_limit": AMOUNT_LIMIT,
        }  # fmt: skip
        match await self._call("account", arguments):
            case "EXISTS":
                raise Conflict(f"account {account} exists already")
            case "TOO_MUCH":
                raise _too_much()
        return await self._known(account)

    async def suspend(self, account: str, suspended: bool) -> AccountRecord:
        """Stop an account from submitting, or let it again. Raises NotFound."""
        op = "suspend" if suspended else "resume"
        if await self._call("account", {"op": op, "account": account}) == "NO_ACCOUNT":
            raise _no_account(account)
        return await self._known(account)

    async def deposit(
        self, account: str, amount: int, deposit_id: str | None, memo: str = ""
    ) -> AccountRecord:
        """Mint `amount` ≥ 1 credits into an account, once for each deposit id.

        Raises NotFound, Conflict (the id was used with another amount), InvalidRequest (over 2^53 in all).
        """
        if not 0 < amount < AMOUNT_LIMIT:
            raise InvalidRequest(f"a deposit is between 1 and {AMOUNT_LIMIT - 1} credits")
        return await self._mint("deposit", account, amount, deposit_id, memo)

    async def adjust(self, account: str, amount: int, memo: str) -> AccountRecord:
        """Add or take credits. Raises NotFound, InsufficientFunds (never below zero, never what is held)."""
        if amount == 0 or abs(amount) >= AMOUNT_LIMIT:
            raise InvalidRequest(f"an adjustment is not 0 and below {AMOUNT_LIMIT} credits")
        return await self._mint("adjust", account, amount, None, memo)

    async def _mint(
        self, kind: str, account: str, amount: int, deposit_id: str | None, memo: str
    ) -> AccountRecord:
        arguments = {
            "kind": kind, "account": account, "amount": amount, "deposit_id": deposit_id, "memo": memo,
            "amount_limit": AMOUNT_LIMIT,
        }  # fmt: skip
        reply = await self._call("deposit", arguments)
        match reply:
            case ["NO_ACCOUNT"]:
                raise _no_account(account)
            case ["CONFLICT", seen]:
                raise Conflict(f"deposit {deposit_id} was made with {int(seen)} credits, not {amount}")
            case ["POOR", available]:
                raise InsufficientFunds(
                    f"only {available} credits are available", needed=-amount, balance=int(available)
                )
            case ["TOO_MUCH"]:
                raise _too_much()
        return await self._known(account)

    async def postings(
        self, account: str, *, before: str | None, limit: int
    ) -> tuple[list[Posting], str | None]:
        """An account's postings, newest first, and the cursor of the next page."""
        broker = self.broker
        rows = await broker.fetch(
            broker.redis.xrevrange(
                broker.keys("ledger", account), max=f"({before}" if before else "+", count=limit + 1
            )
        )
        entries = [posting(entry, fields) for entry, fields in rows]
        more = len(entries) > limit  # one was read beyond the page, to know
        return entries[:limit], entries[limit - 1].posting_id if more else None

    # --- keys --------------------------------------------------------------------------------------------

    async def create_key(self, account: str, role: Role, label: str) -> tuple[KeyRecord, str]:
        """A new key for an account; the second value is the secret, which is not stored. Raises NotFound."""
        key = new_key()
        key_id = "key_" + secrets.token_hex(6)
        arguments = {
            "op": "store", "account": account, "hmac": key_hmac(self._secret, key), "key_id": key_id,
            "role": role.value, "label": label,
        }  # fmt: skip
        if await self._call("key", arguments) == "NO_ACCOUNT":
            raise _no_account(account)
        (record,) = [k for k in await self.keys(account) if k.key_id == key_id]
        return record, key

    async def keys(self, account: str) -> list[KeyRecord]:
        """All keys of an account, revoked ones too, oldest first."""
        stored = await self.broker.hash_of("account_keys", account)
        records = [_key(await self.broker.hash_of("key", hmac)) for hmac in stored.values()]
        return sorted(records, key=lambda record: record.created_ms)

    async def revoke_key(self, account: str, key_id: str) -> KeyRecord:
        """Make a key useless from now on. Raises NotFound."""
        reply = await self._call("key", {"op": "revoke", "account": account, "key_id": key_id})
        if reply == "NO_ACCOUNT":
            raise _no_account(account)
        found = [k for k in await self.keys(account) if k.key_id == key_id]
        if reply == "NO_KEY" or not found:
            raise NotFound(f"account {account} has no key {key_id}")
        return found[0]

    async def authenticate(self, secret_key: str) -> KeyRecord | None:
        """Whose key this is; None for one that is mistyped, unknown or revoked."""
        if not well_formed(secret_key):
            return None
        broker = self.broker
        found = await broker.scripts.read(
            "HMGET", broker.keys("key", key_hmac(self._secret, secret_key)), *_KEY_FIELDS
        )
        if found[0] is None:
            return None
        record = _key({name: value.decode() for name, value in zip(_KEY_FIELDS, found, strict=True)})
        return None if record.revoked else record

    async def throttle(self, subject: str, per_minute: int) -> int:
        """Take one request from a rate limit: 0, or the milliseconds to wait."""
        return int(await self._call("throttle", {"subject": subject, "per_minute": per_minute}))

    async def _known(self, account: str) -> AccountRecord:
        record = await self.account(account)
        if record is None:
            raise _no_account(account)
        return record

    async def _call(self, script: str, arguments: dict[str, Any]) -> Any:
        reply = await self.broker.scripts.call(script, arguments)
        if isinstance(reply, list):
            return [part.decode() if isinstance(part, bytes) else part for part in reply]
        return reply.decode() if isinstance(reply, bytes) else reply


def posting(entry: bytes, fields: dict[bytes, bytes]) -> Posting:
    """A ledger entry as a record."""
    named = {key.decode(): value.decode() for key, value in fields.items()}
    return Posting(
        posting_id=entry.decode(),
        kind=PostingKind(named["kind"]),
        source=named["source"],
        target=named["target"],
        amount=int(named["amount"]),
        job_id=named["job"] or None,
        memo=named["memo"],
        at_ms=int(named["at"]),
        batch_id=named.get("batch") or None,
    )


def _key(fields: dict[str, str]) -> KeyRecord:
    return KeyRecord(
        key_id=fields["key_id"],
        account=fields["account"],
        role=Role(fields["role"]),
        label=fields["label"],
        created_ms=int(fields["created_ms"]),
        revoked=fields["revoked"] == "1",
    )


def _too_much() -> InvalidRequest:
    return InvalidRequest(f"all credits together must stay below {AMOUNT_LIMIT}")


def _no_account(account: str) -> NotFound:
    return NotFound(f"no account {account}")
