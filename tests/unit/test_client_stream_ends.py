"""How a stream of either client ends: done, failed, out of time, or left by its caller."""

from __future__ import annotations

import gc
from unittest.mock import ANY

import httpx
import pytest

import llama_herder
from llama_herder import AsyncHerder, Done, Herder, _streams
from llama_herder._core import Send
from tests.unit.client_driver import URL, Clock, patience
from tests.unit.stream_script import ALL, BOTH, DONE, FAILED, JOB, LOG, Script, follow, written


@BOTH
@pytest.mark.parametrize("submit", [True, False])
def test_a_failed_job_is_raised_with_its_job(kind: type[Herder | AsyncHerder], submit: bool) -> None:
    script = Script(log=[*LOG[:-1], ("40-0", "error", FAILED)])
    followed = follow(kind, script, submit=submit)
    assert followed.events == ALL[:-1]
    assert isinstance(followed.error, llama_herder.JobFailed)
    assert followed.error.job == llama_herder.Job.from_json(FAILED)
    assert str(followed.error) == "job_1 failed: it broke; 50 credits were refunded"
    assert script.bodies[0].closed


@pytest.mark.parametrize("status", ["cancelled", "expired"])
def test_a_job_that_was_ended_is_done(status: str) -> None:
    script = Script(log=[*LOG[:-1], ("40-0", "done", DONE | {"status": status})])
    last = follow(Herder, script).events[-1]
    assert isinstance(last, Done)
    assert last.job.status == status


@BOTH
def test_where_all_was_seen_the_job_is_asked_for(kind: type[Herder | AsyncHerder]) -> None:
    script = Script()
    assert follow(kind, script, submit=False, after="40-0").events == ALL[-1:]
    assert script.requests() == [f"GET /v1/jobs/{JOB}/events 40-0", f"GET /v1/jobs/{JOB}"]
    script = Script(log=[("40-0", "error", FAILED)])
    assert isinstance(follow(kind, script, submit=False, after="40-0").error, llama_herder.JobFailed)


@BOTH
def test_a_stream_ends_in_time_and_the_job_lives_on(kind: type[Herder | AsyncHerder]) -> None:
    script = Script()
    script.faults = [script.cut(len(written([])))] * 1000
    followed = follow(kind, script, timeout=60)
    assert isinstance(followed.error, llama_herder.WaitTimeout)
    assert str(followed.error) == "job_1 has not ended after 60 s; it lives on: fetch it later by its id"
    assert followed.pauses.now - 1000 <= 60
    reads = [request.extensions["timeout"]["read"] for request in script.seen]
    assert reads[:2] == [30, 30]
    assert 0 < reads[-1] < 5
    assert isinstance(follow(kind, Script(), submit=False, timeout=0).error, llama_herder.WaitTimeout)
    script = Script()
    follow(kind, script, timeout=0)
    assert [request.extensions["timeout"]["read"] for request in script.seen] == [5]


def test_the_time_is_up_in_the_middle_of_an_answer_too() -> None:
    clock = Clock()
    flow = _streams.following(JOB, None, URL, patience(clock), timeout=10, cancel_on_disconnect=False)
    assert flow.send(None) == _streams.Open(Send("GET", f"/v1/jobs/{JOB}/events", headers=ANY), 10)
    assert flow.send(_streams.Opened({})) == _streams.Read()
    clock.now += 9
    assert flow.send(b": ping\n\n") == _streams.Read()
    clock.now += 1
    with pytest.raises(llama_herder.WaitTimeout):
        flow.send(b": ping\n\n")


def test_a_loop_that_is_left_hangs_up() -> None:
    script = Script()
    with Herder(transport=httpx.MockTransport(script)) as herder:
        for event in herder.stream("hi", 40):
            assert event == ALL[0]
            break
        gc.collect()
        assert script.bodies[0].closed
        with herder.events(JOB) as events:
            next(events)
        assert script.bodies[1].closed
        assert list(events) == []


async def test_an_async_loop_that_is_left_hangs_up() -> None:
    script = Script()
    async with AsyncHerder(transport=httpx.MockTransport(script)) as herder:
        async with herder.stream("hi", 40) as events:
            async for event in events:
                assert event == ALL[0]
                break
        assert script.bodies[0].closed
        with pytest.raises(StopAsyncIteration):
            await anext(events)


def test_nothing_is_sent_before_the_first_event_is_asked_for() -> None:
    script = Script()
    with Herder(transport=httpx.MockTransport(script)) as herder:
        with pytest.raises(TypeError):
            herder.stream(None, 40)  # type: ignore[arg-type]
        stream = herder.stream("hi", 40)
        assert script.seen == []
        assert next(stream) == ALL[0]
        stream.close()
