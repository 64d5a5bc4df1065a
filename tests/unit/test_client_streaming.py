"""Streams of both clients over lines that break: nothing is lost, nothing comes twice, and the end is the end."""

from __future__ import annotations

import json

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llama_herder
from llama_herder import AsyncHerder, Herder, Queued, _calls
from tests.unit.stream_script import (
    ALL,
    BOTH,
    JOB,
    LOG,
    Fault,
    Pieces,
    Script,
    follow,
    nothing,
    problem,
    written,
)

ENDS: list[Exception | None] = [
    None,
    httpx.ReadError("the line broke"),
    httpx.ReadTimeout(""),
    httpx.RemoteProtocolError("peer closed connection without sending complete message body"),
]
WHOLE = len(written(LOG))
COMPLETE = WHOLE - len("\n: ping\r\n\r\n")  # from here on the last event has been told


@BOTH
def test_a_stream_is_one_request(kind: type[Herder | AsyncHerder]) -> None:
    script = Script()
    followed = follow(kind, script, multiplier=1.5, idempotency_key="mine", cancel_on_disconnect=True)
    assert (followed.events, followed.error) == (ALL, None)
    (request,) = script.seen
    assert dict(request.url.params) == {"stream": "true", "cancel_on_disconnect": "true"}
    assert json.loads(request.content) == {"prompt": "hi", "tokens": 40, "multiplier": 1.5}
    assert request.headers["idempotency-key"] == "mine"
    assert request.headers["accept"] == "text/event-stream"
    assert script.bodies[0].closed


@BOTH
def test_a_job_is_followed_from_an_event_on(kind: type[Herder | AsyncHerder]) -> None:
    script = Script()
    assert follow(kind, script, submit=False, after="30-0").events == ALL[4:]
    assert script.requests() == [f"GET /v1/jobs/{JOB}/events 30-0"]
    assert dict(script.seen[0].url.params) == {}
    assert follow(kind, Script(), submit=False).events == ALL


@pytest.mark.parametrize("end", ENDS, ids=repr)
def test_a_cut_at_every_byte_loses_nothing(end: Exception | None) -> None:
    for at in range(WHOLE + 1):
        script = Script()
        script.faults = [script.cut(at, end)]
        followed = follow(Herder, script)
        assert (followed.events, followed.error) == (ALL, None)
        assert all(body.closed for body in script.bodies)
        assert len(script.seen) == (1 if at >= COMPLETE else 2)


@settings(max_examples=150)
@given(
    st.sampled_from([Herder, AsyncHerder]),
    st.lists(st.tuples(st.integers(0, WHOLE), st.sampled_from(ENDS)), max_size=6),
    st.booleans(),
)
def test_many_cuts_lose_nothing(
    kind: type[Herder | AsyncHerder], cuts: list[tuple[int, Exception | None]], located: bool
) -> None:
    script = Script(located=located)
    script.faults = [script.cut(at, end) for at, end in cuts]
    followed = follow(kind, script)
    assert (followed.events, followed.error) == (ALL, None)
    keys = {request.headers["idempotency-key"] for request in script.seen if request.method == "POST"}
    assert len(keys) == 1
    if located:
        assert [request.method for request in script.seen].count("POST") == 1


