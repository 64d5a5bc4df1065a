"""A job's events over HTTP: each kind, the replay, resuming, what is refused, and submitting with a stream."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from herder.api import lines
from herder.app import create_app
from herder.doorbell import Doorbell, Ear
from herder.protocol import Outcome
from herder.settings import Settings
from tests.integration.api import WORKER, Front, problem
from tests.integration.streaming import Event, events_of, text_of

WORDS = ["Bl", "ue\n", "\u2028é", "\r\nid: 1-1\n\n", "."]


async def events(front: Front, job: str, after: str | None = None) -> list[Event]:
    """All events of an ended job, or all that come until it has ended."""
    headers = {} if after is None else {"Last-Event-ID": after}
    reply = await front.client.get(f"/v1/jobs/{job}/events", headers=headers)
    assert (reply.status_code, reply.headers["content-type"]) == (200, "text/event-stream; charset=utf-8"), (
        reply.text
    )
    assert reply.headers["cache-control"] == "no-store"
    assert reply.text.startswith("retry: 1000\n\n")
    assert reply.text.isascii()
    return events_of(reply.text)


async def log_ids(front: Front, job: str) -> list[str]:
    return [event.event_id for event in await front.herd.broker.events(job)]


async def restarted(front: Front) -> str:
    """An ended job of which one worker died."""
    job: str = (await front.submit())["id"]
    first = await front.lease()
    await front.say(first, "lost")
    await front.herd.broker.release(WORKER, [(job, first.attempt)], died=True)
    second = await front.lease()
    for i, word in enumerate(WORDS):
        await front.say(second, word, i)
    await front.settle(second, "".join(WORDS), len(WORDS))
    return job


async def test_every_event_of_a_job_that_was_restarted(front: Front) -> None:
    job = await restarted(front)
    found = await events(front, job)
    assert [event.kind for event in found] == [
        "queued", "started", "tokens", "restarted", *["tokens"] * len(WORDS), "done",
    ]  # fmt: skip
    assert [event.event_id for event in found] == await log_ids(front, job)
    assert found[0].shown == {"job_id": job, "position": 0, "eta_ms": None}
    assert found[1].shown == {"attempt": 1}
    assert found[2].shown == {"attempt": 1, "index": 0, "count": 1, "text": "lost"}
    assert found[3].shown == {"attempt": 2}
    assert [e.shown["index"] for e in found[4:-1]] == list(range(len(WORDS)))
    assert found[-1].shown == (await front.client.get(f"/v1/jobs/{job}")).json()
    assert text_of(found) == "".join(WORDS) == found[-1].shown["result"]["text"]


@pytest.mark.parametrize(
    "outcome", ["succeeded", "failed", "cancelled while queued", "cancelled while running"]
)
async def test_the_last_event_is_the_job_as_it_is_read(front: Front, outcome: str) -> None:
    job = (await front.submit())["id"]
    lease = None if outcome == "cancelled while queued" else await front.lease()
    if outcome.startswith("cancelled"):
        await front.client.delete(f"/v1/jobs/{job}")
    if lease is not None:
        end = {"s": Outcome.SUCCEEDED, "f": Outcome.FAILED, "c": Outcome.CANCELLED}[outcome[0]]
        await front.settle(lease, "bl", 2, end)
    last = (await events(front, job))[-1]
    assert last.kind == ("error" if outcome == "failed" else "done")
    assert last.shown == (await front.client.get(f"/v1/jobs/{job}")).json()
    assert last.shown["status"] == outcome.split(maxsplit=1)[0]
    assert last.shown["captured"] + last.shown["refunded"] == 30
    if outcome == "failed":
        assert last.shown["error"] == {"code": "engine_error", "message": "it broke"}


async def test_resuming_at_every_id_gives_exactly_the_rest(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("herder.api.stream.PAGE", 2)
    job = await restarted(front)
    whole = await events(front, job)
    assert await events(front, job, "0-0") == whole
    for i, event in enumerate(whole[:-1]):
        assert await events(front, job, event.event_id) == whole[i + 1 :]
    done = await front.client.get(
        f"/v1/jobs/{job}/events", headers={"Last-Event-ID": str(whole[-1].event_id)}
    )
    assert (done.status_code, done.content) == (204, b"")


async def test_resuming_at_another_herder(front: Front, settings: Settings) -> None:
    job = await restarted(front)
    whole = await events(front, job)
    other = create_app(settings)
    async with other.router.lifespan_context(other):
        client = httpx.AsyncClient(
            transport=httpx.ASGITransport(other), base_url="http://other", headers=front.client.headers
        )
        async with client:
            headers = {"Last-Event-ID": str(whole[3].event_id)}
            reply = await client.get(f"/v1/jobs/{job}/events", headers=headers)
    assert events_of(reply.text) == whole[4:]


async def test_resuming_while_it_goes_on(front: Front) -> None:
    """Also with an id of the last event: it waits for the next."""
    job = (await front.submit())["id"]
    lease = await front.lease()
    await front.say(lease, "bl")
    seen = await log_ids(front, job)
    reading = asyncio.create_task(events(front, job, seen[-1]))
    await until_streams(front, 1)
    await front.say(lease, "ue", 1)
    await front.settle(lease, "blue", 2)
    assert [event.event_id for event in await reading] == (await log_ids(front, job))[len(seen) :]
    await until_streams(front, 0)


async def until_streams(front: Front, count: int) -> None:
    while front.herd.metrics.registry.get_sample_value("herder_streams") != count:
        await front.herd.broker.ping()


@pytest.mark.parametrize("bad", ["", "x", "1", "1-", "-1", "1-1-1", "1 - 1", "$", "99999999999999999999-0"])
async def test_what_is_no_id_is_refused(front: Front, bad: str) -> None:
    job = await restarted(front)
    reply = await front.client.get(f"/v1/jobs/{job}/events", headers={"Last-Event-ID": bad})
    problem(reply, 422, "invalid_request")


async def test_whose_job_it_is(front: Front) -> None:
    job = (await front.submit())["id"]
    bob = await front.account("bob", 100)
    async with bob:
        problem(await bob.get(f"/v1/jobs/{job}/events"), 404, "not_found")
    problem(await front.client.get("/v1/jobs/job_0000000000000000000000/events"), 404, "not_found")
    problem(await front.client.get("/v1/jobs/no-id/events"), 404, "not_found")
    problem(await front.anonymous.get(f"/v1/jobs/{job}/events"), 401, "missing_key")


async def test_an_id_of_a_time_to_come_ends_with_the_job(front: Front) -> None:
    job = (await front.submit())["id"]
    lease = await front.lease()
    reading = asyncio.create_task(events(front, job, "9999999999999-0"))
    await until_streams(front, 1)
    while not front.herd.bell._channels:
        await front.herd.broker.ping()
    await front.settle(lease, "blue", 1)
    assert await asyncio.wait_for(reading, 10) == []


async def test_an_end_that_rang_before_anybody_listened_is_found(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, lease, added = (await front.submit())["id"], await front.lease(), Doorbell.add

    async def late(self: Doorbell, ear: Ear) -> None:
        await front.settle(lease, "blue", 1)
        await added(self, ear)

    monkeypatch.setattr(Doorbell, "add", late)
    assert await asyncio.wait_for(events(front, job, "9999999999999-0"), 10) == []


async def test_a_place_in_line_that_changes_is_told_without_an_id(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "LOOK_S", 0.01)
    ahead = [(await front.submit())["id"] for _ in range(2)]
    job = (await front.submit())["id"]
    looked = 0

    async def look(self: lines.Lines, some: dict[Any, Any]) -> None:
        nonlocal looked
        await whole(self, some)
        looked += 1

    async def next_look() -> None:
        seen = looked
        while looked < seen + 2:
            await front.herd.broker.ping()

    whole = lines.Lines._look
    monkeypatch.setattr(lines.Lines, "_look", look)
    reading = [asyncio.create_task(events(front, job)) for _ in range(2)]
    places = front.herd.streams._around.lines._places
    while [place.told for place in places.values()] != [2, 2]:
        await front.herd.broker.ping()
    for _ in ahead:
        await front.answer()  # the queue's speed is measured with the first
        await next_look()
    assert (await front.lease()).job_id == job
    while places:  # nobody waits in line any more
        await front.herd.broker.ping()
    await front.client.delete(f"/v1/jobs/{job}")
    await front.herd.broker.release(WORKER, None, died=False)
    for found in await asyncio.gather(*reading):
        assert [(e.kind, e.shown.get("position"), bool(e.event_id)) for e in found] == [
            ("queued", 2, True), ("queued", 1, False), ("queued", 0, False),
            ("started", None, True), ("done", None, True),
        ]  # fmt: skip
    seen = looked
    for _ in range(100):
        await front.herd.broker.ping()
    assert looked <= seen + 1, "nobody waits in line, so nobody looks"


async def test_whoever_resumes_in_line_is_told_where_it_stands(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "LOOK_S", 0.01)
    job = (await front.submit())["id"]
    reading = asyncio.create_task(events(front, job, (await log_ids(front, job))[-1]))
    await until_streams(front, 1)
    places = front.herd.streams._around.lines._places
    while [place.told for place in places.values()] != [0]:
        await front.herd.broker.ping()
    await front.client.delete(f"/v1/jobs/{job}")
    found = await reading
    assert [(e.kind, e.shown.get("position"), bool(e.event_id)) for e in found] == [
        ("queued", 0, False),
        ("done", None, True),
    ]


async def test_the_eta_is_what_the_herd_takes_for_those_ahead(front: Front) -> None:
    ended = await restarted(front)
    first, second = (await front.submit())["id"], (await front.submit())["id"]
    redis, measured = front.herd.broker.redis, {"us_per_token": 10_000, "mean_tokens": 8}
    await front.herd.broker.fetch(redis.hset(front.herd.broker.keys("model", "toy"), mapping=measured))
    front.herd.market.forget()
    reading = asyncio.create_task(events(front, second))
    await until_streams(front, 1)
    (stream,) = front.herd.streams._open
    while stream._behind:
        await front.herd.broker.ping()
    for job in (second, first):
        await front.client.delete(f"/v1/jobs/{job}")
    assert (await reading)[0].shown["eta_ms"] == 80
    assert (await events(front, ended))[0].shown["eta_ms"] == 0, "it has long begun"


# --- submit and stream ---------------------------------------------------------------------------------------


async def test_submit_and_stream_in_one_call(front: Front) -> None:
    body = {"prompt": "hello", "tokens": 20}
    headers = {"Idempotency-Key": "k"}
    posting = asyncio.create_task(front.client.post("/v1/jobs?stream=true", json=body, headers=headers))
    await until_streams(front, 1)
    await front.answer()
    reply = await posting
    job = reply.headers["location"].rpartition("/")[2]
    assert (reply.status_code, reply.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert "idempotent-replayed" not in reply.headers
    assert [event.event_id for event in events_of(reply.text)] == await log_ids(front, job)
    again = await front.client.post("/v1/jobs?stream=true", json=body, headers=headers)
    assert (again.headers["idempotent-replayed"], again.headers["location"]) == (
        "true",
        reply.headers["location"],
    )
    assert again.text == reply.text
    assert await front.balances() == (1_000 - 11, 0)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"prompt": "a", "tokens": 2_000}, 422, "context_exceeded"),
        ({"prompt": "a", "tokens": 400, "multiplier": 90}, 402, "insufficient_funds"),
        ({"prompt": "a", "tokens": 5, "model": "nobody"}, 404, "unknown_model"),
        ({"prompt": "a", "tokens": "5"}, 422, "invalid_request"),
    ],
)
async def test_a_refusal_is_the_same_document_with_a_stream(
    front: Front, body: dict[str, Any], status: int, code: str
) -> None:
    plain = problem(await front.client.post("/v1/jobs", json=body), status, code)
    streamed = problem(await front.client.post("/v1/jobs?stream=true", json=body), status, code)
    assert {**plain, "request_id": ""} == {**streamed, "request_id": ""}
    assert await front.balances() == (1_000, 0)
    assert front.herd.metrics.registry.get_sample_value("herder_streams") == 0


async def test_cancel_on_disconnect_without_a_stream_is_refused(front: Front) -> None:
    reply = await front.client.post("/v1/jobs?cancel_on_disconnect=true", json={"prompt": "a", "tokens": 5})
    problem(reply, 422, "invalid_request")
    assert await front.balances() == (1_000, 0)
