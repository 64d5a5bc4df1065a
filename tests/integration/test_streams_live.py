"""Event streams over sockets: what a reader gets however it is cut, what it costs others, and what a stop does."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from contextlib import AsyncExitStack

import httpx
import pytest

from herder.broker import Broker
from herder.lifecycle import Status
from herder.protocol import Accepted, Ask, JobRecord
from herder.settings import Settings
from tests.integration.api import problem
from tests.integration.streaming import CANCELS, Hand, serving, text_of

WORDS = [f"{i}\u2028{'é' * (i % 3)}\r\n:" for i in range(40)]


async def test_tokens_come_as_they_are_made_and_a_replay_is_the_same(
    settings: Settings, broker: Broker
) -> None:
    hand = Hand(broker)
    async with serving(settings) as herder:
        job = await herder.submit()
        async with herder.reading(job) as live:
            await live.until_kind("queued")
            lease = await hand.lease()
            await live.until_kind("started")
            for i, word in enumerate(WORDS):
                await hand.say(lease, i, word)
                await live.until(lambda i=i: sum(e.kind == "tokens" for e in live.events) == i + 1)  # type: ignore[misc]
            await hand.settle(lease, "".join(WORDS), len(WORDS))
            events = await live.rest()
        assert text_of(events) == "".join(WORDS) == events[-1].shown["result"]["text"]
        assert [event.event_id for event in events] == await hand.ids(job)
        async with herder.reading(job) as again:
            await again.rest()
        assert again.text == live.text


async def test_cut_after_every_event_at_two_herders_in_turn(settings: Settings, broker: Broker) -> None:
    hand = Hand(broker)
    async with serving(settings) as one, serving(settings, key=one.key) as two:
        job = await one.submit()
        events, after = [], None
        lease = await hand.lease()
        for turn in range(len(WORDS)):
            herder = (one, two)[turn % 2]
            async with herder.reading(job, after) as reader:
                await hand.say(lease, turn, WORDS[turn])
                await reader.until(lambda: reader.events)
                events += reader.events
                after = events[-1].event_id
        await hand.settle(lease, "".join(WORDS), len(WORDS))
        async with one.reading(job, after) as reader:
            events += await reader.rest()
    assert [event.event_id for event in events] == await hand.ids(job)
    assert text_of(events) == "".join(WORDS)


async def test_silence_is_filled_with_comments(settings: Settings, broker: Broker) -> None:
    hand = Hand(broker)
    async with serving(settings.model_copy(update={"stream_ping_ms": 100})) as herder:
        job = await herder.submit()
        async with herder.reading(job) as reader:
            await reader.until(lambda: reader.text.count(": ping\n\n") == 3)
            lease = await hand.lease()
            await hand.settle(lease, "blue")
            kinds = [event.kind for event in await reader.rest()]
    assert kinds == ["queued", "started", "done"]


async def test_a_reader_that_takes_nothing_is_dropped_and_can_resume(
    settings: Settings, broker: Broker
) -> None:
    """Also with cancel_on_disconnect: it is the herder that went away, not the reader."""
    hand, said = Hand(broker), 30
    async with serving(settings.model_copy(update={"stream_send_ms": 1_500})) as herder:
        job, other = await herder.submit(), await herder.submit()
        lease = await hand.lease()
        async with (
            herder.reading(other) as bystander,
            herder.lazy(job, query=CANCELS) as reader,
        ):
            await reader.until_kind("started")
            for i in range(said):
                await hand.say(lease, i, "x" * 20_000)
            await herder.until(lambda: herder.sample("herder_streams_dropped_total"))
            await herder.until_streams(1)
            with pytest.raises(httpx.TransportError):
                await reader.rest()
            await bystander.until_kind("queued")
        last = reader.events[-1].event_id
        assert (await _record(broker, job)).cancel_requested is False
        await hand.settle(lease, "x" * 20_000 * said, said)
        async with herder.reading(job, last) as resumed:
            events = [*reader.events, *(await resumed.rest())]
        assert herder.sample("herder_streams_dropped_total") == 1
    assert [event.event_id for event in events] == await hand.ids(job)
    assert text_of(events) == "x" * 20_000 * said


async def _record(broker: Broker, job: str) -> JobRecord:
    record = await broker.job(job)
    assert record is not None
    return record


@pytest.mark.parametrize("leased", [False, True])
@pytest.mark.parametrize("how", ["GET", "POST"])
@pytest.mark.parametrize("cancels", [False, True])
async def test_going_away_cancels_only_what_asked_for_it(
    settings: Settings, broker: Broker, how: str, cancels: bool, leased: bool
) -> None:
    hand = Hand(broker)
    async with serving(settings) as herder, AsyncExitStack() as stack:
        query = CANCELS if cancels else {}
        if how == "GET":
            job = await herder.submit()
            reader = await stack.enter_async_context(herder.reading(job, query=query))
            await reader.until_kind("queued")
        else:
            client = await stack.enter_async_context(herder.client())
            body = {"prompt": "hello", "tokens": 20}
            post = client.stream("POST", "/v1/jobs", params={"stream": "true", **query}, json=body)
            job = (await stack.enter_async_context(post)).headers["location"].rpartition("/")[2]
        lease = await hand.lease() if leased else None
        await stack.aclose()
        await herder.until_streams(0)
        if not cancels:
            record = await _record(broker, job)
            assert (record.status, record.cancel_requested) == (
                Status.RUNNING if leased else Status.QUEUED,
                False,
            )
        else:
            async with asyncio.timeout(10):
                while not (
                    (found := await _record(broker, job)).cancel_requested or found.status is Status.CANCELLED
                ):
                    pass
        assert lease is None or lease.job_id == job


@pytest.mark.parametrize("query", [{}, CANCELS])
async def test_a_caller_that_is_gone_before_its_stream_begins(
    settings: Settings, broker: Broker, monkeypatch: pytest.MonkeyPatch, query: dict[str, str]
) -> None:
    """Its connection can no longer be set up; the job is sold all the same, and no room stays taken."""
    async with serving(settings.model_copy(update={"streams_max": 1})) as herder:
        gone, submit = asyncio.Event(), herder.herd.broker.submit

        async def late(ask: Ask) -> Accepted:
            await gone.wait()
            return await submit(ask)

        monkeypatch.setattr(herder.herd.broker, "submit", late)
        async with herder.client() as client:
            body, params = {"prompt": "hello", "tokens": 20}, {"stream": "true", **query}
            post = asyncio.create_task(client.post("/v1/jobs", params=params, json=body))
            await herder.until(lambda: herder.herd.streams._reserved)
            post.cancel()
            await asyncio.gather(post, return_exceptions=True)
        await herder.until(lambda: not herder.running.server_state.connections)
        gone.set()
        await herder.until(lambda: not herder.herd.streams._reserved)
        (record,), _ = await broker.jobs("alice", before=None, limit=2)
        async with herder.reading(record.job_id) as reader:
            await reader.until_kind("done" if query else "queued")


async def test_a_stop_ends_streams_at_once_and_cancels_nothing(settings: Settings, broker: Broker) -> None:
    """Also where a reader takes nothing, whose connection would otherwise be waited for."""
    hand = Hand(broker)
    async with AsyncExitStack() as readers:
        async with serving(settings) as herder:
            job, full = await herder.submit(), await herder.submit()
            client = await readers.enter_async_context(herder.client())
            reader = await readers.enter_async_context(herder.reading(job, client=client, query=CANCELS))
            await reader.until_kind("queued")
            await hand.lease()
            lease = await hand.lease()
            assert lease.job_id == full
            await readers.enter_async_context(herder.lazy(full, query=CANCELS))
            for i in range(100):
                await hand.say(lease, i, "x" * 20_000)
            blocked = herder.herd.streams._open
            await herder.until(lambda: any(s._saying_since is not None for s in blocked))
            began = time.monotonic()
        assert time.monotonic() - began < 3
        assert [event.kind for event in await reader.rest()] == ["queued", "started"]
    for name in (job, full):
        record = await _record(broker, name)
        assert (record.status, record.cancel_requested) == (Status.RUNNING, False)


async def test_no_more_streams_than_there_is_room_for(settings: Settings, broker: Broker) -> None:
    async with serving(settings.model_copy(update={"streams_max": 2})) as herder, herder.client() as client:
        job = await herder.submit()
        before = (await client.get("/v1/account")).json()
        async with herder.reading(job), herder.reading(job):
            problem(await client.get(f"/v1/jobs/{job}/events"), 503, "overloaded")
            body = {"prompt": "hello", "tokens": 20}
            problem(await client.post("/v1/jobs?stream=true", json=body), 503, "overloaded")
            assert (await client.get("/v1/account")).json() == before
            assert herder.sample("herder_streams") == 2
        await herder.until_streams(0)
        async with herder.reading(job) as reader:
            await reader.until_kind("queued")


async def test_two_hundred_streams_hold_few_connections(settings: Settings, broker: Broker) -> None:
    hand = Hand(broker)
    before = len(await broker.redis.client_list())
    settings = settings.model_copy(update={"rate_limit_per_minute": 10**6})
    async with serving(settings) as herder, AsyncExitStack() as stack:
        jobs = [await herder.submit() for _ in range(200)]
        clients = [
            await stack.enter_async_context(herder.client()) for _ in range(20)
        ]  # each is slow with many
        opened = [
            stack.enter_async_context(herder.reading(job, client=clients[i % 20]))
            for i, job in enumerate(jobs)
        ]
        readers = await asyncio.gather(*opened)
        assert herder.sample("herder_streams") == 200
        leases = [await hand.lease() for _ in jobs]
        await asyncio.gather(*(reader.until_kind("started") for reader in readers))
        assert len(await broker.redis.client_list()) - before <= 10
        for lease in leases:
            await hand.settle(lease, "blue")
        assert {(await reader.rest())[-1].kind for reader in readers} == {"done"}


def test_a_server_takes_as_many_descriptors_as_it_may() -> None:
    """A stream takes one, and 1,024 is a usual soft limit."""
    script = (
        "import resource as r; from herder import serve\n"
        "r.setrlimit(r.RLIMIT_NOFILE, (128, r.getrlimit(r.RLIMIT_NOFILE)[1])); serve._many_connections()\n"
        "assert len(set(r.getrlimit(r.RLIMIT_NOFILE))) == 1"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
