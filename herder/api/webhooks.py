"""`/v1/webhooks`: the account's endpoints with their secrets, its default address, its deliveries.

Sends nothing: that is the courier's.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from herder.api.bodies import DefaultRequest, EndpointRequest
from herder.api.callers import Caller
from herder.api.destinations import new_endpoint_id, webhook_for
from herder.api.lookup import checked, owned
from herder.api.parameters import Limit
from herder.api.problems import declared
from herder.api.reading import body_of
from herder.api.schema import json_body
from herder.api.state import Herd, herd_of
from herder.api.webhook_shapes import (
    Default,
    Deliveries,
    Delivery,
    Endpoint,
    Endpoints,
    delivery_of,
    endpoint_of,
)
from herder.deliveries import Deliveries as Door
from herder.egress import Policy, checked_url
from herder.egress import endpoint_of as address_of
from herder.errors import Conflict, InvalidRequest, NotFound
from herder.records import KeyRecord
from herder.signatures import new_secret
from herder.webhook_records import Delivery as DeliveryRecord
from herder.webhook_records import DeliveryStatus
from herder.webhook_records import Endpoint as EndpointRecord

DELIVERY_ID_CHARS_MAX = 80  # made from a job's

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])

DeliveryCursor = Annotated[
    str | None, Query(pattern="^[1-9][0-9]{0,14}-[0-9]{1,9}$", description="`next` of the page before")
]

# A route of one endpoint, which answers with it as it is then.
_ONE: dict[str, Any] = {"response_model": Endpoint, "responses": declared(NotFound)}


# --- endpoints -------------------------------------------------------------------------------------------


@router.get("/endpoints", response_model=Endpoints, summary="List endpoints", responses=declared())
async def listed(request: Request, key: Caller) -> Endpoints:
    """Every address of the account, without its secret, and the default one."""
    herd = herd_of(request)
    door = Door(herd.broker)
    found, default, now_ms = (
        await door.endpoints(key.account),
        await door.default_of(key.account),
        await herd.broker.now_ms(),
    )
    return Endpoints(
        endpoints=[endpoint_of(record, now_ms, secret=False) for record in found],
        default_url=default and default[0],
    )


@router.post(
    "/endpoints",
    status_code=201,
    response_model=Endpoint,
    summary="Make an endpoint",
    responses={
        **declared(NotFound, body=True),
        200: {"description": "It was there already", "model": Endpoint},
    },
    openapi_extra=json_body(EndpointRequest),
)
async def make(
    request: Request,
    response: Response,
    key: Caller,
    body: Annotated[EndpointRequest, Depends(body_of(EndpointRequest))],
) -> Endpoint:
    """Have an address's secret before anything is sent there. Its first use in a job makes it as well."""
    herd = herd_of(request)
    try:
        address = address_of(checked_url(body.url, Policy.of(herd.settings)))
        endpoint, new = await Door(herd.broker).add_endpoint(
            key.account, address, new_endpoint_id(), new_secret()
        )
    except InvalidRequest as error:
        raise _of_url(error) from None
    response.status_code = 201 if new else 200
    return await _shown(herd, key, endpoint)


@router.get("/endpoints/{endpoint}", summary="Read an endpoint", **_ONE)
async def read(request: Request, key: Caller, endpoint: str) -> Endpoint:
    """With its secret."""
    return await _shown(herd_of(request), key, endpoint)


@router.post("/endpoints/{endpoint}/rotate", summary="Rotate a secret", **_ONE)
async def rotate(request: Request, key: Caller, endpoint: str) -> Endpoint:
    """A new secret. The one before signs beside it for HERDER_WEBHOOK_ROTATION_MS, while the receiver is told."""
    herd = herd_of(request)
    checked(endpoint, "endpoint", "ep")
    await Door(herd.broker).rotate(key.account, endpoint, new_secret())
    return await _shown(herd, key, endpoint)


@router.post("/endpoints/{endpoint}/enable", summary="Enable an endpoint", **_ONE)
async def enable(request: Request, key: Caller, endpoint: str) -> Endpoint:
    """Send there again; what died meanwhile can be redelivered."""
    herd = herd_of(request)
    checked(endpoint, "endpoint", "ep")
    await Door(herd.broker).switch(key.account, endpoint, on=True)
    return await _shown(herd, key, endpoint)


