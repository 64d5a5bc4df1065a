"""Which request each call on webhooks is: endpoints, the default address, deliveries.

Pure: builds `Call` values, as `_calls` does for jobs.
"""

from __future__ import annotations

from llama_herder._calls import paging, part
from llama_herder._core import Call, Send
from llama_herder._json import Page, page_of
from llama_herder.webhook_types import DefaultWebhook, Delivery, Endpoint, Endpoints

_ENDPOINTS = "/v1/webhooks/endpoints"
_DELIVERIES = "/v1/webhooks/deliveries"


def endpoints() -> Call[Endpoints]:
    """The account's endpoints, oldest first, without their secrets."""
    return Call(Send("GET", _ENDPOINTS), Endpoints.from_json)


def add(url: str) -> Call[Endpoint]:
    """An endpoint with its secret; one that is known already is that one."""
    return Call(Send("POST", _ENDPOINTS, body={"url": url}), Endpoint.from_json)


def show(endpoint_id: str) -> Call[Endpoint]:
    """An endpoint with its secret."""
    return Call(Send("GET", _at(endpoint_id)), Endpoint.from_json)


def rotate(endpoint_id: str) -> Call[Endpoint]:
    """A new secret. Sent once: done twice, the secret that receivers know would be gone."""
    unsure = "it may have a new secret all the same: look at the endpoint before you repeat it"
    return Call(Send("POST", _at(endpoint_id, "rotate")), Endpoint.from_json, repeatable=False, unsure=unsure)


def enable(endpoint_id: str, on: bool) -> Call[Endpoint]:
    """Switch an endpoint on or off."""
    return Call(Send("POST", _at(endpoint_id, "enable" if on else "disable")), Endpoint.from_json)


def delete(endpoint_id: str) -> Call[Endpoint]:
    """An end to an endpoint, and to what is pending for it."""
    unsure = "it may be gone all the same: the list of endpoints tells"
    return Call(Send("DELETE", _at(endpoint_id)), Endpoint.from_json, repeatable=False, unsure=unsure)


def set_default(url: str | None) -> Call[DefaultWebhook]:
    """Where the webhooks of jobs and batches go that name no address."""
    return Call(Send("PUT", "/v1/webhooks/default", body={"url": url}), DefaultWebhook.from_json)


def deliveries(status: str | None, limit: int | None, cursor: str | None) -> Call[Page[Delivery]]:
    """The account's deliveries, newest first."""
    params = {**paging(limit, cursor), **({"status": status} if status is not None else {})}
    return Call(Send("GET", _DELIVERIES, params=params), page_of("deliveries", Delivery.from_json))


def delivery(delivery_id: str) -> Call[Delivery]:
    """One delivery, with the body that is sent."""
    return Call(Send("GET", f"{_DELIVERIES}/{part(delivery_id)}"), Delivery.from_json)


def redeliver(delivery_id: str) -> Call[Delivery]:
    """All attempts anew. Sent once: a second time would be refused as pending."""
    unsure = "it may be on its way all the same: look at the delivery before you repeat it"
    send = Send("POST", f"{_DELIVERIES}/{part(delivery_id)}/redeliver")
    return Call(send, Delivery.from_json, repeatable=False, unsure=unsure)


def _at(endpoint_id: str, verb: str = "") -> str:
    return f"{_ENDPOINTS}/{part(endpoint_id)}" + (f"/{verb}" if verb else "")
