"""Which request each call of the API is, and the two flows made of several: waiting, and judging how a job ended.

Pure: builds `Call` values, knows the paths and nothing of how they are sent.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote as _quoted

from llama_herder._core import Call, Flow, Send, Sleep, perform
from llama_herder._json import Page, page_of
from llama_herder._patience import Patience
from llama_herder.errors import JobCancelled, JobExpired, JobFailed, Unavailable, WaitTimeout
from llama_herder.problems import InvalidRequest, NotFound
from llama_herder.types import Account, Info, Job, LedgerEntry, Message, Model, Quote, Worker

POLL_S = 30.0
PAUSE_S = 0.25
OUTAGE_S = 300.0


def id_of(thing: object) -> str:
    """The id of a job or a batch, where an id does as well."""
    found = thing if isinstance(thing, str) else getattr(thing, "id", None)
    if not isinstance(found, str):
        raise TypeError(f"a job, a batch or its id is needed, not {kind_of(thing)}")
    return found


def seconds(given: float | None, name: str = "timeout") -> float | None:
    """A time that can be waited for; whatever else was passed is told apart here, before anything is sent."""
    if given is not None and (isinstance(given, bool) or not isinstance(given, int | float)):
        raise TypeError(f"{name} must be a number of seconds, or None, not {kind_of(given)}")
    if given is not None and not given >= 0:
        raise InvalidRequest(f"{name} must be 0 seconds or more, not {given:g}")
    return given


def kind_of(given: object) -> str:
    """What was given, for a message: None, a str, an int."""
    name = type(given).__name__
    return "None" if given is None else f"{'an' if name[:1] in 'aeiouAEIOU' else 'a'} {name}"


def part(text: str) -> str:
    """A name or an id as one segment of a path; an empty one would be another address."""
    if not isinstance(text, str):
        raise TypeError(f"a name or an id must be text, not {kind_of(text)}")
    if not text.strip("."):
        raise NotFound(f"{text!r} is not a name or an id")
    return _quoted(text, safe="", errors="surrogateescape")


def paging(limit: int | None, cursor: str | None) -> dict[str, str | int]:
    found: dict[str, str | int | None] = {"limit": limit, "cursor": cursor}
    return {name: value for name, value in found.items() if value is not None}


# --- jobs ------------------------------------------------------------------------------------------------


def ask(prompt: str | Sequence[Message], tokens: int | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a submission or of a quote; what was not given is left out."""
    body: dict[str, Any] = (
        {"prompt": prompt}
        if isinstance(prompt, str)
        else {"messages": chat(prompt, "the prompt must be text, or")}
    )
    body["tokens"] = tokens
    body |= options
    if body.get("stop") is not None:
        body["stop"] = stops(body["stop"])
    if not body.get("raw"):
        body.pop("raw", None)
    return {name: value for name, value in body.items() if value is not None}


def stops(given: object) -> list[Any]:
    """Texts before which the answer ends, or only one; whatever else was passed is told apart here."""
    if isinstance(given, str):
        return [given]
    if isinstance(given, bytes | Mapping) or not isinstance(given, Iterable):
        raise TypeError(
            f'stop must be text, or a list of texts such as ["\\n", "User:"], not {kind_of(given)}'
        )
    return list(given)


def chat(given: object, wanted: str = "messages must be") -> list[Message]:
    """The turns of a chat; whatever else was passed is told apart here, before anything is sent."""
    found = kind_of(given)
    if not isinstance(given, str | bytes | Mapping) and isinstance(given, Iterable):
        turns = list(given)
        if all(isinstance(turn, Mapping) for turn in turns):
            return turns
        found += " with other things than messages"
    raise TypeError(f'{wanted} a list of messages such as [{{"role": "user", "content": "…"}}], not {found}')


def keyed(idempotency_key: str | None) -> dict[str, str]:
    """The header with the key of a submission, a new one where none is given."""
    if idempotency_key is not None and not isinstance(idempotency_key, str):
        raise TypeError(
            f'idempotency_key must be text, such as "order-17", or None, not {kind_of(idempotency_key)}'
        )
    key = idempotency_key or str(uuid.uuid4())
    if not (key.isascii() and key.isprintable()):
        raise InvalidRequest("the idempotency key must be printable ASCII")
    return {"Idempotency-Key": key}


def submit(body: Mapping[str, Any], idempotency_key: str | None) -> Call[Job]:
    """Hold the fee and join the line. Repeatable: the key makes the herder answer a repetition with the same job."""
    headers = keyed(idempotency_key)
    send = Send("POST", "/v1/jobs", body=body, headers=headers)
    return Call(send, Job.from_json, unsure=may_be_there("job", headers))


def may_be_there(what: str, headers: Mapping[str, str]) -> str:
    """What to say of a submission whose reply was lost."""
    key = headers["Idempotency-Key"]
    return (
        f"the {what} may have been accepted: the same submission with the idempotency key {key} tells, "
        "without paying twice"
    )


def quote(body: Mapping[str, Any]) -> Call[Quote]:
    """What a submission would cost; changes nothing."""
    return Call(Send("POST", "/v1/quote", body=body), Quote.from_json)