@router.post("/endpoints/{endpoint}/disable", summary="Disable an endpoint", **_ONE)
async def disable(request: Request, key: Caller, endpoint: str) -> Endpoint:
    """Send nothing there: what is due dies, new jobs that name it are refused."""
    herd = herd_of(request)
    checked(endpoint, "endpoint", "ep")
    await Door(herd.broker).switch(key.account, endpoint, on=False, why="by its account")
    return await _shown(herd, key, endpoint)


@router.delete("/endpoints/{endpoint}", summary="Delete an endpoint", **_ONE)
async def delete(request: Request, key: Caller, endpoint: str) -> Endpoint:
    """Forget it and its secret; what is pending for it dies, and it is no default address any more.

    The address can be used again, with a new secret. The answer is what it was.
    """
    herd = herd_of(request)
    record = await _own_endpoint(herd, key, endpoint)
    await Door(herd.broker).delete_endpoint(key.account, endpoint)
    return endpoint_of(record, await herd.broker.now_ms())


@router.put(
    "/default",
    response_model=Default,
    summary="Set the default address",
    responses=declared(NotFound, Conflict, body=True),
    openapi_extra=json_body(DefaultRequest),
)
async def set_default(
    request: Request, key: Caller, body: Annotated[DefaultRequest, Depends(body_of(DefaultRequest))]
) -> Default:
    """For every job and batch that names no address, also those that are queued already; null for none."""
    herd = herd_of(request)
    try:
        webhook = await webhook_for(herd, key.account, body.url)
    except InvalidRequest as error:
        raise _of_url(error) from None
    url, endpoint = (webhook.url, webhook.endpoint) if webhook else (None, None)
    await Door(herd.broker).set_default(key.account, url, endpoint)
    return Default(default_url=url, endpoint_id=endpoint)


# --- deliveries ------------------------------------------------------------------------------------------


@router.get(
    "/deliveries", response_model=Deliveries, summary="List deliveries", responses=declared(InvalidRequest)
)
async def deliveries(
    request: Request,
    key: Caller,
    status: Annotated[
        DeliveryStatus | None, Query(description="only those; dead ones are the dead letters")
    ] = None,
    limit: Limit = 20,
    cursor: DeliveryCursor = None,
) -> Deliveries:
    """The account's webhooks, newest first, without their bodies. Ended ones are kept for HERDER_WEBHOOK_TTL_MS."""
    door = Door(herd_of(request).broker)
    found, after = await door.deliveries(key.account, status=status, before=cursor, limit=limit)
    return Deliveries(deliveries=[delivery_of(one) for one in await door.held_back(found)], next=after)


@router.get(
    "/deliveries/{delivery}", response_model=Delivery, summary="Read a delivery", responses=declared(NotFound)
)
async def delivery(request: Request, key: Caller, delivery: str) -> Delivery:
    """With the very text that is sent."""
    return delivery_of(await _own_delivery(herd_of(request), key, delivery))


@router.post(
    "/deliveries/{delivery}/redeliver",
    status_code=202,
    response_model=Delivery,
    summary="Deliver again",
    responses=declared(NotFound, Conflict),
)
async def redeliver(request: Request, key: Caller, delivery: str) -> Delivery:
    """An ended delivery is due again at once, with its whole schedule, under the same webhook-id."""
    herd = herd_of(request)
    await _own_delivery(herd, key, delivery)
    await Door(herd.broker).redeliver(key.account, delivery)
    return delivery_of(await _own_delivery(herd, key, delivery))


def _of_url(error: InvalidRequest) -> InvalidRequest:
    """The same complaint about the field as it is called here."""
    errors = [{**fault, "field": "url"} for fault in error.extra.get("errors", [])]
    return InvalidRequest(error.detail.replace("webhook_url: ", "url: ", 1), errors=errors)


async def _own_endpoint(herd: Herd, key: KeyRecord, endpoint: str) -> EndpointRecord:
    """The caller's endpoint. Raises NotFound."""
    checked(endpoint, "endpoint", "ep")
    return owned(await Door(herd.broker).endpoint(endpoint), key, f"webhook endpoint {endpoint}")


async def _shown(herd: Herd, key: KeyRecord, endpoint: str) -> Endpoint:
    return endpoint_of(await _own_endpoint(herd, key, endpoint), await herd.broker.now_ms())


async def _own_delivery(herd: Herd, key: KeyRecord, delivery: str) -> DeliveryRecord:
    """The caller's delivery. Raises NotFound."""
    checked(delivery, "delivery", "msg", DELIVERY_ID_CHARS_MAX)
    door = Door(herd.broker)
    found = owned(await door.delivery(delivery), key, f"delivery {delivery}")
    (told,) = await door.held_back([found])
    return told
