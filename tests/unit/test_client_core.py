"""The client's core without IO: what is tried again, what a reply means, what is sent."""

from __future__ import annotations

import json
from typing import Any

import pytest

import llama_herder
from llama_herder import _admin, _calls
from llama_herder._core import (
    Outcome,
    Reply,
    Send,
    authorization,
    base_url,
    perform,
    problem,
    retry_after_s,
)
from llama_herder._patience import RETRY_AFTER_S_MAX, Patience, Tries
from tests.unit.client_driver import (
    REFUSED,
    SILENT,
    URL,
    drive,
    in_turn,
    ok,
    patience,
    refusal,
    sends,
    sleeps,
)

# --- retries ---------------------------------------------------------------------------------------------

SUBMIT = _calls.submit({"prompt": "x", "tokens": 4}, None)


@pytest.mark.parametrize(
    "failure",
    [
        REFUSED,
        SILENT,
        refusal(429, "rate_limited"),
        Reply(502, {}, b"<html>"),
        refusal(503, "overloaded"),
        Reply(504, {}, b""),
    ],
)
def test_a_submission_is_tried_again_with_the_same_key(failure: Outcome) -> None:
    effects, job = drive(perform(SUBMIT, URL, patience()), in_turn(failure, failure, ok(202, id="job_1")))
    assert isinstance(job, llama_herder.Job)
    assert job.id == "job_1"
    keys = {send.headers["Idempotency-Key"] for send in sends(effects)}
    assert len(sends(effects)) == 3
    assert len(keys) == 1
    assert sleeps(effects) == [0.25, 0.5]


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 409, 413, 422, 500])
def test_what_would_fail_again_is_not_tried_again(status: int) -> None:
    effects, error = drive(perform(SUBMIT, URL, patience()), in_turn(refusal(status, "something_new")))
    assert isinstance(error, llama_herder.HerderError)
    assert len(sends(effects)) == 1


def test_tries_are_bounded() -> None:
    effects, error = drive(perform(SUBMIT, URL, patience()), lambda send: SILENT)
    assert isinstance(error, llama_herder.NoReply)
    assert len(sends(effects)) == 5
    assert sleeps(effects) == [0.25, 0.5, 1.0, 2.0]


@pytest.mark.parametrize(
    "call",
    [_admin.create_account("ann", 5), _admin.adjust("ann", -5, "typo"), _admin.create_key("ann", None, None)],
)
def test_what_is_not_safe_to_repeat_is_sent_once_and_says_so(call: Any) -> None:
    effects, error = drive(perform(call, URL, patience()), in_turn(SILENT))
    assert len(effects) == 1
    assert isinstance(error, llama_herder.NoReply)
    assert "look before you repeat it" in str(error)


def test_a_deposit_is_repeated_under_one_id() -> None:
    call = _admin.deposit("ann", 5, None, None)
    effects, account = drive(perform(call, URL, patience()), in_turn(SILENT, ok(id="ann", available=5)))
    assert isinstance(account, llama_herder.Account)
    ids = [(send.body or {})["deposit_id"] for send in sends(effects)]
    assert len(ids) == 2
    assert ids[0] == ids[1] != (_admin.deposit("ann", 5, None, None).send.body or {})["deposit_id"]


def test_a_lost_reply_names_the_key_to_ask_with() -> None:
    _, error = drive(perform(SUBMIT, URL, patience(tries=1)), in_turn(SILENT))
    assert SUBMIT.send.headers["Idempotency-Key"] in str(error)
    _, refused = drive(perform(SUBMIT, URL, patience(tries=1)), in_turn(REFUSED))
    assert "may have been accepted" not in str(refused)


def test_a_lost_reply_is_not_forgotten_when_the_herder_is_then_gone() -> None:
    for status, told in ((None, True), (503, True), (429, True), (402, False)):
        last = refusal(status, "x") if status else REFUSED
        flow = perform(_calls.submit({}, "k"), URL, patience(tries=2, refused_s=0))
        _, error = drive(flow, in_turn(SILENT, last))
        assert ("key k tells" in str(error)) == told, status


def test_retry_after_is_honoured_and_capped() -> None:
    answers = in_turn(
        refusal(429, "rate_limited", {"retry-after": "7"}),
        refusal(503, "overloaded", {"retry-after": "86400"}),
        ok(id="job_1"),
    )
    effects, _ = drive(perform(SUBMIT, URL, patience()), answers)
    assert sleeps(effects) == [7.0, RETRY_AFTER_S_MAX]


def test_jitter_only_shortens() -> None:
    least, most = Patience(jitter=lambda: 0.0), Patience(jitter=lambda: 1.0)
    for failed in range(4):
        pauses = [Tries(failed).pause_s(each, refused=False) for each in (least, most)]
        assert pauses == [0.125 * 2**failed, 0.25 * 2**failed]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("3", 3.0),
        ("-1", 0.0),
        ("soon", None),
        ("", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
    ],
)
def test_retry_after_is_a_number_or_a_date(value: str | None, seconds: float | None) -> None:
    assert retry_after_s(value) == seconds


# --- what a reply means ----------------------------------------------------------------------------------


def test_a_problem_becomes_its_exception_with_its_fields() -> None:
    reply = refusal(
        402, "insufficient_funds", needed=50, balance=7, max_affordable_tokens=0, request_id="req_1"
    )
    error = problem(reply, URL)
    assert isinstance(error, llama_herder.InsufficientFunds)
    assert (error.code, error.status, error.detail) == ("insufficient_funds", 402, "it is insufficient_funds")
    assert (error.needed, error.balance, error.max_affordable_tokens, error.request_id) == (50, 7, 0, "req_1")


