"""Webhooks as callers see them: endpoints and deliveries. Times are milliseconds since the epoch."""

from __future__ import annotations

from pydantic import BaseModel, Field

from herder.webhook_records import Delivery as DeliveryRecord
from herder.webhook_records import DeliveryStatus, HeldBack
from herder.webhook_records import Endpoint as EndpointRecord


class Endpoint(BaseModel):
    """An address that webhooks go to, a URL without its query, with the secret that signs what goes there."""

    id: str = Field(examples=["ep_0aZ3hK9xQvTn5WdE8rYb2c"])
    url: str
    disabled: bool
    disabled_ms: int | None
    disabled_why: str
    created_ms: int
    secret: str | None = Field(description="null in lists", examples=["whsec_…"])
    old_secret_until_ms: int | None = Field(
        description="until when what was the secret before still signs beside it"
    )


class Endpoints(BaseModel):
    """The account's endpoints, oldest first, and its default address."""

    endpoints: list[Endpoint]
    default_url: str | None


class Default(BaseModel):
    """Where all jobs and batches that name no address are told."""

    default_url: str | None
    endpoint_id: str | None


class Delivery(BaseModel):
    """A webhook and what came of it; `id` is its webhook-id."""

    id: str = Field(examples=["msg_0aZ3hK9xQvTn5WdE8rYb2c"])
    endpoint_id: str
    url: str
    type: str = Field(examples=["job.succeeded"])
    subject: str = Field(description="the job or the batch")
    status: DeliveryStatus
    attempts: int = Field(
        description="those that were begun; one that its courier did not live to tell of may be made again as the same"
    )
    created_ms: int
    next_ms: int | None = Field(
        description="when the next attempt is due, while it is pending; where its endpoint is down, when that is "
        "asked again, with the oldest that is due there"
    )
    held_back: HeldBack | None = Field(
        description="why it waits though its time has come: `endpoint_down` (it has failed often in a row), `busy` (as "
        "many attempts are under way as may be, at its host, of its account, or at the courier)"
    )
    last_ms: int | None
    last_status: int | None
    last_error: str | None
    ended_ms: int | None
    body: str | None = Field(
        description="the JSON text that is sent; null in lists, and until it is made for the first attempt"
    )


class Deliveries(BaseModel):
    """A page of deliveries, newest first. Of a status it may be short, even empty, and have a next all the same."""

    deliveries: list[Delivery]
    next: str | None


def endpoint_of(record: EndpointRecord, now_ms: int, *, secret: bool = True) -> Endpoint:
    """An endpoint as it is shown, with its secret or without."""
    old = bool(record.old_secrets) and record.old_until_ms > now_ms
    return Endpoint(
        id=record.endpoint,
        url=record.url,
        disabled=record.disabled_ms > 0,
        disabled_ms=record.disabled_ms or None,
        disabled_why=record.disabled_why,
        created_ms=record.created_ms,
        secret=record.secret if secret else None,
        old_secret_until_ms=record.old_until_ms if old else None,
    )


def delivery_of(record: DeliveryRecord) -> Delivery:
    """A delivery as it is shown; with its body where it was read."""
    return Delivery(
        id=record.delivery,
        endpoint_id=record.endpoint,
        url=record.url,
        type=record.type,
        subject=record.subject,
        status=record.status,
        attempts=record.attempt,
        created_ms=record.created_ms,
        next_ms=record.next_ms,
        held_back=record.held_back,
        last_ms=record.last_ms,
        last_status=record.last_status,
        last_error=record.last_error,
        ended_ms=record.ended_ms,
        body=record.body or None,
    )
