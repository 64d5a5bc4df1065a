"""A plain submission goes past FastAPI's machinery: it is answered, or refused, as the route itself would."""

from __future__ import annotations

from typing import Any

import pytest

from herder.api import express
from tests.integration.api import Front

GOOD: dict[str, Any] = {"prompt": "Name a river.", "tokens": 20}
OTHERS = {"id", "request_id", "submitted_ms", "position", "balance"}

BODIES: list[dict[str, Any]] = [
    GOOD,
    {**GOOD, "metadata": {"città": "Zürich ☃", "b": '"'}, "n": 2, "multiplier": 1.5, "seed": 7},
    {**GOOD, "output_type": "int"},
    {**GOOD, "fee": 1},
    {**GOOD, "max_fee": 1},
    {**GOOD, "tokens": 900},
    {**GOOD, "tokens": 10**9},
    {**GOOD, "model": "nobody's"},
    {**GOOD, "max_tokens": 5},
    {"tokens": 20},
    {},
]
HEADERS: list[dict[str, str]] = [
    {"Authorization": "Bearer hk_none"},
    {"Authorization": ""},
    {"Content-Length": "99999999"},
    {"Idempotency-Key": "k" * 256},
    {"Idempotency-Key": ""},
    {"Idempotency-Key": "a b"},
    {"Idempotency-Key": "a-b"},
    {"X-Request-Id": "mine"},
]


async def both(front: Front, monkeypatch: pytest.MonkeyPatch, **sent: Any) -> list[tuple[Any, ...]]:
    """Status, headers and body, less what differs between any two; first past FastAPI, and then not."""
    found = []
    for path in (express.PATH, "/nowhere"):
        monkeypatch.setattr(express, "PATH", path)
        reply = await front.client.post("/v1/jobs", **sent)
        body = {name: value for name, value in reply.json().items() if name not in OTHERS}
        names = sorted(set(reply.headers) - {"idempotent-replayed"})
        found.append((reply.status_code, names, reply.headers["content-type"], list(body), body))
    return found


@pytest.mark.parametrize("body", BODIES, ids=lambda body: " ".join(body) or "nothing")
async def test_a_body_is_answered_alike(
    front: Front, monkeypatch: pytest.MonkeyPatch, body: dict[str, Any]
) -> None:
    """Sold, or refused with the same words."""
    short, long = await both(front, monkeypatch, json=body)
    assert short == long


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b'{"a":1,"a":1}', b"[" * 10_000])
async def test_what_is_no_body_is_answered_alike(
    front: Front, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    short, long = await both(front, monkeypatch, content=content)
    assert short == long
    assert short[0] in (400, 422)


@pytest.mark.parametrize("headers", HEADERS, ids=str)
async def test_a_header_is_answered_alike(
    front: Front, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    short, long = await both(front, monkeypatch, json=GOOD, headers=headers)
    assert short == long


async def test_the_answer_is_what_the_broker_keeps(front: Front) -> None:
    """Nothing is read back for it, so it must be what would be read."""
    account = await front.herd.ledger.account("alice")
    assert account is not None
    body = {
        **GOOD,
        "metadata": {"a": "b"},
        "n": 2,
        "multiplier": 2,
        "webhook_url": "https://example.com/hook",
    }
    for position in (0, 1):
        told = await front.submit(**body)
        left = account.available - (position + 1) * told["fee"]
        assert (told["position"], told.pop("balance"), (await front.balances())[0]) == (position, left, left)
        assert told == (await front.client.get(f"/v1/jobs/{told['id']}")).json()


async def test_it_is_counted_under_its_route(front: Front) -> None:
    """As any other request, sold or refused."""
    await front.submit()
    await front.client.post("/v1/jobs", json={})
    text = front.herd.metrics.scrape([]).decode()
    for status in (202, 422):
        assert f'herder_requests_total{{method="POST",route="/v1/jobs",status="{status}"}} 1.0' in text
