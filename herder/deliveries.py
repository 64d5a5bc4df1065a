"""Webhooks' door to Redis: endpoints with their secrets, deliveries with their attempts. One method a transition.

Beside the broker as the ledger is. Knows no HTTP, no arq, and not how a body is made or signed. Times in milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from herder.broker import Broker
from herder.errors import Conflict, InvalidRequest, NotFound
from herder.replies import text_of
from herder.webhook_records import (
    Attempted,
    Delivery,
    DeliveryStatus,
    Endpoint,
    HeldBack,
    NewDelivery,
    delivery_record,
    endpoint_record,
)

CLAIM_MARGIN_MS = 5_000  # beyond the timeout of an attempt, before it counts as lost with its courier
DOWN_AFTER = (
    16  # failures in a row after which a lane is down, and is asked once at a time, until it answers 2xx
)
PROBE_MS = 1_000  # at least, between a failure of a lane that is down and the next attempt: as long as it has been down
PROBE_MAX_MS = 15_000  # at most
# Attempts of one account at a time, wherever they go: a quarter of what one courier makes, so that an account whose
# receivers all hang leaves the others three. It takes four such accounts to fill a courier.
ACCOUNT_MAX = 25
# Lanes that one claim looks at, however few it may hand out: each is looked at within (due lanes ÷ this) claims.
LOOKED_MAX = 500
SOON_MS = 2_000  # a courier looks each second: what has waited no longer than this is not held back
SCAN_MAX = 5_000  # deliveries that one page of a filtered list looks at
SCAN_STEP = 500

_LISTED = [
    "account", "endpoint", "url", "lane", "type", "subject", "at_ms", "status", "attempt", "tries", "created_ms",
    "next_ms", "last_ms", "last_status", "last_error", "ended_ms",
]  # fmt: skip


class Deliveries:
    """Every transition of endpoints and deliveries, and the reads."""

    def __init__(
        self,
        broker: Broker,
        down_after: int = DOWN_AFTER,
        probe_ms: int = PROBE_MS,
        probe_max_ms: int = PROBE_MAX_MS,
        *,
        account_max: int = ACCOUNT_MAX,
        looked_max: int = LOOKED_MAX,
    ) -> None:
        self._broker = broker
        self._settings = broker.settings
        self._account_max, self._looked_max = account_max, looked_max
        # How many attempts a lane may have at a time, and when.
        self._room = {
            "host_max": broker.settings.webhook_host_concurrency,
            "down_after": down_after, "probe_ms": probe_ms, "probe_max_ms": probe_max_ms,
        }  # fmt: skip

    # --- endpoints ---------------------------------------------------------------------------------------

    async def ensure_endpoint(self, account: str, url: str, endpoint: str, secret: str) -> str:
        """The id of the account's endpoint for `url` (without its query); `endpoint` and `secret` where it is new.

        Raises Conflict (switched off), InvalidRequest (too many), NotFound (no such account).
        """
        word, known = await self._ensured(account, url, endpoint, secret)
        if word == "DISABLED":
            raise Conflict(f"webhook endpoint {known} is disabled; enable it, or use another address")
        return known

    async def add_endpoint(self, account: str, url: str, endpoint: str, secret: str) -> tuple[str, bool]:
        """The same for one that may be switched off: its id, and whether it is new."""
        word, known = await self._ensured(account, url, endpoint, secret)
        return known, word == "NEW"

    async def _ensured(self, account: str, url: str, endpoint: str, secret: str) -> tuple[str, str]:
        word, known = await self._endpoint(
            "ensure", account, url=url, endpoint=endpoint, secret=secret,
            endpoints_max=self._settings.webhook_endpoints_max,
        )  # fmt: skip
        if word == "FULL":
            message = (
                f"this account has {known} webhook addresses, the most there can be: put what varies into the "
                "query of the URL, or delete some"
            )
            raise InvalidRequest(message, errors=[{"field": "webhook_url", "message": message}])
        return str(word), str(known)

    async def set_default(self, account: str, url: str | None, endpoint: str | None) -> None:
        """The address for all jobs of the account that name none; None for none. Raises NotFound (the endpoint)."""
        await self._endpoint("default", account, webhook_url=url, endpoint=endpoint)

    async def rotate(self, account: str, endpoint: str, secret: str) -> None:
        """A new secret; the old one signs beside it for HERDER_WEBHOOK_ROTATION_MS. Raises NotFound."""
        rotation_ms = self._settings.webhook_rotation_ms
        await self._endpoint("rotate", account, endpoint=endpoint, secret=secret, rotation_ms=rotation_ms)

    async def switch(self, account: str, endpoint: str, *, on: bool, why: str = "") -> None:
        """Enable or disable an endpoint. Raises NotFound."""
        await self._endpoint("enable" if on else "disable", account, endpoint=endpoint, why=why)

    async def delete_endpoint(self, account: str, endpoint: str) -> None:
        """Forget an endpoint; what is pending for it will be dead. Raises NotFound."""
        await self._endpoint("delete", account, endpoint=endpoint)

    async def _endpoint(self, op: str, account: str, **more: Any) -> list[Any]:
        reply = await self._broker.scripts.call("endpoint", {"op": op, "account": account, **more})
        words = [text_of(part) for part in reply]
        if words[0] == "NO_ACCOUNT":
            raise NotFound(f"no account {account}")
        if words[0] == "UNKNOWN":
            raise NotFound(f"no webhook endpoint {more.get('endpoint')} in this account")
        return words

    async def endpoint(self, endpoint: str) -> Endpoint | None:
        """An endpoint, or None where there is none (any more)."""
        fields = await self._broker.hash_of("endpoint", endpoint)
        return endpoint_record(endpoint, fields) if fields else None

    async def endpoints(self, account: str) -> list[Endpoint]:
        """The account's endpoints, oldest first."""
        ids = list((await self._broker.hash_of("endpoints", account)).values())
        hashes = await self._broker.hashes_of([("endpoint", endpoint) for endpoint in ids])
        found = [endpoint_record(e, fields) for e, fields in zip(ids, hashes, strict=True) if fields]
        return sorted(found, key=lambda e: (e.created_ms, e.endpoint))

    async def default_of(self, account: str) -> tuple[str, str] | None:
        """The account's default: (url, endpoint), or None."""
        fields = await self._broker.hash_of("account", account)
        return (fields["webhook_url"], fields["webhook_endpoint"]) if "webhook_url" in fields else None

    # --- deliveries --------------------------------------------------------------------------------------

    async def answer(self, answered: Sequence[tuple[str, NewDelivery | None]]) -> tuple[int, int]:
        """Take callbacks off their queue, posting what is to be delivered; returns (taken, posted).

        Each is (entry id, delivery or None). Safe to repeat: what was taken is not posted again.
        """
        if not answered:
            return 0, 0
        given = [{"entry": entry, "delivery": new and asdict(new)} for entry, new in answered]
        arguments = {
            "answered": given,
            **self._room,
            "first_pause_ms": round(self._settings.webhook_schedule_s[0] * 1000),
            "result_ttl_ms": self._settings.result_ttl_ms,
        }
        taken, posted = await self._broker.scripts.call("callback", arguments)
        return int(taken), int(posted)

    async def claim(self, limit: int) -> list[tuple[str, int]]:
        """Attempts that are due: (delivery, attempt). Whoever claims one must answer with `attempted`, or it lapses."""
        flight_ms = self._settings.webhook_timeout_ms + CLAIM_MARGIN_MS
        arguments = {
            "limit": limit,
            **self._room,
            "account_max": self._account_max,
            "looked_max": self._looked_max,
            "flight_ms": flight_ms,
            "flying_ttl_ms": max(self._settings.webhook_ttl_ms, flight_ms),
        }
        claimed = await self._broker.scripts.call("claim", arguments)
        return [(text_of(delivery), int(attempt)) for delivery, attempt in claimed]

    async def attempted(self, result: Attempted, body: str = "") -> bool:
        """Record what came of an attempt, and what it said where that was not written before; False where it is not
        the one under way any more.
        """
        arguments = asdict(result) | {
            **self._room,
            "webhook_ttl_ms": self._settings.webhook_ttl_ms,
        }
        return bool(text_of(await self._broker.scripts.call("attempted", arguments, body)) == "OK")

    async def unwritten(self, until_ms: int, limit: int) -> list[str]:
        """Deliveries whose body is to be made by a moment, the most urgent first."""
        key = self._broker.keys("unwritten")
        found = await self._broker.fetch(
            self._broker.redis.zrangebyscore(key, "-inf", until_ms, start=0, num=limit)
        )
        return [delivery.decode() for delivery in found]

    async def write(self, bodies: Sequence[tuple[str, str]]) -> list[bool]:
        """What deliveries say, ahead of their first attempt; False where that is known, or the delivery is not.

        One with nothing to say is not looked at again before its first attempt.
        """
        calls = [({"delivery": delivery}, body) for delivery, body in bodies]
        return [bool(written) for written in await self._broker.scripts.pipeline("write", calls)]

    async def redeliver(self, account: str, delivery: str) -> None:
        """Start an ended delivery again, with its whole schedule.

        Raises NotFound, Conflict (it is still pending, or its endpoint is disabled or deleted).
        """
        arguments = {"account": account, "delivery": delivery, **self._room}
        reply = text_of(await self._broker.scripts.call("redeliver", arguments))
        if reply == "UNKNOWN":
            raise NotFound(f"no delivery {delivery} in this account")
        if reply == "PENDING":
            raise Conflict(f"delivery {delivery} is still pending; it will be tried by itself")
        if reply != "OK":
            what = "disabled: enable it first" if reply == "DISABLED" else "deleted, and its secret with it"
            raise Conflict(f"the endpoint of delivery {delivery} is {what}")

    # --- reads -------------------------------------------------------------------------------------------

    async def delivery(self, delivery: str) -> Delivery | None:
        """A delivery, or None where there is none (any more)."""
        fields = await self._broker.hash_of("delivery", delivery)
        return delivery_record(delivery, fields) if fields else None

    async def deliveries(
        self, account: str, *, status: DeliveryStatus | None, before: str | None, limit: int
    ) -> tuple[list[Delivery], str | None]:
        """An account's deliveries without their bodies, newest first, and the cursor of the next page.

        With a `status` at most SCAN_MAX are looked at, so a page may be short, or empty, and have a next.
        """
        found: list[Delivery] = []
        cursor, looked = before, 0
        while True:
            step = min(limit - len(found), SCAN_STEP) if status is None else SCAN_STEP
            page, cursor = await self._page(account, cursor, step)
            for place, one in page:
                if one is not None and status in (None, one.status):
                    found.append(one)
                    if len(found) == limit:
                        last = place == page[-1][0] and cursor is None
                        return found, None if last else place
            looked += step
            if cursor is None or looked >= SCAN_MAX:
                return found, cursor

    async def held_back(self, found: Sequence[Delivery]) -> list[Delivery]:
        """The same, each that waits saying why; one round trip for all."""
        waiting = [one.delivery for one in found if one.next_ms is not None]
        if not waiting:
            return list(found)
        arguments = {"deliveries": waiting, "soon_ms": SOON_MS, **self._room}
        reply = await self._broker.scripts.call("held", arguments)
        said = {name: (text_of(word), int(at)) for name, (word, at) in zip(waiting, reply, strict=True)}
        told = []
        for one in found:
            word, at = said.get(one.delivery, ("", 0))
            why = HeldBack(word) if word else None
            told.append(replace(one, held_back=why, next_ms=at or one.next_ms))
        return told

    async def _page(
        self, account: str, before: str | None, limit: int
    ) -> tuple[list[tuple[str, Delivery | None]], str | None]:
        """The next ids, each with its own cursor: its time, and how many of that very time have been seen."""
        at, _, seen = (before or "+inf-0").rpartition("-")
        key = self._broker.keys("deliveries", account)
        rows = await self._broker.fetch(
            self._broker.redis.zrevrangebyscore(
                key, at, "-inf", start=int(seen), num=limit + 1, withscores=True
            )
        )
        more, rows = len(rows) > limit, rows[:limit]  # one was read beyond the page, to know
        pipe = self._broker.redis.pipeline(transaction=False)
        for delivery, _ in rows:
            pipe.hmget(self._broker.keys("delivery", delivery.decode()), _LISTED)
        last, same = at, int(seen)
        page: list[tuple[str, Delivery | None]] = []
        for (delivery, score), values in zip(rows, await self._broker.fetch(pipe.execute()), strict=True):
            last, same = (last, same + 1) if str(int(score)) == last else (str(int(score)), 1)
            named = {n: v.decode() for n, v in zip(_LISTED, values, strict=True) if v is not None}
            one = delivery_record(delivery.decode(), named) if "status" in named else None
            page.append((f"{last}-{same}", one))
        return page, page[-1][0] if more else None
