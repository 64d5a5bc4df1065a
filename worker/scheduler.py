"""Continuous batching: which rows the next step decodes, and what its tokens mean for each sequence.

Pure: no clock (step times are passed in), no engine, no Redis. The order of a plan is its promise: first one row for
every sequence that is producing, so that nobody's stream stalls, then prompts, first come first served, under the
budget of `pace.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from worker.engine import Drawn, EngineFacts, Opening, Row, Step
from worker.pace import PrefillPace, Speed
from worker.prefix import IdleSlots, Kept
from worker.sequence import Key, Sequence

REFUSALS_MAX = 16
"""Steps in a row that the KV cache may refuse before the youngest sequence is given up."""


class Scheduler:
    """Sequences on their way through a fixed number of slots and KV cells."""

    def __init__(self, facts: EngineFacts, *, reuse: bool = True) -> None:
        self._facts = facts
        self._reuse = reuse and facts.trimmable
        self._idle = IdleSlots(facts.slots)
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []  # in the order of admission
        self._trims: dict[int, int] = {}
        self._opens: list[Sequence] = []
        self._pace = PrefillPace(facts.slots, facts.batch_tokens)
        self._refusals = 0
        self.speed = Speed()

    # --- what is held ------------------------------------------------------------------------------------

    @property
    def held(self) -> list[Sequence]:
        """Every sequence that is admitted and has not ended."""
        return [*self._running, *self._waiting]

    @property
    def free_slots(self) -> int:
        """How many more jobs may be admitted."""
        return self._facts.slots - len(self._running) - len(self._waiting)

    @property
    def kv_reserved(self) -> int:
        """KV cells promised to admitted sequences, those that still wait for room included."""
        return sum(sequence.reserved for sequence in self.held)

    @property
    def kv_free(self) -> int:
        """KV cells that new jobs may count on; what idle slots keep gives way."""
        return max(self._facts.kv_tokens - self.kv_reserved, 0)

    # --- admit and cancel --------------------------------------------------------------------------------

    def admit(self, sequence: Sequence) -> None:
        """Take a sequence in. One that can never fit fails at once; one that does not fit yet waits its turn."""
        limit = min(self._facts.context, self._facts.kv_tokens)
        if sequence.prompt_tokens == 0:
            sequence.fail("context_exceeded", "the prompt is empty")
        elif sequence.reserved > limit:
            needed = f"{sequence.prompt_tokens} prompt tokens + {sequence.lease.tokens} tokens"
            sequence.fail("context_exceeded", f"{needed} do not fit the context of {limit}")
        else:
            assert self.free_slots > 0
            self._waiting.append(sequence)

    def cancel(self, job_id: str) -> list[Sequence]:
        """Stop the job between two steps; the sequences that ended so (none when it is not held)."""
        found = [sequence for sequence in self.held if sequence.lease.job_id == job_id]
        for sequence in found:
            sequence.cancel()
        self._clear_ended()
        return found

    def drop(self, key: Key) -> list[Sequence]:
        """Forget an attempt whose result is no longer wanted; it ends without a settlement."""
        found = [sequence for sequence in self.held if sequence.key == key]
        for sequence in found:
            sequence.fail("lost", "another attempt owns the job")
        self._clear_ended()
        return found

    # --- plan --------------------------------------------------------------------------------------------

    def plan(self) -> Step | None:
        """The next step, or None when nothing is admitted."""
        self._start_waiting()
        rows = [
            Row(s.slot, s.done, (s.tokens[-1],), sample=True)
            for s in self._running
            if s.decoding and s.slot is not None
        ]
        budget = self._pace.budget(len(rows))
        for sequence in self._running:
            if sequence.decoding or budget <= 0:
                continue
            assert sequence.slot is not None
            end = min(sequence.done + budget, sequence.prompt_tokens)
            budget -= end - sequence.done
            part = tuple(sequence.tokens[sequence.done : end])
            rows.append(Row(sequence.slot, sequence.done, part, sample=end == sequence.prompt_tokens))
        if not rows:
            return None
        opens = tuple(Opening(s.slot, s.lease.brief.sampling) for s in self._opens if s.slot is not None)
        return Step(tuple(rows), tuple(self._trims.items()), opens)

    def _start_waiting(self) -> None:
        """Give slots to waiting sequences in order; one that does not fit holds the others back, or it would starve."""
        while self._waiting:
            reserved = sum(sequence.reserved for sequence in self._running)
            sequence = self._waiting[0]
            if not len(self._idle) or reserved + sequence.reserved > self._facts.kv_tokens:
                return
            self._waiting.popleft()
            slot, keep = self._idle.take(sequence.lease.account, sequence.tokens)
            keep = keep if self._reuse else 0
            sequence.slot, sequence.done, sequence.cached = slot, keep, keep
            self._trims[slot] = keep
            self._running.append(sequence)
            self._opens.append(sequence)
            while reserved + sequence.reserved + self._idle.kept_tokens > self._facts.kv_tokens:
                self._evict()

    def _evict(self) -> bool:
        """Empty the least recently used idle slot; False when there is none to empty."""
        slot = self._idle.evict()
        if slot is not None:
            self._trims[slot] = 0
        return slot is not None

    # --- apply -------------------------------------------------------------------------------------------

    def apply(
        self,
        step: Step,
        sampled: dict[int, Drawn],
        elapsed_ms: float,
        piece: Callable[[int], bytes],
        ends: Callable[[int], bool],
    ) -> list[Sequence]:
        """Take the step's tokens in; returns every sequence that got a token, those that ended now among them."""
        self._settle_state(step)
        self._refusals = 0
        by_slot = {sequence.slot: sequence for sequence in self._running}
        decoding = prefilled = 0
        grown: list[Sequence] = []
        for row in step.rows:
            sequence = by_slot[row.slot]
            decoding += sequence.decoding
            prefilled += 0 if sequence.decoding else len(row.tokens)
            sequence.done = row.start + len(row.tokens)
            if row.sample:
                token = sampled[row.slot].token
                sequence.take(token, piece(token), ends(token))
                grown.append(sequence)
        self._pace.measured(decoding, prefilled, elapsed_ms)
        self.speed.measured(len(grown), elapsed_ms)
        self._clear_ended()
        return grown

    def refused(self, step: Step) -> list[Sequence]:
        """The KV cache had no room (its cuts were made all the same): plan smaller. Returns what had to be given up."""
        self._settle_state(step)
        self._pace.refused()
        self._refusals += 1
        if self._evict() or self._refusals < REFUSALS_MAX:
            return []
        self._refusals = 0
        return self._fail(self._running[-1:], "the KV cache is full")

    def failed(self, step: Step, message: str) -> list[Sequence]:
        """The decode went wrong: the sequences in it fail, the others go on."""
        self._settle_state(step)
        slots = {row.slot for row in step.rows}
        return self._fail([s for s in self._running if s.slot in slots], message)

    def _fail(self, sequences: Iterable[Sequence], message: str) -> list[Sequence]:
        failed = list(sequences)
        for sequence in failed:
            sequence.fail("engine_error", message)
        self._clear_ended()
        return failed

    def _settle_state(self, step: Step) -> None:
        """The engine has made the cuts and samplers of `step`; forget those, keep what has been asked since."""
        for slot, keep in step.trims:
            if self._trims.get(slot) == keep:
                del self._trims[slot]
        opened = {opening.slot for opening in step.opens}
        self._opens = [s for s in self._opens if s.slot not in opened]

    def _clear_ended(self) -> None:
        """Take the ended out; a slot keeps what its job has in the cache, unless that is undefined."""
        for sequence in [s for s in self._running if s.ended]:
            self._running.remove(sequence)
            self._opens = [s for s in self._opens if s is not sequence]
            assert sequence.slot is not None
            intact = self._reuse and sequence.failure is None and sequence.done > 0
            kept = Kept(sequence.lease.account, tuple(sequence.tokens[: sequence.done])) if intact else None
            if kept is None:
                self._trims[sequence.slot] = 0
            self._idle.give(sequence.slot, kept)
        for sequence in [s for s in self._waiting if s.ended]:
            self._waiting.remove(sequence)
