"""`/v1/webhooks` and `webhook_url`: what is refused, what is shown to whom, and what costs nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from herder.deliveries import Deliveries
from herder.errors import SetupError
from herder.settings import Settings
from herder.webhook_records import Attempted, DeliveryStatus, NewDelivery, lane_of
from tests.integration.api import Front, open_front, problem
from tests.integration.post import for_webhooks

URL = "http://127.0.0.1:9/hook"


@pytest.fixture
async def front(settings: Settings) -> AsyncIterator[Front]:
    async with open_front(for_webhooks(settings, webhook_endpoints_max=3)) as front:
        yield front


async def made(front: Front, url: str = URL) -> dict[str, Any]:
    reply = await front.client.post("/v1/webhooks/endpoints", json={"url": url})
    assert reply.status_code in (200, 201), reply.text
    endpoint: dict[str, Any] = reply.json()
    return endpoint


async def posted(front: Front, count: int, account: str = "alice") -> list[str]:
    """Deliveries to an endpoint of the account, the oldest first, all of the same moment."""
    door = Deliveries(front.herd.broker)
    endpoint = await door.ensure_endpoint(account, URL, f"ep_of{account}", "whsec_c2VjcmV0")
    ids = [f"msg_{account}{number:03}" for number in range(count)]
    broker = front.herd.broker
    entries = [
        (await broker.fetch(broker.redis.xadd(broker.keys("callbacks"), {"job": id_}))).decode()
        for id_ in ids
    ]
    lane, type_ = lane_of(account, URL, endpoint), "job.succeeded"
    new = [NewDelivery(id_, account, endpoint, URL, lane, type_, "job_1", 1) for id_ in ids]
    assert await door.answer(list(zip(entries, new, strict=True))) == (count, count)
    return ids


async def end(front: Front, delivery: str, status: DeliveryStatus) -> None:
    """As a courier would; the receiver does not count as down, however much of the rest fails on the way."""
    door = Deliveries(front.herd.broker, down_after=1_000)
    claims: dict[str, int] = {}
    while delivery not in claims:
        claims = dict(await door.claim(100))
        assert claims
        for claimed, attempt in claims.items():
            pause = None if claimed == delivery else 0
            result = Attempted(claimed, attempt, status, pause_ms=pause, response_status=500)
            await door.attempted(result, '{"a":1}')


# --- webhook_url of a job --------------------------------------------------------------------------------


async def test_a_jobs_address_is_shown_and_has_an_endpoint(front: Front) -> None:
    job = await front.submit(webhook_url=f"{URL}?story=12")
    assert job["webhook_url"] == f"{URL}?story=12"
    assert (job["batch_id"], job["custom_id"]) == (None, None)
    listed = (await front.client.get("/v1/webhooks/endpoints")).json()
    assert [endpoint["url"] for endpoint in listed["endpoints"]] == [URL]
    await front.submit(webhook_url=f"{URL}?story=13")
    assert len((await front.client.get("/v1/webhooks/endpoints")).json()["endpoints"]) == 1
    assert (await front.submit())["webhook_url"] is None


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("https://10.0.0.1/hook", "private"),
        ("ftp://example.com/", "https"),
        ("https://example.com/#part", "fragment"),
        ("https://user:word@example.com/", "password"),
        ("", ""),
        ("https://example.com/" + "a" * 2_048, ""),
        ("https://169.254.169.254/latest", "metadata"),
        (7, ""),
    ],
)
async def test_an_address_that_cannot_be_is_refused_and_costs_nothing(
    front: Front, url: object, word: str
) -> None:
    before = await front.balances()
    reply = await front.client.post("/v1/jobs", json={"prompt": "a", "tokens": 5, "webhook_url": url})
    document = problem(reply, 422, "invalid_request")
    assert [error["field"] for error in document["errors"]] == ["webhook_url"]
    assert word in document["detail"]
    assert await front.balances() == before
    assert (await front.client.get("/v1/webhooks/endpoints")).json()["endpoints"] == []
    for path, method in (("/v1/webhooks/endpoints", "POST"), ("/v1/webhooks/default", "PUT")):
        document = problem(
            await front.client.request(method, path, json={"url": url}), 422, "invalid_request"
        )
        assert [error["field"] for error in document["errors"]] == ["url"]
        assert "webhook_url" not in document["detail"]


async def test_a_quote_takes_the_body_of_a_job_and_makes_nothing_of_its_address(front: Front) -> None:
    body = {"prompt": "a", "tokens": 5, "webhook_url": URL}
    assert (await front.client.post("/v1/quote", json=body)).json()["feasible"] is True
    assert (await front.client.get("/v1/webhooks/endpoints")).json()["endpoints"] == []


async def test_a_disabled_endpoint_takes_no_new_job_but_a_replay_is_answered(front: Front) -> None:
    body = {"prompt": "a", "tokens": 5, "webhook_url": URL}
    headers = {"Idempotency-Key": "once"}
    first = await front.client.post("/v1/jobs", json=body, headers=headers)
    (endpoint,) = (await front.client.get("/v1/webhooks/endpoints")).json()["endpoints"]
    await front.client.post(f"/v1/webhooks/endpoints/{endpoint['id']}/disable")
    before = await front.balances()
    assert "disabled" in problem(await front.client.post("/v1/jobs", json=body), 409, "conflict")["detail"]
    assert await front.balances() == before
    again = await front.client.post("/v1/jobs", json=body, headers=headers)
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
    assert again.headers["idempotent-replayed"] == "true"
    problem(await front.client.put("/v1/webhooks/default", json={"url": URL}), 409, "conflict")
    await front.client.post(f"/v1/webhooks/endpoints/{endpoint['id']}/enable")
    await front.submit(webhook_url=URL)


async def test_an_account_has_so_many_endpoints(front: Front) -> None:
    ids = [(await made(front, f"{URL}/{number}"))["id"] for number in range(3)]
    reply = await front.client.post("/v1/jobs", json={"prompt": "a", "tokens": 5, "webhook_url": f"{URL}/3"})
    assert "3 webhook addresses" in problem(reply, 422, "invalid_request")["detail"]
    assert (await made(front, f"{URL}/1?more=1"))["id"] == ids[1]
    await front.client.delete(f"/v1/webhooks/endpoints/{ids[0]}")
    await front.submit(webhook_url=f"{URL}/3")


async def test_many_at_once_make_one_endpoint(front: Front) -> None:
    jobs = await asyncio.gather(*(front.submit(webhook_url=URL) for _ in range(8)))
    assert len({job["id"] for job in jobs}) == 8
    assert len((await front.client.get("/v1/webhooks/endpoints")).json()["endpoints"]) == 1


async def test_a_mistyped_allow_list_stops_the_start(settings: Settings) -> None:
    with pytest.raises(SetupError, match="HERDER_WEBHOOK_ALLOW"):
        async with open_front(settings.model_copy(update={"webhook_allow": ("10.0.0.0/33",)})):
            pass


# --- endpoints -------------------------------------------------------------------------------------------


async def test_the_life_of_an_endpoint(front: Front) -> None:
    reply = await front.client.post("/v1/webhooks/endpoints", json={"url": f"{URL}?a=1"})
    assert reply.status_code == 201
    endpoint = reply.json()
    assert endpoint["id"].startswith("ep_")
    assert endpoint["secret"].startswith("whsec_")
    assert (endpoint["url"], endpoint["disabled"], endpoint["old_secret_until_ms"]) == (URL, False, None)
    path = f"/v1/webhooks/endpoints/{endpoint['id']}"
    assert (await front.client.get(path)).json() == endpoint
    again = await front.client.post("/v1/webhooks/endpoints", json={"url": URL})
    assert (again.status_code, again.json()) == (200, endpoint)

    rotated = (await front.client.post(f"{path}/rotate")).json()
    assert rotated["secret"] != endpoint["secret"]
    assert rotated["old_secret_until_ms"] > endpoint["created_ms"]

    off = (await front.client.post(f"{path}/disable")).json()
    assert (off["disabled"], off["disabled_why"]) == (True, "by its account")
    assert off["disabled_ms"] > 0
    known = await front.client.post("/v1/webhooks/endpoints", json={"url": URL})
    assert (known.status_code, known.json()) == (200, off)
    on = (await front.client.post(f"{path}/enable")).json()
    assert (on["disabled"], on["disabled_ms"], on["disabled_why"]) == (False, None, "")

    gone = await front.client.delete(path)
    assert (gone.status_code, gone.json()["id"]) == (200, endpoint["id"])
    problem(await front.client.get(path), 404, "not_found")
    assert (await made(front))["id"] != endpoint["id"]


async def test_a_list_shows_no_secret(front: Front) -> None:
    for number in range(3):
        await made(front, f"{URL}/{number}")
    listed = (await front.client.get("/v1/webhooks/endpoints")).json()
    assert [endpoint["url"] for endpoint in listed["endpoints"]] == [f"{URL}/{number}" for number in range(3)]
    assert {endpoint["secret"] for endpoint in listed["endpoints"]} == {None}
    assert "whsec_" not in str(listed)


async def test_the_default_address(front: Front) -> None:
    assert (await front.client.get("/v1/webhooks/endpoints")).json()["default_url"] is None
    reply = await front.client.put("/v1/webhooks/default", json={"url": f"{URL}?who=alice"})
    endpoint = reply.json()["endpoint_id"]
    assert reply.json() == {"default_url": f"{URL}?who=alice", "endpoint_id": endpoint}
    assert (await front.client.get(f"/v1/webhooks/endpoints/{endpoint}")).json()["url"] == URL
    assert (await front.client.get("/v1/webhooks/endpoints")).json()["default_url"] == f"{URL}?who=alice"
    none = await front.client.put("/v1/webhooks/default", json={"url": None})
    assert none.json() == {"default_url": None, "endpoint_id": None}
    assert (await front.client.get("/v1/webhooks/endpoints")).json()["default_url"] is None
    problem(await front.client.put("/v1/webhooks/default", json={}), 422, "invalid_request")
    await front.client.put("/v1/webhooks/default", json={"url": URL})
    await front.client.delete(f"/v1/webhooks/endpoints/{endpoint}")
    assert (await front.client.get("/v1/webhooks/endpoints")).json()["default_url"] is None


async def test_another_accounts_things_are_not_there(front: Front) -> None:
    endpoint = (await made(front))["id"]
    (delivery,) = await posted(front, 1)
    bob = await front.account("bob", 100)
    async with bob:
        paths = [
            ("GET", f"/v1/webhooks/endpoints/{endpoint}"),
            ("DELETE", f"/v1/webhooks/endpoints/{endpoint}"),
            *(
                ("POST", f"/v1/webhooks/endpoints/{endpoint}/{verb}")
                for verb in ("rotate", "enable", "disable")
            ),
            ("GET", f"/v1/webhooks/deliveries/{delivery}"),
            ("POST", f"/v1/webhooks/deliveries/{delivery}/redeliver"),
            ("GET", "/v1/webhooks/endpoints/ep_1"),
            ("GET", "/v1/webhooks/endpoints/x%0a"),
            ("GET", "/v1/webhooks/deliveries/msg_%C3%A9"),
        ]
        for method, path in paths:
            problem(await bob.request(method, path), 404, "not_found")
        assert (await bob.get("/v1/webhooks/endpoints")).json()["endpoints"] == []
        assert (await bob.get("/v1/webhooks/deliveries")).json() == {"deliveries": [], "next": None}
    assert (await front.client.get(f"/v1/webhooks/endpoints/{endpoint}")).json()["disabled"] is False
    problem(await front.anonymous.get("/v1/webhooks/endpoints"), 401, "missing_key")


# --- deliveries ------------------------------------------------------------------------------------------


async def pages(client: httpx.AsyncClient, **query: Any) -> list[str]:
    """All ids, page for page."""
    ids: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        reply = (await client.get("/v1/webhooks/deliveries", params={**query, **cursor})).json()
        assert len(reply["deliveries"]) <= query.get("limit", 20)
        ids += [delivery["id"] for delivery in reply["deliveries"]]
        if reply["next"] is None:
            return ids
        cursor = {"cursor": reply["next"]}


@pytest.mark.parametrize("limit", [1, 3, 7, 12, 100])
async def test_deliveries_come_page_for_page_each_once(front: Front, limit: int) -> None:
    ids = await posted(front, 12)
    await front.herd.ledger.create_account("bob")
    await posted(front, 2, "bob")
    assert await pages(front.client, limit=limit) == ids[::-1]
    await end(front, ids[4], DeliveryStatus.DEAD)
    await end(front, ids[9], DeliveryStatus.DEAD)
    await end(front, ids[2], DeliveryStatus.DELIVERED)
    assert await pages(front.client, limit=limit, status="dead") == [ids[9], ids[4]]
    assert await pages(front.client, limit=limit, status="delivered") == [ids[2]]
    assert len(await pages(front.client, limit=limit, status="pending")) == 9
    assert len(await pages(front.client, limit=limit)) == 12


async def test_a_delivery_and_its_redelivery(front: Front) -> None:
    (delivery,) = await posted(front, 1)
    path = f"/v1/webhooks/deliveries/{delivery}"
    shown = (await front.client.get(path)).json()
    assert (shown["status"], shown["attempts"], shown["body"]) == ("pending", 0, None)
    assert shown["next_ms"] == shown["created_ms"]
    assert (shown["type"], shown["subject"], shown["url"]) == ("job.succeeded", "job_1", URL)
    assert (shown["last_ms"], shown["last_status"], shown["last_error"], shown["ended_ms"]) == (None,) * 4
    (listed,) = (await front.client.get("/v1/webhooks/deliveries")).json()["deliveries"]
    assert listed == shown
    problem(await front.client.post(f"{path}/redeliver"), 409, "conflict")
    await end(front, delivery, DeliveryStatus.DEAD)
    dead = (await front.client.get(path)).json()
    assert (dead["status"], dead["attempts"], dead["last_status"], dead["next_ms"]) == ("dead", 1, 500, None)
    assert dead["body"] == '{"a":1}'
    assert (await front.client.get("/v1/webhooks/deliveries")).json()["deliveries"] == [dead | {"body": None}]
    endpoint = f"/v1/webhooks/endpoints/{dead['endpoint_id']}"
    await front.client.post(f"{endpoint}/disable")
    assert "enable it" in problem(await front.client.post(f"{path}/redeliver"), 409, "conflict")["detail"]
    await front.client.post(f"{endpoint}/enable")
    again = await front.client.post(f"{path}/redeliver")
    assert (again.status_code, again.json()["status"]) == (202, "pending")
    assert again.json()["ended_ms"] is None
    await end(front, delivery, DeliveryStatus.DELIVERED)
    await front.client.delete(endpoint)
    assert "deleted" in problem(await front.client.post(f"{path}/redeliver"), 409, "conflict")["detail"]


@pytest.mark.parametrize("query", ["status=lost", "limit=0", "limit=101", "cursor=x", "cursor=1-2-3"])
async def test_a_list_that_cannot_be(front: Front, query: str) -> None:
    problem(await front.client.get(f"/v1/webhooks/deliveries?{query}"), 422, "invalid_request")
