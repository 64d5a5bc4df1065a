"""API keys that were good a moment ago, so that a rush of requests asks Redis once and not once a request."""

from __future__ import annotations

import time

from herder.api.market import FRESH_S
from herder.ledger import Ledger
from herder.records import KeyRecord


class KnownKeys:
    """Keys for FRESH_S at most; all are forgotten at a time. One that is not good is asked for anew each time.

    A key that another replica revokes is taken here for that long: no longer than a request may be under way.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._until = 0.0
        self.forget()

    async def authenticate(self, secret_key: str) -> KeyRecord | None:
        """Whose key this is; None for one that is mistyped, unknown or revoked."""
        now = time.monotonic()
        if now >= self._until:
            self.forget()
            self._until = now + FRESH_S
        # What is read now goes here, also where this has been forgotten meanwhile: then nobody sees it.
        kept = self._kept
        record = kept.get(secret_key)
        if record is None:
            record = await self._ledger.authenticate(secret_key)
            if record is not None:
                kept[secret_key] = record
        return record

    def forget(self) -> None:
        """Ask for each anew."""
        self._kept: dict[str, KeyRecord] = {}
