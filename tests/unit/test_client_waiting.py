"""Waiting for a job, and judging how it ended; the flows are driven by hand under a clock of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, repeat
from typing import Any

import httpx
import pytest

import llama_herder
from llama_herder import _calls
from llama_herder._core import Broken, Outcome, Reply, Send
from llama_herder._patience import FIRST_REFUSED_S
from tests.unit.client_driver import (
    REFUSED,
    SILENT,
    URL,
    Clock,
    drive,
    in_turn,
    ok,
    patience,
    refusal,
    sends,
)


def long_poll(clock: Clock, ends_at: float) -> Callable[[Send], Outcome]:
    """A herder whose job ends at a moment, and which answers as late as it is asked to."""

    def answer(send: Send) -> Outcome:
        clock.now = min(clock.now + float(str(send.params.get("wait", 0))), max(ends_at, clock.now))
        return ok(id="job_1", status="succeeded" if clock.now >= ends_at else "running")

    return answer


def test_waiting_is_a_row_of_long_polls() -> None:
    clock = Clock()
    flow = _calls.waiting("job_1", URL, patience(clock))
    effects, job = drive(flow, long_poll(clock, 1100.0), clock)
    assert isinstance(job, llama_herder.Job)
    assert job.ended
    assert [send.params["wait"] for send in sends(effects)] == ["30", "30", "30", "30"]
    assert all(send.read_s == 30 for send in sends(effects))


def test_a_wait_ends_in_time_and_the_job_lives_on() -> None:
    clock = Clock()
    flow = _calls.waiting("job_1", URL, patience(clock), 45.0)
    effects, error = drive(flow, long_poll(clock, 9e9), clock)
    assert isinstance(error, llama_herder.WaitTimeout)
    assert (error.job_id, error.job and error.job.status) == ("job_1", "running")
    assert "job_1 is still running after 45 s; it lives on" in str(error)
    assert clock.now == 1045.0
    assert {send.method for send in sends(effects)} == {"GET"}


def test_a_timeout_of_nothing_looks_once() -> None:
    clock = Clock()
    effects, error = drive(_calls.waiting("job_1", URL, patience(clock), 0), long_poll(clock, 9e9), clock)
    assert isinstance(error, llama_herder.WaitTimeout)
    assert [send.params for send in sends(effects)] == [{}]


def test_a_wait_sits_out_a_herder_that_restarts() -> None:
    clock = Clock()
    away: Iterator[Outcome] = iter(
        [SILENT, *[REFUSED] * 6, Reply(502, {}, b""), refusal(503, "redis_unavailable")]
    )
    there = long_poll(clock, 1040.0)
    flow = _calls.waiting("job_1", URL, patience(clock, tries=1))
    _, job = drive(flow, lambda send: next(away, None) or there(send), clock)
    assert isinstance(job, llama_herder.Job)
    assert job.ended


def test_a_wait_gives_up_on_a_herder_that_stays_away() -> None:
    clock = Clock()
    away = chain([SILENT], repeat(REFUSED))
    _, error = drive(_calls.waiting("job_1", URL, patience(clock)), lambda send: next(away), clock)
    assert isinstance(error, llama_herder.CannotConnect)
    assert clock.now == 1000 + _calls.OUTAGE_S


@pytest.mark.parametrize("nobody", [REFUSED, Broken(sent=False, why="timed out")])
@pytest.mark.parametrize("timeout", [None, 60.0])
def test_a_wait_at_a_wrong_url_is_as_short_as_any_call(nobody: Broken, timeout: float | None) -> None:
    clock = Clock()
    flow = _calls.waiting("job_1", URL, patience(clock), timeout)
    _, error = drive(flow, lambda send: nobody, clock)
    assert isinstance(error, llama_herder.CannotConnect)
    assert clock.now <= 1000 + FIRST_REFUSED_S


def test_a_wait_does_not_spin_where_polls_are_answered_at_once() -> None:
    clock = Clock()
    effects, error = drive(
        _calls.waiting("job_1", URL, patience(clock), 10.0),
        lambda send: ok(id="job_1", status="queued"),
        clock,
    )
    assert isinstance(error, llama_herder.WaitTimeout)
    assert len(sends(effects)) <= 10 / _calls.PAUSE_S + 2


def test_every_poll_is_told() -> None:
    clock = Clock()
    seen: list[llama_herder.Job] = []
    flow = _calls.waiting("job_1", URL, patience(clock), poll_s=1, on_poll=seen.append)
    drive(flow, long_poll(clock, 1003.0), clock)
    assert [job.status for job in seen] == ["running", "running", "succeeded"]


@pytest.mark.parametrize(
    ("timeout", "kind"),
    [
        ("5", TypeError),
        (True, TypeError),
        (-1, llama_herder.InvalidRequest),
        (float("nan"), llama_herder.InvalidRequest),
    ],
)
def test_a_time_that_cannot_be_waited_for_is_refused_before_anything_is_sent(
    timeout: Any, kind: type[Exception]
) -> None:
    def unasked(request: httpx.Request) -> httpx.Response:
        raise AssertionError(f"{request.url} was asked")

    with llama_herder.Herder(URL, transport=httpx.MockTransport(unasked)) as herder:
        for call in (
            lambda: herder.run("hi", 4, timeout=timeout),
            lambda: herder.wait("job_1", timeout),
            lambda: herder.stream("hi", 4, timeout=timeout),
            lambda: herder.events("job_1", timeout=timeout),
        ):
            with pytest.raises(kind, match="timeout must be"):
                call()
        with pytest.raises(kind, match="poll_s must be"):
            herder.wait("job_1", poll_s=timeout)


@pytest.mark.parametrize("thing", [None, 5, b"job_1", object()])
def test_what_is_no_job_says_what_to_pass(thing: Any) -> None:
    with pytest.raises(TypeError, match=r"^a name or an id must be text, not (None$|an? )"):
        _calls.job(thing)
    with llama_herder.Herder(URL) as herder:
        for call in (herder.wait, herder.events, herder.cancel, herder.batch_status, herder.batch_results):
            with pytest.raises(TypeError, match=r"^a job, a batch or its id is needed, not "):
                call(thing)
        with pytest.raises(TypeError):
            herder.job(thing)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("failed", llama_herder.JobFailed),
        ("cancelled", llama_herder.JobCancelled),
        ("expired", llama_herder.JobExpired),
    ],
)
def test_run_raises_for_a_job_without_an_answer(status: str, kind: type[llama_herder.JobEnded]) -> None:
    fields = {
        "id": "job_1",
        "status": status,
        "refunded": 50,
        "error": {"code": "engine", "message": "it broke"},
    }
    flow = _calls.running({"prompt": "x"}, None, URL, patience())
    _, error = drive(flow, in_turn(ok(202, id="job_1", status="queued"), ok(**fields)))
    assert isinstance(error, kind)
    assert error.job.refunded == 50
    assert "50 credits were refunded" in str(error)


def test_run_returns_the_answer() -> None:
    flow = _calls.running({"prompt": "x"}, "mine", URL, patience())
    done = ok(id="job_1", status="succeeded", result={"text": "hi"})
    effects, job = drive(flow, in_turn(ok(202, id="job_1", status="queued"), done))
    assert isinstance(job, llama_herder.Job)
    assert job.text == "hi"
    assert sends(effects)[0].headers["Idempotency-Key"] == "mine"