def job(job_id: str, wait_s: float = 0) -> Call[Job]:
    """A job as it is now, or after at most `wait_s` seconds of waiting for its end."""
    params = {"wait": f"{wait_s:.3f}".rstrip("0").rstrip(".")} if wait_s else {}
    return Call(Send("GET", f"/v1/jobs/{part(job_id)}", params=params, read_s=wait_s), Job.from_json)


def jobs(limit: int | None, cursor: str | None) -> Call[Page[Job]]:
    """The account's jobs, newest first."""
    return Call(Send("GET", "/v1/jobs", params=paging(limit, cursor)), page_of("jobs", Job.from_json))


def cancel(job_id: str) -> Call[Job]:
    """Take a job out of the line, or ask its worker to stop."""
    return Call(Send("DELETE", f"/v1/jobs/{part(job_id)}"), Job.from_json)


def waiting(
    job_id: str,
    url: str,
    patience: Patience,
    timeout: float | None = None,
    *,
    deadline: float | None = None,
    poll_s: float = POLL_S,
    on_poll: Callable[[Job], object] | None = None,
) -> Flow[Job]:
    """Polls, each poll a long one, until the job has ended; sits out a herder that restarts, for five minutes.

    Raises WaitTimeout after `timeout` seconds (`deadline`, where they began earlier), and the last error once the
    herder was away for too long: as soon as for any call where nobody has ever answered this client.
    """
    seconds(timeout)
    seconds(poll_s, "poll_s")
    clock = patience.clock
    if deadline is None:
        deadline = math.inf if timeout is None else clock() + timeout
    seen: Job | None = None
    while True:
        asked = clock()
        wait_s = _whole_ms(min(poll_s, deadline - asked))
        lasting = patience.lasting(min(deadline, asked + OUTAGE_S))
        try:
            seen = yield from perform(job(job_id, wait_s), url, lasting)
        except Unavailable as error:
            if patience.contact.made and deadline <= asked + OUTAGE_S:
                raise _still(job_id, seen, timeout, f" ({error.detail})") from error
            raise
        if on_poll is not None:
            on_poll(seen)
        if seen.ended:
            return seen
        left = deadline - clock()
        if left <= 0:
            raise _still(job_id, seen, timeout)
        if clock() - asked < PAUSE_S:
            yield Sleep(min(PAUSE_S, left))


def _whole_ms(wait_s: float) -> float:
    """Rounded up to milliseconds, so that the answer does not come before its time; 0 for what is over."""
    return math.ceil(wait_s * 1000) / 1000 if wait_s > 0 else 0


def _still(job_id: str, seen: Job | None, timeout: float | None, why: str = "") -> WaitTimeout:
    state = f"{job_id} is still {seen.status}" if seen else f"no news of {job_id}"
    if seen is not None and seen.warning:
        why += f" ({seen.warning.rstrip('.')})"
    detail = f"{state} after {timeout or 0:g} s{why}; it lives on: fetch it later by its id"
    return WaitTimeout(detail, job_id, seen)


def running(
    body: Mapping[str, Any],
    idempotency_key: str | None,
    url: str,
    patience: Patience,
    timeout: float | None = None,
) -> Flow[Job]:
    """Submits, waits and judges, all in `timeout`: it is sent in any case, and then looked at once at least."""
    seconds(timeout)
    deadline = math.inf if timeout is None else patience.clock() + timeout
    accepted = yield from perform(submit(body, idempotency_key), url, patience.within(deadline))
    ended = yield from waiting(accepted.id, url, patience, timeout, deadline=deadline)
    return answered(ended)


def answered(job: Job) -> Job:
    """The job, if it succeeded; otherwise the exception that says how it ended."""
    if job.status == "cancelled":
        raise JobCancelled(f"{job.id} was cancelled{_refund(job)}", job)
    if job.status == "expired":
        raise JobExpired(f"{job.id} expired{_refund(job)}", job)
    if job.status != "succeeded":
        raise failed(job)
    return job


def failed(job: Job) -> JobFailed:
    """The exception for a job that failed."""
    why = f": {job.error.message or job.error.code}" if job.error else ""
    return JobFailed(f"{job.id} failed{why}{_refund(job)}", job)


def _refund(job: Job) -> str:
    return "" if job.refunded is None else f"; {job.refunded} credits were refunded"


# --- the herd, and the own account ---------------------------------------------------------------------------


def info() -> Call[Info]:
    """The price list and how busy the herd is; needs no key."""
    return Call(Send("GET", "/info"), Info.from_json)


def models() -> Call[Page[Model]]:
    """The herd's models."""
    return Call(Send("GET", "/v1/models"), page_of("models", Model.from_json))


def workers() -> Call[Page[Worker]]:
    """The herd's workers."""
    return Call(Send("GET", "/v1/workers"), page_of("workers", Worker.from_json))


def account() -> Call[Account]:
    """The account that the key belongs to."""
    return Call(Send("GET", "/v1/account"), Account.from_json)


def ledger(limit: int | None, cursor: str | None, name: str | None = None) -> Call[Page[LedgerEntry]]:
    """The movements of an account's credits, newest first; the own one's unless it is named."""
    path = "/v1/account/ledger" if name is None else f"/v1/admin/accounts/{part(name)}/ledger"
    return Call(Send("GET", path, params=paging(limit, cursor)), page_of("entries", LedgerEntry.from_json))
