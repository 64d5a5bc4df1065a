"""What the calls on webhooks return: endpoints with their secrets, deliveries with their attempts.

Frozen dataclasses read from the herder's JSON, as in `types`. Knows nothing of HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llama_herder._json import FromJson, Page, page_of


@dataclass(frozen=True)
class Endpoint(FromJson):
    """A webhook's address: a URL without its query, and what signs there. `secret` is None in lists; `repr` hides it.

    After a rotation the secret before signs beside the new one until `old_secret_until_ms`.
    """

    id: str = ""
    url: str = ""
    disabled: bool = False
    disabled_ms: int | None = None
    disabled_why: str = ""
    created_ms: int = 0
    secret: str | None = field(default=None, repr=False)
    old_secret_until_ms: int | None = None


@dataclass(frozen=True)
class Endpoints(Page[Endpoint]):
    """All endpoints, oldest first; `default_url` is where jobs and batches go that name none."""

    default_url: str | None = None

    @classmethod
    def from_json(cls, found: Any) -> Endpoints:
        """Reads `{"endpoints": […], "default_url": …}`."""
        page = page_of("endpoints", Endpoint.from_json)(found)
        default = found.get("default_url") if isinstance(found, Mapping) else None
        return cls(page.items, page.next, str(default) if default is not None else None)


@dataclass(frozen=True)
class DefaultWebhook(FromJson):
    """Where the webhooks of jobs and batches go that name no address; None for nowhere."""

    default_url: str | None = None
    endpoint_id: str | None = None


@dataclass(frozen=True)
class Delivery(FromJson):
    """A webhook and what came of it. `status` is pending, delivered or dead; `subject` the job or batch it tells of.

    `last_status` and `last_error` are of the last attempt, `next_ms` is when the next is due. `held_back` is why
    it waits though its time has come: None, `endpoint_down` (`next_ms` is when that is asked again), or `busy`. `body`,
    the JSON text that is sent, is None in lists, and until it is made for the first attempt.
    """

    id: str = ""
    endpoint_id: str = ""
    url: str = ""
    type: str = ""
    subject: str = ""
    status: str = ""
    attempts: int = 0
    created_ms: int = 0
    next_ms: int | None = None
    last_ms: int | None = None
    last_status: int | None = None
    last_error: str | None = None
    ended_ms: int | None = None
    held_back: str | None = None
    body: str | None = None
