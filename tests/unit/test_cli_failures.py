"""What the command line makes of an error: one line with a way out, an exit code, JSON for scripts."""

from __future__ import annotations

import json
from typing import Any

import pytest

import llama_herder
from llama_herder.cli import app, failures
from llama_herder.cli.output import Exit
from llama_herder.types import Job


def error(kind: type[llama_herder.HerderError], **more: object) -> llama_herder.HerderError:
    return kind("no", **more)  # type: ignore[arg-type]


JOB = Job(id="job_1", status="failed")


@pytest.mark.parametrize(
    ("problem", "code"),
    [
        (llama_herder.JobFailed("no", JOB), 1),
        (llama_herder.JobCancelled("no", JOB), 1),
        (error(llama_herder.BadRequest), 2),
        (error(llama_herder.InvalidRequest), 2),
        (error(llama_herder.ContextExceeded), 2),
        (error(llama_herder.TooLarge), 2),
        (error(llama_herder.Conflict), 2),
        (error(llama_herder.MissingKey), 3),
        (error(llama_herder.AccountSuspended), 3),
        (error(llama_herder.FeeTooLow), 4),
        (error(llama_herder.UnknownModel), 5),
        (error(llama_herder.RateLimited), 6),
        (error(llama_herder.NoWorker), 6),
        (error(llama_herder.CannotConnect), 6),
        (error(llama_herder.HerderError), 6),
        (error(llama_herder.Refusal, status=404), 5),
        (llama_herder.WaitTimeout("no", "job_1"), 6),
    ],
)
def test_exit_codes(problem: llama_herder.HerderError, code: int) -> None:
    assert failures.exit_code(problem) == code


def test_an_error_line_adds_what_its_detail_leaves_out() -> None:
    extra = {"needed": 1050, "balance": 7, "max_affordable_tokens": 3}
    bare = llama_herder.InsufficientFunds("not enough credits", extra=extra)
    cheap = "--multiplier 1 is the cheapest bid; enough for --tokens 3 at this bid"
    assert failures.error_line(bare) == f"not enough credits; needed 1 050; balance 7; {cheap}"
    told = llama_herder.InsufficientFunds("1 050 are needed and 7 there", extra=extra)
    assert failures.error_line(told) == f"1 050 are needed and 7 there; {cheap}"
    hostile = llama_herder.Refusal("a\x1b[31m\nb" + "c" * 10_000)
    assert "\x1b" not in failures.error_line(hostile)
    assert len(failures.error_line(hostile)) <= 700


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        (
            {"needed": 5000, "base_fee": 1000, "balance": 1100, "max_affordable_tokens": 3},
            "with multiplier=1 it costs 1000, the base fee; enough for tokens=3 at this bid",
        ),
        (
            {"needed": 5000, "base_fee": 1000, "balance": 25, "max_affordable_tokens": 0}
            | {"set_prompt_fee": 10, "fee_per_token": 2},
            "even with multiplier=1 it costs 1000, the base fee, and the balance buys at most 7 tokens; "
            "not enough for a single token at this bid",
        ),
        (
            {"needed": 1000, "base_fee": 1000, "balance": 10, "max_affordable_tokens": 0},
            "1000 is the base fee, the least that so many tokens cost; not enough for a single token",
        ),
        (
            {"needed": 1000, "base_fee": 1000, "balance": 12, "max_affordable_tokens": 2},
            "1000 is the base fee, the least that so many tokens cost; enough for tokens=2",
        ),
        ({"needed": 9, "max_affordable_tokens": None}, "multiplier=1 is the cheapest bid"),
        ({"needed": 9, "affordable_items": 3}, ""),
    ],
)
def test_too_few_credits_come_with_a_way_out(fields: dict[str, Any], shown: str) -> None:
    error = llama_herder.InsufficientFunds("not enough.", extra=fields)
    assert str(error) == "; ".join(["not enough", shown] if shown else ["not enough"])
    in_flags = shown.replace("multiplier=1", "--multiplier 1").replace("tokens=", "--tokens ")
    assert in_flags.replace("1000", "1 000") in failures.error_line(error)


def test_a_key_that_is_no_admins_comes_with_where_to_find_one() -> None:
    line = failures.error_line(llama_herder.Forbidden("this needs an admin key"))
    assert line.startswith(
        "this needs an admin key; set HERDER_ADMIN_KEY to an admin's key: `herder up` prints one"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "hi", "--tokens", "abc"], "--tokens must be a whole number such as 40, not 'abc'"),
        (["run", "hi", "--tokens", "4.5"], "--tokens must be a whole number such as 40, not '4.5'"),
        (
            ["run", "hi", "--tokens", "4", "--multiplier", "x"],
            "--multiplier must be a number such as 1.5, not 'x'",
        ),
        (["account", "deposit", "ann", "x"], "AMOUNT must be a whole number such as 40, not 'x'"),
        (["jobs", "--limit", "0"], "--limit must be 1 or more, not '0'"),
    ],
)
def test_a_value_of_the_wrong_kind_is_told_in_plain_words(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.execute(arguments) == Exit.USAGE
    assert capsys.readouterr().err.startswith(f"error: {words}; see herder ")


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("only 5080 credits are available", "only 5 080 credits are available"),
        (
            "this costs 1000 credits and 5080 are available",
            "this costs 1 000 credits and 5 080 are available",
        ),
        ("the cap is 500000", "the cap is 500 000"),
        ("must be at most 4000, so", "must be at most 4 000, so"),
        ("no account 12345", "no account 12345"),
        ("deposit 12345 was made, key 0123-4567 too", "deposit 12345 was made, key 0123-4567 too"),
        ("http://127.0.0.1:8191 is 80% of 2026-11-21", "http://127.0.0.1:8191 is 80% of 2026-11-21"),
    ],
)
def test_amounts_in_the_words_of_the_herder_look_like_all_amounts(said: str, shown: str) -> None:
    assert failures.error_line(llama_herder.Refusal(said)) == shown


def test_json_errors_carry_what_the_herder_said() -> None:
    refused = llama_herder.TooLarge("too long", request_id="req_1", extra={"limit": 9})
    assert json.loads(json.dumps(failures.error_json(refused)))["error"] == {
        "code": "too_large", "status": 413, "detail": "too long", "request_id": "req_1", "limit": 9,
    }  # fmt: skip
    assert failures.error_json(llama_herder.JobFailed("no", Job.from_json({"id": "job_1"}))) == {
        "id": "job_1"
    }


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "unix:///nope.sock"])
@pytest.mark.parametrize("command", [["audit"], ["audit", "--json"], ["admin-key"]])
def test_a_server_command_without_its_redis_is_one_line_and_no_drift(
    command: list[str], url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HERDER_REDIS_URL", url)
    assert app.execute(command) == Exit.UNAVAILABLE
    shown = capsys.readouterr()
    assert shown.err.startswith("error: Redis cannot be reached: ")
    assert shown.err.count("\n") == 1
    if "--json" not in command:
        assert shown.out == ""
        return
    told = json.loads(shown.out)["error"]
    assert (told["code"], told["status"], told["request_id"]) == ("redis_unavailable", 503, None)
    assert shown.err == f"error: {told['detail']}\n"
