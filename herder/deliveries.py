"""Webhooks' door to Redis: endpoints with their secrets, deliveries with their attempts. One method a transition.

Beside the broker as the ledger is. Knows no HTTP, no arq, and not how a body is made or signed. Times in milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from herder.broker import Broker
from herder.errors import Conflict, InvalidRequest, NotFound
from herder.replies import text_of

CLAIM_MARGIN_MS = 5_000  # beyond the timeout of an attempt, before it counts as lost with its courier


class DeliveryStatus(StrEnum):
    """The three states of a delivery: attempts to come, an answer of 2xx, or given up."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"


@dataclass(frozen=True)
class Endpoint:
    """A webhook address of an account (a URL without its query) and the secrets that sign what goes there.

    `old_secret` signs beside the new one until `old_until_ms`; a `disabled_ms` of 0 is an endpoint that is on.
    """

    endpoint: str
    account: str
    url: str
    secret: str
    old_secret: str
    old_until_ms: int
    disabled_ms: int
    disabled_why: str
    created_ms: int


@dataclass(frozen=True)
class NewDelivery:
    """A webhook to be posted; `id` is the webhook-id, the same at every attempt. `subject` is a job or a batch."""

    id: str
    account: str
    endpoint: str
    url: str
    host: str
    type: str
    subject: str
    body: str


@dataclass(frozen=True)
class Delivery:
    """A webhook and what came of it. `tries` is the place in the schedule, `attempt` the fence, which only rises."""

    delivery: str
    account: str
    endpoint: str
    url: str
    host: str
    type: str
    subject: str
    body: str
    status: DeliveryStatus
    attempt: int
    tries: int
    created_ms: int
    next_ms: int | None
    last_ms: int | None
    last_status: int | None
    last_error: str | None
    ended_ms: int | None


@dataclass(frozen=True)
class Attempted:
    """What came of an attempt: `pause_ms` until the next one, or None for the end of it, which `outcome` then is.

    `disable` is why the endpoint is to be switched off (it answered 410).
    """

    delivery: str
    attempt: int
    outcome: DeliveryStatus
    pause_ms: int | None = None
    response_status: int | None = None
    error: str | None = None
    disable: str | None = None


class Deliveries:
    """Every transition of endpoints and deliveries, and the reads."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._settings = broker.settings

    # --- endpoints ---------------------------------------------------------------------------------------

    async def ensure_endpoint(self, account: str, url: str, endpoint: str, secret: str) -> str:
        """The id of the account's endpoint for `url` (without its query); `endpoint` and `secret` where it is new.

        Raises Conflict (switched off), InvalidRequest (too many), NotFound (no such account).
        """
        reply = await self._endpoint(
            "ensure", account, url=url, endpoint=endpoint, secret=secret,
            endpoints_max=self._settings.webhook_endpoints_max,
        )  # fmt: skip
        match reply:
            case ["DISABLED", known]:
                raise Conflict(f"webhook endpoint {known} is disabled; enable it, or use another address")
            case ["FULL", count]:
                message = (
                    f"this account has {count} webhook addresses, the most there can be: put what varies into the "
                    "query of the URL, or delete some"
                )
                raise InvalidRequest(message, errors=[{"field": "webhook_url", "message": message}])
        return str(reply[1])

    async def set_default(self, account: str, url: str | None, endpoint: str | None) -> None:
        """The address for all jobs of the account that name none; None for none."""
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
        if not fields:
            return None
        numbers = {name: int(fields[name]) for name in ("old_until_ms", "disabled_ms", "created_ms")}
        texts = {n: fields[n] for n in ("account", "url", "secret", "old_secret", "disabled_why")}
        return Endpoint(endpoint, **texts, **numbers)  # type: ignore[arg-type]

    async def endpoints(self, account: str) -> list[Endpoint]:
        """The account's endpoints, oldest first."""
        ids = await self._broker.hash_of("endpoints", account)
        found = [await self.endpoint(endpoint) for endpoint in ids.values()]
        return sorted((e for e in found if e is not None), key=lambda e: (e.created_ms, e.endpoint))

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
            "host_max": self._settings.webhook_host_concurrency,
            "first_pause_ms": round(self._settings.webhook_schedule_s[0] * 1000),
        }
        taken, posted = await self._broker.scripts.call("callback", arguments)
        return int(taken), int(posted)

    async def claim(self, limit: int) -> list[tuple[str, int]]:
        """Attempts that are due: (delivery, attempt). Whoever claims one must answer with `attempted`, or it lapses."""
        arguments = {
            "limit": limit,
            "host_max": self._settings.webhook_host_concurrency,
            "flight_ms": self._settings.webhook_timeout_ms + CLAIM_MARGIN_MS,
        }
        claimed = await self._broker.scripts.call("claim", arguments)
        return [(text_of(delivery), int(attempt)) for delivery, attempt in claimed]

    async def attempted(self, result: Attempted) -> bool:
        """Record what came of an attempt; False where it is not the one under way any more."""
        arguments = asdict(result) | {
            "host_max": self._settings.webhook_host_concurrency,
            "webhook_ttl_ms": self._settings.webhook_ttl_ms,
        }
        return bool(text_of(await self._broker.scripts.call("attempted", arguments)) == "OK")

    async def redeliver(self, account: str, delivery: str) -> None:
        """Start an ended delivery again, with its whole schedule. Raises NotFound, Conflict (it is still pending)."""
        arguments = {
            "account": account, "delivery": delivery, "host_max": self._settings.webhook_host_concurrency,
        }  # fmt: skip
        reply = text_of(await self._broker.scripts.call("redeliver", arguments))
        if reply == "UNKNOWN":
            raise NotFound(f"no delivery {delivery} in this account")
        if reply == "PENDING":
            raise Conflict(f"delivery {delivery} is still pending; it will be tried by itself")

    async def delivery(self, delivery: str) -> Delivery | None:
        """A delivery, or None where there is none (any more)."""
        fields = await self._broker.hash_of("delivery", delivery)
        return _delivery(delivery, fields) if fields else None


def _delivery(delivery: str, fields: dict[str, str]) -> Delivery:
    def number(name: str) -> int | None:
        return int(fields[name]) if fields.get(name) else None

    texts = {n: fields[n] for n in ("account", "endpoint", "url", "host", "type", "subject", "body")}
    return Delivery(
        delivery=delivery,
        **texts,
        status=DeliveryStatus(fields["status"]),
        attempt=int(fields["attempt"]),
        tries=int(fields["tries"]),
        created_ms=int(fields["created_ms"]),
        next_ms=number("next_ms"),
        last_ms=number("last_ms"),
        last_status=number("last_status"),
        last_error=fields.get("last_error") or None,
        ended_ms=number("ended_ms"),
    )
