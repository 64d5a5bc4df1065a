"""`herder.admin` of the ordinary client: other people's accounts, with an admin's key. Performs nothing itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_herder import _admin, _calls
from llama_herder._json import Page
from llama_herder.types import Account, Audit, Key, LedgerEntry

if TYPE_CHECKING:
    from llama_herder._sync import Herder


class Admin:
    """`herder.admin`: other people's accounts, with an admin's key. Amounts are credits."""

    def __init__(self, herder: Herder) -> None:
        self._herder = herder

    def create(self, name: str, credits: int = 0) -> Account:  # noqa: A002
        """A new account; it needs a key: `create_key`."""
        return self._herder._call(_admin.create_account(name, credits))

    def accounts(self, limit: int | None = None, cursor: str | None = None) -> Page[Account]:
        """All accounts."""
        return self._herder._call(_admin.accounts(limit, cursor))

    def account(self, name: str) -> Account:
        """One account."""
        return self._herder._call(_admin.show_account(name))

    def deposit(
        self, name: str, amount: int, memo: str | None = None, deposit_id: str | None = None
    ) -> Account:
        """Credits for an account; the same `deposit_id` counts once."""
        return self._herder._call(_admin.deposit(name, amount, memo, deposit_id))

    def adjust(self, name: str, amount: int, memo: str) -> Account:
        """A correction, up or down, with the reason; never tried twice."""
        return self._herder._call(_admin.adjust(name, amount, memo))

    def suspend(self, name: str) -> Account:
        """Refuse the account's submissions from now on."""
        return self._herder._call(_admin.suspend(name, True))

    def resume(self, name: str) -> Account:
        """Let a suspended account go on."""
        return self._herder._call(_admin.suspend(name, False))

    def ledger(self, name: str, limit: int | None = None, cursor: str | None = None) -> Page[LedgerEntry]:
        """The movements of an account's credits, newest first."""
        return self._herder._call(_calls.ledger(limit, cursor, name))

    def keys(self, name: str) -> Page[Key]:
        """An account's keys, without their secrets."""
        return self._herder._call(_admin.keys(name))

    def create_key(self, name: str, role: str | None = None, label: str | None = None) -> Key:
        """A new key, `client` unless the role is `admin`; `.key` is the secret, to be seen here only."""
        return self._herder._call(_admin.create_key(name, role, label))

    def revoke_key(self, name: str, key_id: str) -> Key:
        """An end to a key."""
        return self._herder._call(_admin.revoke_key(name, key_id))

    def audit(self) -> Audit:
        """Whether every balance is what its postings add up to."""
        return self._herder._call(_admin.audit())