@pytest.mark.parametrize(
    "fault",
    [
        nothing(httpx.ConnectError("refused")),
        nothing(httpx.ReadTimeout("")),
        problem(429, "rate_limited"),
        problem(502, "unavailable"),
        problem(503, "overloaded"),
        problem(504, "unavailable"),
        lambda request: httpx.Response(503, content=b"<html>"),
    ],
)
@BOTH
def test_whatever_passes_is_sat_out(kind: type[Herder | AsyncHerder], fault: Fault) -> None:
    script = Script()
    script.faults = [fault, fault, script.cut(WHOLE // 2), fault, fault, fault, fault, fault, fault]
    followed = follow(kind, script)
    assert (followed.events, followed.error) == (ALL, None)
    assert [request.method for request in script.seen] == ["POST"] * 3 + ["GET"] * 7
    assert len({request.headers.get("idempotency-key") for request in script.seen[:3]}) == 1


@BOTH
def test_a_submission_that_is_refused_is_raised_as_ever(kind: type[Herder | AsyncHerder]) -> None:
    script = Script(faults=[problem(402, "insufficient_funds")])
    assert isinstance(follow(kind, script).error, llama_herder.InsufficientFunds)
    assert len(script.seen) == 1
    script = Script(faults=[problem(503, "no_worker")] * 9)
    assert isinstance(follow(kind, script).error, llama_herder.NoWorker)
    assert len(script.seen) == 5
    script = Script(faults=[nothing(httpx.ReadTimeout(""))] * 9)
    error = follow(kind, script, idempotency_key="mine").error
    assert isinstance(error, llama_herder.NoReply)
    assert "idempotency key mine tells" in str(error)


@BOTH
def test_a_herder_that_stays_away_is_given_up(kind: type[Herder | AsyncHerder]) -> None:
    script = Script()
    script.faults = [script.cut(WHOLE // 2), *[nothing(httpx.ConnectError("refused"))] * 1000]
    followed = follow(kind, script)
    assert isinstance(followed.error, llama_herder.CannotConnect)
    assert "job_1 lives on" in str(followed.error)
    assert _calls.OUTAGE_S - 10 < followed.pauses.now - 1000 <= _calls.OUTAGE_S
    assert max(followed.pauses.taken) <= 8


@BOTH
def test_streams_that_open_and_say_nothing_are_given_up(kind: type[Herder | AsyncHerder]) -> None:
    script = Script()
    script.faults = [script.cut(0)] * 1000
    followed = follow(kind, script)
    assert isinstance(followed.error, llama_herder.NoReply)
    assert len(script.seen) < 60


def test_a_stream_that_lives_is_followed_for_as_long_as_it_takes() -> None:
    """Cut after each keep-alive, far longer than an absent herder is waited for."""
    script = Script()
    script.faults = [script.cut(len(written([])))] * 1000
    followed = follow(Herder, script)
    assert (followed.events, followed.error) == (ALL, None)
    assert followed.pauses.now - 1000 > 2 * _calls.OUTAGE_S


def test_whoever_was_heard_is_hurried_to_again() -> None:
    script, away = Script(), nothing(httpx.ConnectError("refused"))
    script.faults = [away, away, away, lambda request: script.streamed(request, [b": ping\n\n"]), away]
    assert follow(Herder, script, submit=False).pauses.taken == [0.25, 0.5, 1, 0.25, 0.5]


@pytest.mark.parametrize(
    ("retry", "pause_s"),
    [(b"", 0.25), (b"retry: 0\n\n", 0.25), (b"retry: 2000\n\n", 3.0), (b"retry: 9999999\n\n", 45)],
)
def test_the_herder_says_when_to_come_back(retry: bytes, pause_s: float) -> None:
    script = Script()
    script.faults = [lambda request: script.streamed(request, [retry + b": ping\n\n"])]
    assert follow(Herder, script).pauses.taken == [pause_s]


def test_what_comes_twice_is_told_once() -> None:
    """A herder, or something in between, that does not heed the Last-Event-ID."""
    script = Script()
    script.faults = [
        script.cut(WHOLE // 2),
        lambda request: script.streamed(request, [written(LOG)]),
    ]
    assert follow(Herder, script).events == ALL


def test_news_that_is_in_no_log_is_told_each_time() -> None:
    moved = [(None, "queued", {"job_id": JOB, "position": place, "eta_ms": None}) for place in (1, 0)]
    followed = follow(Herder, Script(log=[LOG[0], *moved, *LOG[1:]]))
    assert followed.events[:3] == [ALL[0], Queued(JOB, 1, None), Queued(JOB, 0, None)]
    assert followed.events[3:] == ALL[1:]


def test_kinds_from_the_future_are_passed_over() -> None:
    log = [*LOG[:3], ("25-0", "mood", {"x": 1}), *LOG[3:]]
    script = Script(log=log)
    script.faults = [script.cut(len(written(log[:4])))]
    followed = follow(Herder, script)
    assert (followed.events, followed.error) == (ALL, None)
    assert script.requests()[-1].endswith("25-0")
    strange = Script(faults=[lambda request: strange.streamed(request, [b"data: hello\n\n", written(LOG)])])
    assert follow(Herder, strange).events == ALL


@pytest.mark.parametrize(
    "content", [b"event: tokens\ndata: [1]\n\n", b"event: done\ndata: x\n\n", b"data: " + b"x" * 16_000_001]
)
def test_what_no_herder_sends_is_refused(content: bytes) -> None:
    script = Script()
    script.faults = [lambda request: script.streamed(request, [content])]
    error = follow(Herder, script).error
    assert type(error) is llama_herder.HerderError
    assert len(script.seen) == 1
    assert script.bodies[0].closed


def test_a_herder_without_streams_is_named() -> None:
    script = Script(faults=[lambda request: httpx.Response(202, json={"id": JOB, "status": "queued"})])
    error = follow(Herder, script, idempotency_key="mine").error
    assert type(error) is llama_herder.HerderError
    assert "perhaps its version has none; the job may have been accepted" in str(error)
    script = Script(faults=[problem(404, "not_found")])
    assert isinstance(follow(Herder, script, submit=False).error, llama_herder.NotFound)


@pytest.mark.parametrize(
    ("last", "unsure"),
    [
        (nothing(httpx.ConnectError("refused")), True),
        (problem(429, "rate_limited"), True),
        (problem(402, "insufficient_funds"), False),
    ],
)
def test_a_submission_that_may_have_been_heard_is_not_forgotten(last: Fault, unsure: bool) -> None:
    script = Script(faults=[nothing(httpx.ReadTimeout("")), *[last] * 4])
    error = follow(Herder, script, idempotency_key="mine").error
    assert ("idempotency key mine tells" in str(error)) == unsure
    assert "may have been accepted" not in str(follow(Herder, Script(faults=[last] * 5)).error)


@pytest.mark.parametrize("after", ["", "1", "1-0\r\nX: y", "-", "latest"])
def test_an_id_that_is_none_is_refused_here(after: str) -> None:
    with Herder() as herder, pytest.raises(llama_herder.InvalidRequest, match="not the id of an event"):
        herder.events(JOB, after=after)


def test_a_body_that_breaks_while_a_refusal_is_read_is_a_broken_line() -> None:
    script = Script()
    body = Pieces([b"{"], httpx.ReadError("broke"))
    script.faults = [lambda request: httpx.Response(500, stream=body)]
    assert follow(Herder, script).events == ALL
    assert body.closed
