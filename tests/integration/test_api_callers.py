"""Who is calling: every way to send a key, the two rate limits, trusted proxies, CORS."""

from __future__ import annotations

import asyncio
import base64

import httpx
import pytest

from herder.apikeys import new_key
from herder.errors import SetupError
from herder.records import Role
from herder.settings import Settings
from tests.integration.api import Front, open_front, problem


async def test_every_way_to_send_a_key(front: Front) -> None:
    _, key = await front.herd.ledger.create_key("alice", Role.CLIENT, "")
    encoded = base64.b64encode(f"anyone:{key}".encode()).decode()
    alone = base64.b64encode(f"{key}:".encode()).decode()
    for headers in (
        {"Authorization": f"Bearer {key}"}, {"Authorization": f"bearer  {key}"}, {"X-API-Key": key},
        {"Authorization": f"Basic {key}"}, {"Authorization": f"Basic {encoded}"}, {"Authorization": f"Basic {alone}"},
        {"Authorization": "Other x", "X-API-Key": key},
    ):  # fmt: skip
        reply = await front.anonymous.get("/v1/account", headers=headers)
        assert (reply.status_code, reply.json().get("id")) == (200, "alice"), headers
    for headers in (
        {"Authorization": "Basic %%%"},
        {"Authorization": f"Basic {encoded[:-8]}"},
        {"X-API-Key": "hk_"},
    ):
        problem(await front.anonymous.get("/v1/account", headers=headers), 401, "invalid_key")
    for headers in ({}, {"Authorization": "Bearer"}, {"Authorization": "Bearer "}, {"X-API-Key": " "}):
        problem(await front.anonymous.get("/v1/account", headers=headers), 401, "missing_key")


async def test_a_keys_rate_limit(settings: Settings) -> None:
    async with open_front(settings.model_copy(update={"rate_limit_per_minute": 5})) as front:
        replies = [await front.client.get("/v1/account") for _ in range(6)]
        assert [reply.status_code for reply in replies] == [200] * 5 + [429]
        assert 1 <= int(replies[-1].headers["retry-after"]) <= 12
        assert problem(replies[-1], 429, "rate_limited")["retry_after"] <= 12
        _, other = await front.herd.ledger.create_key("alice", Role.CLIENT, "")
        assert (await front.with_key(other).get("/v1/account")).status_code == 200


async def test_failed_authentication_is_limited_by_address(settings: Settings) -> None:
    async with open_front(settings.model_copy(update={"auth_failures_per_minute": 3})) as front:
        guesses = [await front.with_key(new_key()).get("/v1/account") for _ in range(5)]
        assert [reply.status_code for reply in guesses] == [401, 401, 401, 429, 429]
        problem(guesses[-1], 429, "rate_limited")
        # Whoever shares the address and has a good key is not held up by it.
        assert (await front.client.get("/v1/account")).status_code == 200
        assert (await front.anonymous.get("/healthz")).status_code == 200
        front.herd.barred.clear()
        problem(await front.with_key(new_key()).get("/v1/account"), 429, "rate_limited")


async def test_a_forwarded_address_counts_only_from_a_listed_proxy(settings: Settings) -> None:
    tight = {"auth_failures_per_minute": 1}
    proxied = settings.model_copy(update={**tight, "trusted_proxies": ("127.0.0.0/8", "10.0.0.1")})
    async with open_front(proxied) as front:
        for chain, last in (
            ("198.51.100.1", 401),
            ("198.51.100.2", 401),
            ("6.6.6.6, 198.51.100.1, 10.0.0.1", 429),
        ):
            reply = await front.with_key(new_key()).get("/v1/account", headers={"X-Forwarded-For": chain})
            assert reply.status_code == last, chain
    plain = settings.model_copy(update={**tight, "redis_prefix": settings.redis_prefix + "b"})
    async with open_front(plain) as front:
        for chain, last in (("198.51.100.1", 401), ("198.51.100.2", 429)):
            reply = await front.with_key(new_key()).get("/v1/account", headers={"X-Forwarded-For": chain})
            assert reply.status_code == last, chain


async def test_proxies_that_are_no_addresses(settings: Settings) -> None:
    with pytest.raises(SetupError, match="HERDER_TRUSTED_PROXIES"):
        async with open_front(settings.model_copy(update={"trusted_proxies": ("proxy.local",)})):
            pass


async def test_cors_only_for_listed_origins(settings: Settings) -> None:
    async with open_front(settings.model_copy(update={"cors_origins": ("https://a.example",)})) as front:
        ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        back = {
            "Access-Control-Request-Method": "GET",
            "Access-Control-Request-Headers": "authorization,last-event-id",
        }
        allowed = await front.anonymous.options("/v1/jobs", headers={"Origin": "https://a.example", **ask})
        assert allowed.headers["access-control-allow-origin"] == "https://a.example"
        stream = await front.anonymous.options(
            "/v1/jobs/job_x/events", headers={"Origin": "https://a.example", **back}
        )
        assert stream.status_code == 200, "a stream that was cut off is taken up again with Last-Event-ID"
        other = await front.anonymous.options("/v1/jobs", headers={"Origin": "https://b.example", **ask})
        assert "access-control-allow-origin" not in other.headers
        refused: httpx.Response = await front.anonymous.get(
            "/v1/jobs", headers={"Origin": "https://a.example"}
        )
        problem(refused, 401, "missing_key")
        assert refused.headers["access-control-allow-origin"] == "https://a.example"


async def test_no_cors_where_no_origin_is_listed(front: Front) -> None:
    reply = await front.anonymous.get("/healthz", headers={"Origin": "https://a.example"})
    assert "access-control-allow-origin" not in reply.headers


async def test_a_rush_on_one_key_takes_one_write_a_second_of_its_limit(front: Front) -> None:
    taken = []
    throttle = front.herd.ledger.throttle

    async def counted(subject: str, per_minute: int) -> int:
        taken.append((subject, per_minute))
        return await throttle(subject, per_minute)

    front.herd.ledger.throttle = counted  # type: ignore[method-assign]
    replies = await asyncio.gather(*(front.client.get("/v1/account") for _ in range(150)))
    assert {reply.status_code for reply in replies} == {200}
    assert [per_minute for _, per_minute in taken] == [60, 60], "6,000 a minute, in blocks of 100"
