"""An expected error at the command line: its one line, its exit code, its JSON. Prints nothing."""

from __future__ import annotations

import re
from typing import Any

from llama_herder._core import one_line
from llama_herder.cli.output import Exit, money
from llama_herder.errors import HerderError, JobEnded, Refusal, WaitTimeout
from llama_herder.problems import (
    Forbidden,
    InsufficientFunds,
    InvalidRequest,
    MissingKey,
    RateLimited,
    UnknownModel,
)

FAULTS_CHARS_MAX = 4_000  # of one error; a herder names at most 20 faults
_UNNAMED = re.compile(r"; and (?:at least )?(\d{1,9}) more$")

# A number that is an amount or a limit, by the words around it; others may be part of somebody's name.
_AMOUNT = re.compile(
    r"(?P<before>\b(?:is|not|than|to|most|least|below|between|pass) )(?P<amount>\d{4,})(?=[ ,;:.)]|$)"
    r"|(?<![^ (])(?P<counted>\d{4,})(?= (?:credits|bytes|tokens|are|were)\b)"
)

_ADMIN_KEY = (
    "set HERDER_ADMIN_KEY to an admin's key: `herder up` prints one at its first start, and `herder admin-key` "
    "makes another"
)
_BY_STATUS = {401: Exit.AUTHENTICATION, 403: Exit.AUTHENTICATION, 402: Exit.PAYMENT, 404: Exit.NOT_FOUND}


def exit_code(error: HerderError) -> Exit:
    """The exit code of an error."""
    if isinstance(error, JobEnded):
        return Exit.FAILED
    if isinstance(error, Refusal) and not isinstance(error, RateLimited):
        return _BY_STATUS.get(error.status, Exit.USAGE)
    return Exit.UNAVAILABLE


def error_line(error: HerderError) -> str:
    """The error in one line, with the numbers and names that its detail leaves out."""
    said = _grouped(error.detail.rstrip("."))
    if isinstance(error, MissingKey):
        return "no API key: give one with --key, or set HERDER_API_KEY (an admin's: HERDER_ADMIN_KEY)"
    if isinstance(error, WaitTimeout):
        return said.replace(
            "fetch it later by its id",
            f"`herder jobs {error.job_id}` fetches it, `herder cancel {error.job_id}` ends it",
        )
    more: list[str] = []
    if isinstance(error, InsufficientFunds):
        facts = (("needed", error.needed), ("balance", error.balance))
        more = [
            f"{name} {money(value)}" for name, value in facts if value is not None and not _says(said, value)
        ]
        more += error.ways_out("--multiplier 1", "--tokens ", money)
    elif isinstance(error, Forbidden):
        more = [_ADMIN_KEY]
    elif isinstance(error, UnknownModel) and error.models and not all(name in said for name in error.models):
        more = [f"there are: {', '.join(error.models)}"]
    elif isinstance(error, InvalidRequest):
        return one_line(_grouped("; ".join(_faults(error))), FAULTS_CHARS_MAX)
    elif error.status == 500 and error.request_id:
        more = [f"request {error.request_id}"]
    return one_line("; ".join([said, *more]), 700)


def _says(text: str, value: int) -> bool:
    return str(value) in "".join(char for char in text if char not in " ,_\u202f\u00a0")


def _grouped(text: str) -> str:
    """The herder's words with their amounts as every amount is printed here."""
    return _AMOUNT.sub(lambda at: (at["before"] or "") + money(int(at["amount"] or at["counted"])), text)


def error_json(error: HerderError) -> dict[str, Any]:
    """What --json prints for an error: the job as it ended, otherwise the problem under `error`."""
    if isinstance(error, JobEnded):
        return dict(error.job.raw)
    found: dict[str, Any] = {"code": error.code, "status": error.status, "detail": error.detail}
    if isinstance(error, WaitTimeout):
        found["job_id"] = error.job_id
    return {"error": found | {"request_id": error.request_id} | error.extra}


def _faults(error: InvalidRequest) -> list[str]:
    """The detail, then the faults that it leaves out, in place of their number."""
    named = [(f"{name}: {message}" if name else message, message) for name, message in error.errors]
    among = len(named) > 1  # one message may be said of several fields
    more = [each for each, message in named if (each if among else message) not in error.detail]
    detail = error.detail.rstrip(".")
    counted = _UNNAMED.search(detail)
    if counted and more:
        left = int(counted[1]) - len(more)
        detail = detail[: counted.start()]
        more += [f"and {left} more"] if left > 0 else []
    return [detail, *more]
