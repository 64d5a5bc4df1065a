"""A job's event stream, sans IO: what to open, what to read out of it, when to come back and after which event.

A flow as those of `_core`, with four more effects: open a stream, read it, close it, and hand over an event. Must not
know httpx, threads or event loops.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar
from urllib.parse import unquote

from llama_herder import _calls
from llama_herder._core import (
    Broken,
    Call,
    Effect,
    Reply,
    Send,
    Sleep,
    doubtful,
    error_of,
    final,
    note_contact,
    passing,
    pause_after,
    perform,
    undecided,
    worded,
)
from llama_herder._patience import Patience, Tries
from llama_herder._sse import Frame, Parser, TooLong
from llama_herder.errors import HerderError, WaitTimeout
from llama_herder.events import KNOWN, Done, Event, Queued, event_of
from llama_herder.problems import InvalidRequest
from llama_herder.types import Job

E = TypeVar("E")

RETRY_S_MAX = 30.0
SUBMIT_S_MIN = 5.0
EVENTS = "text/event-stream"
JSON_LINES = "application/jsonl"

_ID = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")
_LOCATION = re.compile(r"/v1/jobs/([^/?#]+)")
_CUT = "the stream ended before the job did"


@dataclass(frozen=True)
class Open:
    """Effect: one request whose reply, if it is of this kind, is left open to be read.

    At most `silence_s` without a byte, if given.
    """

    send: Send
    silence_s: float | None = None
    kind: str = EVENTS


@dataclass(frozen=True)
class Read:
    """Effect: the next bytes of what is open; none at its end."""


@dataclass(frozen=True)
class Close:
    """Effect: hang up."""


@dataclass(frozen=True)
class Emit(Generic[E]):
    """Effect: an event (or whatever the stream is one of) for the caller."""

    event: E


@dataclass(frozen=True)
class Opened:
    """A stream is open; header names in lower case."""

    headers: Mapping[str, str]


StreamEffect: TypeAlias = Effect | Open | Read | Close | Emit[E]
StreamOutcome: TypeAlias = Reply | Broken | Opened | bytes | None
Emitting: TypeAlias = Generator[StreamEffect[E], Any, None]
StreamFlow: TypeAlias = Emitting[Event]


def streaming(
    body: Mapping[str, Any],
    idempotency_key: str | None,
    url: str,
    patience: Patience,
    *,
    timeout: float | None,
    cancel_on_disconnect: bool,
) -> StreamFlow:
    """Submits and follows, all in `timeout`. Until it is accepted it is tried as any submission is."""
    found = _Following(url, patience, timeout, cancel_on_disconnect)
    found.submission = _calls.submit(body, idempotency_key)
    return found.flow()


def following(
    job_id: str,
    after: str | None,
    url: str,
    patience: Patience,
    *,
    timeout: float | None,
    cancel_on_disconnect: bool,
) -> StreamFlow:
    """Follows a job, from its first event or from the one after `after`."""
    if after is not None and not _ID.fullmatch(after):
        raise InvalidRequest(f"{after!r} is not the id of an event: it must look like 1732180000000-0")
    found = _Following(url, patience, timeout, cancel_on_disconnect)
    found.last = after
    found.accepted(job_id)
    return found.flow()


class _Following:
    """One job's stream over all its connections."""

    def __init__(
        self, url: str, patience: Patience, timeout: float | None, cancel_on_disconnect: bool
    ) -> None:
        self.submission: Call[Job] | None = None
        self.last: str | None = None
        self._url, self._patience, self._timeout = url, patience, _calls.seconds(timeout)
        self._params = {"cancel_on_disconnect": "true"} if cancel_on_disconnect else {}
        self._job_id = ""
        self._deadline = math.inf
        self._until = math.inf
        self._tries = Tries()
        self._retry_s: float | None = None
        self._heard = False

    def accepted(self, job_id: str) -> None:
        """The job is there: from now on the herder may be away for as long as a wait sits out."""
        if self._until == math.inf:
            self._until = self._patience.clock() + _calls.OUTAGE_S
        self._job_id = self._job_id or job_id

    def flow(self) -> StreamFlow:
        """1. Open. 2. Read to the last event. 3. Where that did not come: pause, and again from where it broke off."""
        if self._timeout is not None:
            self._deadline = self._patience.clock() + self._timeout
        while True:
            left_s = self._deadline - self._patience.clock()
            if left_s <= 0 and self._job_id:
                raise self._late()
            outcome = yield Open(self._request(), self._silence_s(left_s))
            note_contact(outcome, self._patience)
            if isinstance(outcome, Opened):
                at = _LOCATION.search(outcome.headers.get("location", ""))
                self.accepted(unquote(at[1]) if at else "")
                outcome = yield from self._read()
            elif isinstance(outcome, Reply) and 200 <= outcome.status < 300:
                outcome = yield from self._all_seen(outcome)
            if outcome is None:
                return
            yield Close()
            yield Sleep(self._pause_s(outcome))

    def _silence_s(self, left_s: float) -> float | None:
        """The client's own where this is None. A submission is not hurried: its reply may take as long as it takes."""
        least_s = 0.0 if self._job_id else SUBMIT_S_MIN
        return max(left_s, least_s) if left_s < math.inf else None

    def _request(self) -> Send:
        headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity"}
        if not self._job_id:
            assert self.submission is not None
            send = self.submission.send
            params = {**send.params, **self._params, "stream": "true"}
            return Send(send.method, send.path, params, send.body, {**send.headers, **headers})
        if self.last is not None:
            headers["Last-Event-ID"] = self.last
        return Send("GET", f"/v1/jobs/{_calls.part(self._job_id)}/events", self._params, headers=headers)

    def _read(self) -> Generator[StreamEffect[Event], Any, Broken | None]:
        """None once the last event was handed over, otherwise why it did not come."""
        parser = Parser()
        while True:
            piece: bytes | Broken = yield Read()
            if isinstance(piece, Broken):
                return piece
            if not piece:
                return Broken(True, _CUT)
            self._tries = Tries()
            self._until = self._patience.clock() + _calls.OUTAGE_S
            try:
                frames = parser.feed(piece)
            except TooLong as error:
                raise HerderError(f"{self._url} sent no event stream of a herder: {error}") from None
            if parser.retry_ms is not None:
                self._retry_s = min(parser.retry_ms / 1000, RETRY_S_MAX)
            for frame in frames:
                event = self._event(frame)
                if event is not None:
                    yield Emit(event)
                if isinstance(event, Done):
                    return None
            if self._patience.clock() >= self._deadline:
                raise self._late()

    def _event(self, frame: Frame) -> Event | None:
        """None for what was seen before, and for kinds that this version does not know. Raises JobFailed."""
        if frame.id is not None and _ID.fullmatch(frame.id):
            if self.last is not None and _order(frame.id) <= _order(self.last):
                return None
            self.last = frame.id
        if frame.event not in KNOWN:
            return None
        try:
            found = json.loads(frame.data)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise HerderError(f"{self._url} sent an event that is not like a herder's (no JSON object)")
        if frame.event == "error":
            raise _calls.failed(Job.from_json(found))
        event = event_of(frame.event, found, frame.id)
        if isinstance(event, Queued):
            self.accepted(event.job_id)
        return event

    def _all_seen(self, reply: Reply) -> Generator[StreamEffect[Event], Any, Broken | None]:
        """204: the job has ended and its last event was seen; how it ended is asked for."""
        if reply.status != 204 or not self._job_id:
            found = f"{self._url} answered, but not with an event stream: perhaps its version has none"
            error = HerderError(found, status=reply.status)
            raise worded(error, self.submission.unsure) if self.submission else error
        job = yield from perform(_calls.job(self._job_id), self._url, self._lasting())
        if not job.ended:
            return Broken(True, _CUT)
        if job.status == "failed":
            raise _calls.failed(job)
        yield Emit(Done(job, id=self.last))
        return None

    def _lasting(self) -> Patience:
        if self._until == math.inf:
            return self._patience.within(self._deadline)
        return self._patience.lasting(min(self._deadline, self._until))

    def _pause_s(self, outcome: Reply | Broken) -> float:
        """Seconds until the next try; what there is to raise where there shall be none."""
        # A herder that stops cuts all its streams at once: they shall not all come back at once.
        least_s = (self._retry_s or 0.0) * (1 + 0.5 * self._patience.jitter())
        pause_s = pause_after(outcome, self._tries, self._lasting(), least_s)
        error = error_of(outcome, self._url)
        self._heard = self._heard or doubtful(error)
        if pause_s is not None:
            return pause_s
        known = bool(self._job_id) and self._patience.contact.made
        if known and passing(outcome) and self._deadline <= self._until:
            raise self._late() from error
        if self._job_id and undecided(outcome, error):
            raise worded(error, f"{self._job_id} lives on: fetch it later by its id")
        unsure = self.submission.unsure if self.submission and not self._job_id else ""
        raise final(error, outcome, unsure, self._heard)

    def _late(self) -> WaitTimeout:
        detail = f"{self._job_id} has not ended after {self._timeout or 0:g} s; it lives on: fetch it later by its id"
        return WaitTimeout(detail, self._job_id)


def _order(event_id: str) -> tuple[int, int, int]:
    """Zeros before an id come after the id without them: what had been held back to the end of the answer."""
    at, _, number = event_id.partition("-")
    return int(at), int(number), len(event_id) - len(event_id.lstrip("0"))