def test_extras_of_other_problems() -> None:
    models = problem(refusal(404, "unknown_model", models=["a", "b"]), URL)
    assert isinstance(models, llama_herder.UnknownModel)
    assert models.models == ("a", "b")
    fields = problem(refusal(422, "invalid_request", errors=[{"field": "tokens", "message": "too few"}]), URL)
    assert isinstance(fields, llama_herder.InvalidRequest)
    assert fields.errors == (("tokens", "too few"),)
    limited = problem(refusal(429, "rate_limited", {"retry-after": "4"}), URL)
    assert isinstance(limited, llama_herder.RateLimited)
    assert limited.retry_after == 4.0
    large = problem(refusal(413, "too_large", limit=9), URL)
    assert isinstance(large, llama_herder.TooLarge)
    assert large.limit == 9


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (Reply(502, {}, b"<html>Bad gateway"), llama_herder.Unavailable, "proxy"),
        (Reply(404, {}, b"<html>"), llama_herder.Refusal, "check that the URL is a herder's"),
        (Reply(500, {}, b""), llama_herder.HerderError, "500"),
        (Reply(418, {}, b'{"code": 5}'), llama_herder.Refusal, "418"),
        (
            Reply(301, {"location": "https://a.example/x?y"}, b""),
            llama_herder.HerderError,
            "https://a.example",
        ),
        (refusal(503, "newer_code"), llama_herder.Unavailable, "newer_code"),
        (refusal(422, "newer_code"), llama_herder.Refusal, "newer_code"),
    ],
)
def test_replies_that_no_herder_of_this_version_gives(
    reply: Reply, kind: type[llama_herder.HerderError], words: str
) -> None:
    error = problem(reply, URL)
    assert isinstance(error, kind)
    assert words in str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize("content", [b"<html>hello", b"[1]", b"\xff"])
def test_a_good_reply_that_is_no_object_is_an_error(content: bytes) -> None:
    _, error = drive(perform(_calls.info(), URL, patience()), in_turn(Reply(200, {}, content)))
    assert isinstance(error, llama_herder.HerderError)
    assert "not like a herder" in str(error)


def test_details_from_elsewhere_are_one_safe_line() -> None:
    reply = Reply(404, {}, json.dumps({"code": "not_found", "detail": "a\x1b[2J\nb" + "c" * 9999}).encode())
    detail = problem(reply, URL).detail
    assert "\x1b" not in detail
    assert "\n" not in detail
    assert len(detail) <= 500


@pytest.mark.parametrize(
    "url", ["", "herd.example", "ftp://herd.example", "http://", "http://a:b", "http://a:99999", "x\x00"]
)
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(llama_herder.InvalidRequest, match="must look like http"):
        base_url(url)


def test_a_url_loses_its_slash() -> None:
    assert base_url(" https://a.example/herd/ ") == "https://a.example/herd"


@pytest.mark.parametrize("key", ["hk_ä", "hk_a b", "hk_a\nb"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(llama_herder.InvalidKey) as caught:
        authorization(key)
    assert key not in str(caught.value)
    assert authorization(" hk_a\n") == {"Authorization": "Bearer hk_a"}
    assert authorization("") == {}


# --- bodies ----------------------------------------------------------------------------------------------


def test_a_body_has_what_was_given_and_no_more() -> None:
    assert _calls.ask("hi", 4, {"stop": "x", "raw": False, "seed": None}) == {
        "prompt": "hi",
        "tokens": 4,
        "stop": ["x"],
    }
    chat: list[llama_herder.Message] = [{"role": "user", "content": "hi"}]
    assert _calls.ask(chat, 0, {"fee": 0, "raw": True}) == {
        "messages": chat,
        "tokens": 0,
        "fee": 0,
        "raw": True,
    }


@pytest.mark.parametrize(
    "prompt", [None, 3, b"hi", {"role": "user", "content": "hi"}, ["hi"], [{"role": "user"}, None]]
)
def test_a_prompt_that_is_none_says_what_to_pass(prompt: Any) -> None:
    with pytest.raises(TypeError, match=r"must be text, or a list of messages such as \[\{"):
        _calls.ask(prompt, 3, {})
    chat = _calls.ask(iter([{"role": "user", "content": "hi"}]), 3, {})  # type: ignore[arg-type]
    assert chat == {"messages": [{"role": "user", "content": "hi"}], "tokens": 3}


@pytest.mark.parametrize(
    "body", [{"multiplier": float("nan")}, {"prompt": "\udce4"}, {"metadata": {"at": object()}}]
)
def test_what_json_cannot_say_is_refused_here(body: dict[str, Any]) -> None:
    with pytest.raises(llama_herder.InvalidRequest):
        Send("POST", "/v1/jobs", body=body).content()


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_name_that_would_be_another_address_is_refused(name: str) -> None:
    with pytest.raises(llama_herder.NotFound):
        _calls.job(name)
    assert _admin.show_account("a/b?c").send.path == "/v1/admin/accounts/a%2Fb%3Fc"


# --- results ---------------------------------------------------------------------------------------------


def test_results_ignore_what_they_do_not_know_and_do_without_what_is_missing() -> None:
    job = llama_herder.Job.from_json(
        {
            "id": "job_1",
            "status": "succeeded",
            "hue": "red",
            "metadata": None,
            "result": {"text": "hi", "x": 1},
        }
    )
    assert job.ended
    assert job.text == "hi"
    assert job.metadata == {}
    assert job.raw["hue"] == "red"
    assert not llama_herder.Job.from_json(None).ended
    assert llama_herder.Job.from_json({"id": "job_1"}).text == ""


def test_a_new_key_does_not_show_itself() -> None:
    key = llama_herder.Key.from_json({"id": "k1", "key": "hk_secret"})
    assert key.key == "hk_secret"
    assert "hk_secret" not in repr(key)
