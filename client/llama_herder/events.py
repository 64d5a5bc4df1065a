"""What a job's event stream tells: frozen dataclasses read from the herder's JSON. Knows nothing of how it came.

`id` is the event's place in the job's log, to go on after it later; None for news that is in no log. Fields that a
newer herder adds are in `raw`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from llama_herder._json import FromJson
from llama_herder.types import Job


@dataclass(frozen=True)
class _Event(FromJson):
    id: str | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class Queued(_Event):
    """The job is in line, `position` (from 0) others ahead of it; comes again, without an id, when that changes."""

    job_id: str = ""
    position: int = 0
    eta_ms: int | None = None


@dataclass(frozen=True)
class Started(_Event):
    """A worker has taken the job."""

    attempt: int = 0


@dataclass(frozen=True)
class Tokens(_Event):
    """More of the answer: `count` tokens from the `index`-th on, as `text`; of several answers, of which."""

    text: str = ""
    count: int = 0
    index: int = 0
    attempt: int = 0
    choice: int = 0
    reasoning: str = ""


@dataclass(frozen=True)
class Restarted(_Event):
    """A worker died: the text so far is void, the answer starts again from here."""

    attempt: int = 0


@dataclass(frozen=True)
class Done(_Event):
    """The last event: the job as it ended, with an answer, or cancelled or expired."""

    job: Job = field(default_factory=Job)


Event: TypeAlias = Queued | Started | Tokens | Restarted | Done

_KINDS: dict[str, type[Queued | Started | Tokens | Restarted]] = {
    "queued": Queued,
    "started": Started,
    "tokens": Tokens,
    "restarted": Restarted,
}

KNOWN = frozenset({*_KINDS, "done", "error"})


def event_of(kind: str, found: Mapping[str, Any], event_id: str | None) -> Event:
    """The event of a kind that is one of KNOWN, but for `error`, which is an exception."""
    if kind == "done":
        return Done(Job.from_json(found), id=event_id)
    return replace(_KINDS[kind].from_json(found), id=event_id)
