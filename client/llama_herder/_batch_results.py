"""The results of a batch as they come, sans IO: lines out of bytes, and where to go on after a line that broke.

Flows as those of `_streams`. Must not know httpx, threads or event loops.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from typing import Any

from llama_herder import _batch_calls, _calls
from llama_herder._core import (
    Broken,
    Call,
    Effect,
    Reply,
    Sleep,
    error_of,
    note_contact,
    pause_after,
    perform,
    worded,
)
from llama_herder._patience import Patience, Tries
from llama_herder._streams import JSON_LINES, Close, Emit, Emitting, Open, Opened, Read, StreamEffect
from llama_herder.batches import Batch, BatchResult
from llama_herder.errors import HerderError, Unavailable
from llama_herder.problems import NotFound

LINE_BYTES_MAX = 16_000_000
"""Longer than any answer of a herder."""

_CUT = "the results ended before the batch did"


class TooLong(ValueError):
    """A line is longer than anything that a herder sends."""


class Lines:
    """Whole lines out of bytes in any pieces; what follows the last line feed was cut off and is none."""

    def __init__(self, bytes_max: int = LINE_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._rest = bytearray()

    def feed(self, piece: bytes) -> list[bytes]:
        """The lines that this piece completes, without empty ones. Raises TooLong."""
        *ends, rest = piece.split(b"\n")
        found: list[bytes] = []
        for end in ends:
            self._grow(end)
            if line := bytes(self._rest).strip():
                found.append(line)
            self._rest.clear()
        self._grow(rest)
        return found

    @property
    def cut(self) -> bool:
        """Whether a line was begun and not ended."""
        return bool(self._rest)

    def _grow(self, more: bytes) -> None:
        if len(self._rest) + len(more) > self._bytes_max:
            raise TooLong(f"a line is longer than {self._bytes_max} bytes")
        self._rest += more


def results(batch_id: str, cursor: int, follow: bool, url: str, patience: Patience) -> Emitting[BatchResult]:
    """Every ended item from the cursor on, each once; with `follow` until the batch has ended."""
    return _Results(batch_id, cursor, follow, url, patience).flow()


def mapped(
    call: Call[Batch], ordered: bool, url: str, patience: Patience, accepted: Callable[[Batch], object]
) -> Emitting[BatchResult]:
    """Submits, then gives every result: in the order of the prompts, or as they come. `accepted` hears of the batch."""
    batch = yield from perform(call, url, patience)
    accepted(batch)
    flow = results(batch.id, 0, True, url, patience)
    yield from _in_order(flow) if ordered else flow


def _in_order(flow: Emitting[BatchResult]) -> Emitting[BatchResult]:
    """Holds back what comes before its turn; at most the whole batch."""
    early: dict[int, BatchResult] = {}
    turn = 0
    outcome: Any = None
    while True:
        try:
            effect = flow.send(outcome)
        except StopIteration:
            break
        outcome = None
        if not isinstance(effect, Emit):
            outcome = yield effect
            continue
        early[effect.event.index] = effect.event
        while turn in early:
            yield Emit(early.pop(turn))
            turn += 1
    for index in sorted(early):
        yield Emit(early[index])


class _Results:
    """One batch's results over all their connections."""

    def __init__(self, batch_id: str, cursor: int, follow: bool, url: str, patience: Patience) -> None:
        self._batch_id, self._cursor, self._follow = batch_id, cursor, follow
        self._url, self._patience = url, patience
        self._tries = Tries()
        self._alive()

    def flow(self) -> Emitting[BatchResult]:
        """1. Open. 2. Read to the end. 3. Where that was not the batch's own: pause, and again from the cursor."""
        while True:
            request = _batch_calls.results(self._batch_id, self._cursor, self._follow)
            outcome = yield Open(request, kind=JSON_LINES)
            note_contact(outcome, self._patience)
            if isinstance(outcome, Opened):
                outcome = yield from self._read()
                if outcome is None:
                    if not self._follow or (yield from self._is_all()):
                        return
                    outcome = Broken(True, _CUT)
            elif isinstance(outcome, Reply) and 200 <= outcome.status < 300:
                found = f"{self._url} answered, but not with the results of a batch; check the URL"
                raise HerderError(found, status=outcome.status)
            yield Close()
            yield Sleep(self._pause_s(outcome))

    def _read(self) -> Generator[StreamEffect[BatchResult], Any, Broken | None]:
        """None at an end between two lines, otherwise what broke."""
        lines = Lines()
        while True:
            piece: bytes | Broken = yield Read()
            if isinstance(piece, Broken):
                return piece
            if not piece:
                return Broken(True, _CUT) if lines.cut else None
            self._alive()
            try:
                whole = lines.feed(piece)
            except TooLong as error:
                raise self._strange(str(error)) from None
            for line in whole:
                found = self._result(line)
                if found.cursor > self._cursor:
                    self._cursor, self._tries = found.cursor, Tries()
                    yield Emit(found)

    def _result(self, line: bytes) -> BatchResult:
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict) or not isinstance(found.get("cursor"), int):
            raise self._strange("a line is no result")
        return BatchResult.from_json(found)

    def _strange(self, why: str) -> HerderError:
        return HerderError(f"{self._url} sent no results of a batch: {why}")

    def _is_all(self) -> Generator[Effect, Any, bool]:
        """Whether the batch has ended too; a proxy can end a stream as well as a herder."""
        call = _batch_calls.batch_status(self._batch_id)
        try:
            batch = yield from perform(call, self._url, self._lasting())
        except Unavailable as error:
            raise self._left(error) from None
        if batch.ended and self._cursor < batch.counts.ended and self._tries.failed >= self._patience.tries:
            raise NotFound(
                f"the results of {self._batch_id} from cursor {self._cursor} on are no longer kept"
            )
        return batch.ended and self._cursor >= batch.counts.ended

    def _alive(self) -> None:
        """A sign of life: from now on the herder may be away for as long as a wait sits out."""
        self._until = self._patience.clock() + _calls.OUTAGE_S

    def _lasting(self) -> Patience:
        return self._patience.lasting(self._until)

    def _pause_s(self, outcome: Reply | Broken) -> float:
        """Seconds until the next try; raises where there shall be none."""
        pause_s = pause_after(outcome, self._tries, self._lasting())
        if pause_s is not None:
            return pause_s
        error = error_of(outcome, self._url)
        raise self._left(error) if isinstance(error, Unavailable) else error

    def _left(self, error: Unavailable) -> HerderError:
        return worded(error, f"{self._batch_id} goes on: read on later from cursor {self._cursor}")
