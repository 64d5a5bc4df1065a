"""`herder.webhooks` of the asyncio client: endpoints and deliveries of the own account. Performs nothing itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_herder import _webhook_calls
from llama_herder._json import Page
from llama_herder.webhook_types import DefaultWebhook, Delivery, Endpoint, Endpoints

if TYPE_CHECKING:
    from llama_herder._async import AsyncHerder


class AsyncWebhooks:
    """`herder.webhooks`: where the ends of jobs and batches are told, and what came of it."""

    def __init__(self, herder: AsyncHerder) -> None:
        self._herder = herder

    async def endpoints(self) -> Endpoints:
        """All endpoints, oldest first, without their secrets; `.default_url` is the default address."""
        return await self._herder._call(_webhook_calls.endpoints())

    async def add(self, url: str) -> Endpoint:
        """An endpoint with its secret; a URL that is known already gives the one that is there."""
        return await self._herder._call(_webhook_calls.add(url))

    async def show(self, endpoint_id: str) -> Endpoint:
        """An endpoint with its secret."""
        return await self._herder._call(_webhook_calls.show(endpoint_id))

    async def rotate(self, endpoint_id: str) -> Endpoint:
        """A new secret; the one before signs beside it for a while. Never tried twice."""
        return await self._herder._call(_webhook_calls.rotate(endpoint_id))

    async def enable(self, endpoint_id: str) -> Endpoint:
        """Switch an endpoint on again."""
        return await self._herder._call(_webhook_calls.enable(endpoint_id, True))

    async def disable(self, endpoint_id: str) -> Endpoint:
        """Switch an endpoint off."""
        return await self._herder._call(_webhook_calls.enable(endpoint_id, False))

    async def delete(self, endpoint_id: str) -> Endpoint:
        """An end to an endpoint; what is pending for it is given up, a default address too. Never tried twice."""
        return await self._herder._call(_webhook_calls.delete(endpoint_id))

    async def set_default(self, url: str | None) -> DefaultWebhook:
        """Where the webhooks of jobs and batches go that name no address; None for nowhere."""
        return await self._herder._call(_webhook_calls.set_default(url))

    async def deliveries(
        self, status: str | None = None, limit: int | None = None, cursor: str | None = None
    ) -> Page[Delivery]:
        """Deliveries, newest first; only those that are `pending`, `delivered` or `dead`, if a status is given."""
        return await self._herder._call(_webhook_calls.deliveries(status, limit, cursor))

    async def delivery(self, delivery_id: str) -> Delivery:
        """One delivery, with the body that is sent."""
        return await self._herder._call(_webhook_calls.delivery(delivery_id))

    async def redeliver(self, delivery_id: str) -> Delivery:
        """All attempts anew; Conflict while it is pending. Never tried twice."""
        return await self._herder._call(_webhook_calls.redeliver(delivery_id))
