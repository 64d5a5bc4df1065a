"""How long the client puts up with a herder that is away: refused connections, its tries, the caller's own time."""

from __future__ import annotations

from itertools import chain, repeat
from typing import Any

import httpx
import pytest

import llama_herder
from llama_herder import AsyncHerder, Herder, _admin, _calls, _streams
from llama_herder._core import Broken, Send, Sleep, perform
from llama_herder._patience import FIRST_REFUSED_S, REFUSED_S, Contact, Patience
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
    sleeps,
)

RESTART_S = 5.0


def met(clock: Clock | None = None) -> Patience:
    """That of a client that was answered before."""
    found = patience(clock)
    found.contact.made = True
    return found


def submission() -> Any:
    return _calls.submit({"prompt": "x", "tokens": 4}, "k")


def test_a_restart_is_sat_out_by_a_client_that_was_answered_before() -> None:
    clock = Clock()
    known = patience(clock)
    drive(perform(_calls.info(), URL, known), in_turn(ok()), clock)
    back = clock.now + 3 * RESTART_S

    def restarting(send: Send) -> Any:
        return REFUSED if clock.now < back else ok(202, id="job_1")

    effects, job = drive(perform(submission(), URL, known), restarting, clock)
    assert isinstance(job, llama_herder.Job)
    assert clock.now < back + 2
    assert {send.headers["Idempotency-Key"] for send in sends(effects)} == {"k"}


@pytest.mark.parametrize(
    ("known", "most_s"), [(patience(), FIRST_REFUSED_S), (met(), REFUSED_S), (patience(tries=1), 0)]
)
def test_a_herder_that_stays_away_is_told_of_in_time(known: Patience, most_s: float) -> None:
    effects, error = drive(perform(submission(), URL, known), lambda send: REFUSED)
    assert isinstance(error, llama_herder.CannotConnect)
    assert sum(sleeps(effects)) == pytest.approx(most_s)
    assert len(sends(effects)) < 20
    assert str(error).endswith("; nothing was sent, and nothing is charged")
    assert "accepted" not in str(error)


def test_a_restart_takes_no_tries_away() -> None:
    answers = in_turn(*[REFUSED] * 6, *[refusal(503, "redis_unavailable")] * 4, ok(202, id="job_1"))
    _, job = drive(perform(submission(), URL, patience()), answers)
    assert isinstance(job, llama_herder.Job)


def test_what_was_never_sent_may_be_sent_again_whatever_it_is() -> None:
    call = _admin.create_account("ann", 5)
    _, account = drive(perform(call, URL, patience()), in_turn(REFUSED, REFUSED, ok(id="ann")))
    assert isinstance(account, llama_herder.Account)
    effects, error = drive(perform(call, URL, patience()), in_turn(REFUSED, SILENT))
    assert len(sends(effects)) == 2
    assert "look before you repeat it" in str(error)


def test_a_certificate_that_is_not_trusted_is_no_restart() -> None:
    lasting = Broken(sent=False, why="its certificate is not trusted", lasting=True)
    effects, error = drive(perform(submission(), URL, met()), in_turn(lasting))
    assert isinstance(error, llama_herder.CannotConnect)
    assert len(effects) == 1


def test_a_lost_reply_before_the_refusals_is_told_of() -> None:
    answers = chain([SILENT], repeat(REFUSED))
    _, error = drive(perform(submission(), URL, patience()), lambda send: next(answers))
    assert isinstance(error, llama_herder.CannotConnect)
    assert "an earlier try had no reply: the job may have been accepted" in str(error)
    assert "nothing was sent" not in str(error)


@pytest.mark.parametrize("outage", [REFUSED, SILENT, refusal(503, "overloaded")])
def test_no_try_is_made_after_the_callers_time(outage: Any) -> None:
    clock = Clock()
    flow = _calls.running({"prompt": "x"}, None, URL, met(clock), 1.5)
    effects, error = drive(flow, lambda send: outage, clock)
    assert isinstance(error, llama_herder.HerderError)
    assert not isinstance(error, llama_herder.WaitTimeout)
    assert 0.75 <= sum(sleeps(effects)) <= 1.5


@pytest.mark.parametrize("timeout", [0, 0.001, 0.3, 2])
def test_a_run_takes_its_time_and_no_more(timeout: float) -> None:
    clock = Clock()
    trip_s = 0.01

    def answer(send: Send) -> Any:
        clock.now += trip_s + float(str(send.params.get("wait", 0)))
        return ok(202, id="job_1", status="queued")

    effects, error = drive(
        _calls.running({"prompt": "x"}, None, URL, patience(clock), timeout), answer, clock
    )
    assert isinstance(error, llama_herder.WaitTimeout)
    assert error.job is not None
    assert len(sends(effects)) >= 2
    assert clock.now - 1000 <= timeout + 3 * trip_s


def _refused(flow: _streams.StreamFlow, clock: Clock) -> None:
    """Performs a stream that nobody opens."""
    effect = next(flow)
    for _ in range(100):
        clock.now += effect.seconds if isinstance(effect, Sleep) else 0.0
        effect = flow.send(REFUSED if isinstance(effect, _streams.Open) else None)


def test_a_stream_is_submitted_within_its_time_too() -> None:
    clock = Clock()
    flow = _streams.streaming({"prompt": "x"}, None, URL, met(clock), timeout=1.5, cancel_on_disconnect=False)
    with pytest.raises(llama_herder.CannotConnect, match="nothing was sent"):
        _refused(flow, clock)
    assert 1000.75 <= clock.now <= 1001.5


def test_every_call_of_a_client_is_a_contact() -> None:
    contact = Contact()
    known = Patience(contact=contact)
    assert known.within(5.0).contact is known.lasting(5.0).contact is contact
    flow = _streams.following("job_1", None, URL, known, timeout=None, cancel_on_disconnect=False)
    next(flow)
    flow.send(_streams.Opened({}))
    assert contact.made


@pytest.mark.parametrize("kind", [Herder, AsyncHerder])
def test_patience_is_set_with_the_client(kind: type[Herder | AsyncHerder]) -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(200))
    herder = kind(refused_s=3, tries=2, transport=transport)
    assert (herder._patience.refused_s, herder._patience.tries) == (3, 2)
    for wrong in ({"refused_s": -1}, {"tries": 0}):
        with pytest.raises(llama_herder.InvalidRequest, match="must be"):
            kind(transport=transport, **wrong)  # type: ignore[arg-type]
