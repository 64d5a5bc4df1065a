"""An answer told piece by piece to a client that cannot take a piece back. Pure.

Where a worker dies the answer begins again on another one. As long as it says the same, nothing is told until it says
more; where it says something else the stream ends with an error, the job is cancelled, and the rest refunded.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict

from herder.api.frames import PING
from herder.dialects.attended import failure_of
from herder.errors import Conflict, HerderError, Overloaded
from herder.protocol import Event, EventKind, JobRecord


class Chunks(ABC):
    """A `Teller` of which a dialect writes what its pieces, its end and its errors look like."""

    opening: bytes = b""
    ping: bytes = PING

    def __init__(self) -> None:
        self.over = False
        self._again = False  # an attempt has ended without an answer
        self._said: dict[tuple[int, str], str] = defaultdict(str)
        self._heard: dict[tuple[int, str], str] = defaultdict(str)

    # --- what a dialect writes ---------------------------------------------------------------------------

    @abstractmethod
    def piece(self, choice: int, text: str, reasoning: str, count: int) -> bytes:
        """New text of an answer, or new reasoning; `count` tokens of it, as far as that is known."""

    @abstractmethod
    def end(self, record: JobRecord) -> bytes:
        """All answers are whole."""

    @abstractmethod
    def broken(self, error: HerderError) -> bytes:
        """There will be no more."""

    # --- a teller ----------------------------------------------------------------------------------------

    def queued(self, job_id: str, position: int, eta_ms: int | None, event_id: str | None) -> bytes:
        """No dialect has words for it."""
        return b""

    def begun(self, kind: EventKind, attempt: int, event_id: str) -> bytes:
        """An attempt: the first, or one that says everything again."""
        if kind is EventKind.RESTARTED:
            self._again = True
            self._heard.clear()
        return b""

    def tokens(self, event_id: str, fields: dict[str, str], reasoning: str = "") -> bytes:
        """A piece, less what has been said already."""
        if self.over:
            return b""
        choice = int(fields.get("choice", 0))
        text, thought = self._new(choice, "text", fields["text"]), self._new(choice, "thought", reasoning)
        if text is None or thought is None:
            self.over = True
            return self.broken(
                Conflict(
                    "a worker died, and another one answers differently; ask again, the rest is refunded"
                )
            )
        return self.piece(choice, text, thought, int(fields["count"])) if text or thought else b""

    def _new(self, choice: int, part: str, more: str) -> str | None:
        """What of it is to be said; None where it is not what was said before."""
        key = choice, part
        if not self._again:
            self._said[key] += more
            return more
        self._heard[key] += more
        said, heard = self._said[key], self._heard[key]
        if heard.startswith(said):
            self._said[key] = heard
            return heard[len(said) :]
        return "" if said.startswith(heard) else None

    def last(self, event: Event, record: JobRecord | None) -> bytes:
        """The job has ended."""
        if self.over:
            return b""
        self.over = True
        if record is None:
            return self.broken(Overloaded("the answer has expired", retry_after=1))
        failed = failure_of(record)
        return self.end(record) if failed is None else self.broken(failed)

    def stopped(self) -> bytes:
        """The herder stops, and the job with it."""
        return b"" if self.over else self.broken(Overloaded("this herder stops; ask again", retry_after=1))
