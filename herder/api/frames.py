"""Server-sent events as bytes: one frame an event of a job's log, the same whether it came from the log or its bell.

Pure. JSON is ASCII and so has one line for every reader, also for those that break lines at U+2028.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from herder.protocol import EventKind

RETRY = b"retry: 1000\n\n"  # a browser's EventSource comes back after a second
PING = b": ping\n\n"
REMEMBERED = 256  # messages that are read once for all who listen to the same job

Place = tuple[int, int]
START: Place = (0, 0)


@dataclass(frozen=True, slots=True)
class Frame:
    """One event `tokens` to send, and where it stands in the log."""

    place: Place
    event_id: str
    body: bytes
    fields: dict[str, str]


def place_of(event_id: str) -> Place:
    """A log id as what it is ordered by."""
    milliseconds, _, sequence = event_id.partition("-")
    return int(milliseconds), int(sequence)


def frame(event: str, shown: dict[str, Any], event_id: str | None = None) -> bytes:
    """An event with its fields as JSON; without an id, a reader that comes back does not start from it."""
    line = json.dumps(shown, separators=(",", ":"))
    identity = f"id: {event_id}\n" if event_id else ""
    return f"{identity}event: {event}\ndata: {line}\n\n".encode()


def tokens_frame(event_id: str, fields: dict[str, str], reasoning: str = "") -> bytes:
    """An event `tokens`, by far the most frequent one. The numbers are texts in the log and numbers here."""
    thought = f'"reasoning":{json.dumps(reasoning)},' if reasoning else ""
    choice = f'"choice":{fields["choice"]},' if "choice" in fields else ""
    chances = f',"logprobs":{fields["logprobs"]}' if "logprobs" in fields else ""  # as JSON, in ASCII
    return (
        f"id: {event_id}\nevent: tokens\n"
        f'data: {{"attempt":{fields["attempt"]},"index":{fields["index"]},"count":{fields["count"]},{choice}{thought}'
        f'"text":{json.dumps(fields["text"])}{chances}}}\n\n'
    ).encode()


@lru_cache(REMEMBERED)
def rung(message: bytes) -> Frame | EventKind:
    """What a job's bell said: the frame of `tokens`; of anything else only the kind, since more belongs to it."""
    fields = json.loads(message)
    if fields["kind"] != EventKind.TOKENS.value:
        return EventKind(fields["kind"])
    event_id = fields["id"]
    return Frame(place_of(event_id), event_id, tokens_frame(event_id, fields), fields)
