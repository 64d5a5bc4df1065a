"""The client's streams against a real herder: whole, cut anywhere, resumed, restarted, failed, cancelled, left."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import httpx
import pytest

import llama_herder
from herder.broker import Broker
from herder.clock import SimulatedClock
from herder.protocol import Lease, Outcome
from herder.settings import Settings
from llama_herder import (
    AsyncEventStream,
    AsyncHerder,
    Done,
    Event,
    Herder,
    Queued,
    Restarted,
    Started,
    Tokens,
    _async,
)
from tests.integration.broken_lines import Cutting, Lossy
from tests.integration.client_herd import FUNDS, Herd, running


async def all_of(stream: AsyncEventStream) -> list[Event]:
    return [event async for event in stream]


async def answer(herd: Herd, count: int = 4, outcome: Outcome = Outcome.SUCCEEDED) -> Lease:
    """Play the worker: one token at a time, then the end."""
    lease = await herd.lease()
    for index in range(count):
        assert await herd.ring.say(lease, "x", index) == "OK"
    await herd.ring.settle(lease, count, outcome)
    return lease


def judge(events: list[Event], text: str = "xxxx") -> None:
    """In order, once each, whole."""
    ids = [tuple(map(int, event.id.split("-"))) for event in events if event.id]
    assert ids == sorted(set(ids))
    assert isinstance(events[0], Queued)
    assert [event for event in events if isinstance(event, Started)] == [Started(1, id=events[1].id)]
    tokens = [event for event in events if isinstance(event, Tokens)]
    assert "".join(event.text for event in tokens) == text
    assert [event.index for event in tokens] == [
        sum(e.count for e in tokens[:at]) for at in range(len(tokens))
    ]
    assert isinstance(events[-1], Done)
    assert (events[-1].job.status, events[-1].job.text) == ("succeeded", text)


async def test_a_stream_from_the_line_to_the_end(herd: Herd, herder: AsyncHerder) -> None:
    events, _ = await asyncio.gather(all_of(herder.stream("hi", 40, multiplier=2)), answer(herd))
    judge(events)
    job = (await herder.jobs())[0]
    assert isinstance(events[-1], Done)
    assert events[-1].job == job
    assert (job.fee, job.captured, len(await herder.jobs())) == (100, 28, 1)


async def test_tokens_come_one_by_one(herd: Herd, herder: AsyncHerder) -> None:
    async with herder.stream("hi", 40) as events, asyncio.timeout(30):
        first = await anext(events)
        assert isinstance(first, Queued)
        assert (first.job_id, first.position) == ((await herder.jobs())[0].id, 0)
        lease = await herd.lease()
        assert isinstance(await anext(events), Started)
        for index, text in enumerate("ab♥"):
            await herd.ring.say(lease, text, index)
            assert (await anext(events)).raw["text"] == text


async def test_the_sync_client_in_a_thread(herd: Herd) -> None:
    def ask() -> list[Event]:
        with Herder(herd.url, herd.key) as herder:
            return list(herder.stream("hi", 40))

    events, _ = await asyncio.gather(asyncio.to_thread(ask), answer(herd))
    judge(events)


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("first", [0, 1, 37, 200])
async def test_a_line_that_breaks_again_and_again_loses_nothing(herd: Herd, first: int) -> None:
    line = Cutting(first, 41)
    async with AsyncHerder(herd.url, herd.key, transport=line) as herder:
        events, _ = await asyncio.gather(all_of(herder.stream("hi", 40)), answer(herd))
        judge(events)
        assert len(await herder.jobs()) == 1
    assert [request.method for request in line.requests].count("POST") == 1
    assert len([request for request in line.requests if "last-event-id" in request.headers]) >= 3
    assert await herd.balance() == (FUNDS - 14, 0)


@pytest.mark.usefixtures("hurried")
async def test_a_submission_whose_stream_never_came_is_paid_once(herd: Herd) -> None:
    async with AsyncHerder(herd.url, herd.key, transport=Lossy()) as herder:
        events, _ = await asyncio.gather(all_of(herder.stream("hi", 40)), answer(herd))
        judge(events)
        assert len(await herder.jobs()) == 1


async def test_a_stream_outlives_the_herder(
    herd: Herd, settings: Settings, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    away, back = asyncio.Event(), asyncio.Event()

    async def pause(seconds: float) -> None:
        away.set()
        await back.wait()

    monkeypatch.setattr(_async, "_sleep", pause)
    port = httpx.URL(herd.url).port
    async with AsyncHerder(herd.url, herd.key) as herder, asyncio.timeout(60):
        following = asyncio.create_task(all_of(herder.stream("hi", 40)))
        lease = await herd.lease()
        await herd.ring.say(lease, "x", 0)
        await herd.stop()
        await away.wait()
        await herd.ring.say(lease, "x", 1)
        async with running(settings, broker, port=port or 0, again=True) as again:
            back.set()
            await again.ring.settle(lease, 2)
            judge(await following, "xx")


async def test_an_answer_that_starts_again(
    settings: Settings, timed_broker: Broker, clock: SimulatedClock
) -> None:
    async with running(settings, timed_broker) as herd, AsyncHerder(herd.url, herd.key) as herder:
        following = asyncio.create_task(all_of(herder.stream("hi", 40)))
        lease = await herd.lease()
        await herd.ring.say(lease, "y", 0)
        clock.advance(settings.lease_ms + 1)
        await timed_broker.sweep()
        await answer(herd)
        events = await following
    kinds = [type(event) for event in events if not isinstance(event, Queued)]
    assert kinds[:3] == [Started, Tokens, Restarted]
    at = kinds.index(Restarted)
    later = [event for event in events if not isinstance(event, Queued)][at:]
    assert later[0] == Restarted(2, id=later[0].id)
    assert "".join(event.text for event in later if isinstance(event, Tokens)) == "xxxx"


async def test_a_job_that_fails(herd: Herd, herder: AsyncHerder) -> None:
    results = await asyncio.gather(
        all_of(herder.stream("hi", 40)), answer(herd, 2, Outcome.FAILED), return_exceptions=True
    )
    error = results[0]
    assert isinstance(error, llama_herder.JobFailed)
    assert (error.job.refunded, error.job.error and error.job.error.message) == (50, "it broke")


async def test_a_job_that_is_cancelled_meanwhile(herd: Herd, herder: AsyncHerder) -> None:
    async with herder.stream("hi", 40) as events:
        first = await anext(events)
        assert isinstance(first, Queued)
        await herder.cancel(first.job_id)
        *_, last = await all_of(events)
    assert isinstance(last, Done)
    assert (last.job.status, last.job.refunded) == ("cancelled", 50)


async def test_a_job_is_followed_later_and_from_the_middle(herd: Herd, herder: AsyncHerder) -> None:
    job = await herder.submit("hi", 40)
    await answer(herd)
    events = await all_of(herder.events(job))
    judge(events)
    for at, event in enumerate(events):
        if event.id is not None:
            rest = await all_of(herder.events(job.id, after=event.id))
            assert rest == (events[at + 1 :] or [replace(events[-1])])
    with pytest.raises(llama_herder.NotFound):
        await all_of(herder.events("job_of_nobody"))


async def test_a_loop_that_is_left_keeps_the_job_unless_told_otherwise(
    herd: Herd, herder: AsyncHerder
) -> None:
    for cancels in (False, True):
        async with herder.stream("hi", 40, cancel_on_disconnect=cancels) as events:
            first = await anext(events)
        assert isinstance(first, Queued)
        if cancels:
            assert (await herder.wait(first.job_id, 30)).status == "cancelled"
        else:
            assert (await herder.job(first.job_id)).status == "queued"
    assert await herd.balance() == (FUNDS - 50, 50)


async def test_a_refusal_is_the_one_without_a_stream(herd: Herd, herder: AsyncHerder) -> None:
    with pytest.raises(llama_herder.InsufficientFunds) as caught:
        await all_of(herder.stream("hi", 900, multiplier=100))
    assert caught.value.needed
    with pytest.raises(llama_herder.UnknownModel):
        await all_of(herder.stream("hi", 40, model="gpt-99"))


async def test_the_time_is_up_and_the_job_lives_on(herd: Herd, herder: AsyncHerder) -> None:
    job = await herder.submit("hi", 40)
    with pytest.raises(llama_herder.WaitTimeout) as caught:
        await all_of(herder.events(job, timeout=0.3))
    assert caught.value.job_id == job.id
    assert (await herder.job(job.id)).status == "queued"
