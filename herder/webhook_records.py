"""Webhooks as the herd keeps them: endpoints, deliveries, and what an attempt came to. Frozen dataclasses; no IO.

Times in milliseconds since the epoch.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from herder.addresses import host_of


class DeliveryStatus(StrEnum):
    """The three states of a delivery: attempts to come, an answer of 2xx, or given up."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"


class HeldBack(StrEnum):
    """Why a delivery waits whose time has come: its endpoint is down, or others have all the places there are."""

    ENDPOINT_DOWN = "endpoint_down"
    BUSY = "busy"


@dataclass(frozen=True)
class Endpoint:
    """A webhook address of an account (a URL without its query) and the secrets that sign what goes there.

    `old_secrets` sign beside the new one until `old_until_ms`, newest first; a `disabled_ms` of 0 is an endpoint that
    is on.
    """

    endpoint: str
    account: str
    url: str
    secret: str
    old_secrets: tuple[str, ...]
    old_until_ms: int
    disabled_ms: int
    disabled_why: str
    created_ms: int


def lane_of(account: str, url: str, endpoint: str) -> str:
    """Where a delivery waits its turn, `account@host:port/ep_…`: no endpoint is in another's way.

    In records of earlier versions there is no endpoint in it; the scripts take both.
    """
    return f"{account}@{host_of(url)}/{endpoint}"


@dataclass(frozen=True)
class NewDelivery:
    """A webhook to be posted; `id` is the webhook-id, the same at every attempt. `subject` is a job or a batch that
    ended at `at_ms`; what there is to say of it is written with the first attempt.
    """

    id: str
    account: str
    endpoint: str
    url: str
    lane: str
    type: str
    subject: str
    at_ms: int


@dataclass(frozen=True)
class Delivery:
    """A webhook and what came of it. `tries` is the place in the schedule, `attempt` the fence, which only rises.

    `attempt` counts what was begun, so also what was lost with its courier. `body` is empty in lists,
    and until it is written. `held_back` is known where it was asked for; of an endpoint that is down, `next_ms` is then
    when that is asked again.
    """

    delivery: str
    account: str
    endpoint: str
    url: str
    lane: str
    type: str
    subject: str
    at_ms: int
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
    held_back: HeldBack | None = None


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


def endpoint_record(endpoint: str, fields: dict[str, str]) -> Endpoint:
    """An endpoint's hash as a record."""
    return Endpoint(
        endpoint=endpoint,
        account=fields["account"],
        url=fields["url"],
        secret=fields["secret"],
        old_secrets=tuple(fields["old_secrets"].split()),
        old_until_ms=int(fields["old_until_ms"]),
        disabled_ms=int(fields["disabled_ms"]),
        disabled_why=fields["disabled_why"],
        created_ms=int(fields["created_ms"]),
    )


def delivery_record(delivery: str, fields: dict[str, str]) -> Delivery:
    """A delivery's hash as a record."""

    def number(name: str) -> int | None:
        return int(fields[name]) if fields.get(name) else None

    texts = {n: fields[n] for n in ("account", "endpoint", "url", "lane", "type", "subject")}
    return Delivery(
        delivery=delivery,
        **texts,
        at_ms=int(fields.get("at_ms") or fields["created_ms"]),
        body=fields.get("body", ""),
        status=DeliveryStatus(fields["status"]),
        attempt=int(fields["attempt"]),
        tries=int(fields["tries"]),
        created_ms=int(fields["created_ms"]),
        next_ms=number("next_ms"),
        last_ms=number("last_ms"),
        last_status=number("last_status"),
        last_error=fields.get("last_error") or None,
        ended_ms=number("ended_ms"),
        held_back=None,
    )
