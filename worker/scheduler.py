"""Continuous batching: which rows the next step decodes, and what its tokens mean for each sequence.

Pure: no clock (step times are passed in), no engine, no Redis. The order of a plan is its promise: first one row for
every sequence that is producing, so that nobody's stream stalls, then prompts, first come first served, under the
budget of `pace.py`. A prompt of which another job is computing a part lets it, and takes that part over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from worker.engine import Drawn, EngineFacts, Opening, Row, Step
from worker.pace import PrefillPace, Speed
from worker.prefix import Prefixes
from worker.sequence import ENGINE_ERROR, Key, Sequence, chances_of, repeatable

REFUSALS_MAX = 16
"""Steps in a row that the KV cache may refuse before the youngest sequence is given up."""
FOLLOW_LEAST = 32
"""Tokens that a job must get from another one's prompt to wait for them: about what a step costs whatever is in it."""
USELESS_LOGITS = "the model computed no usable logits (NaN or infinite)"
STILL_MAX = 32
"""Steps in a row in which the other one may compute nothing before a job that waits for it goes on by itself."""


class CacheSpoilt(Exception):
    """What one sequence left in the cache makes nonsense of the others: whose fault it is, nobody can tell here."""


@dataclass
class Follow:
    """A job waits until another has computed `length` tokens that both prompts begin with."""

    leader: Sequence
    length: int
    seen: int = 0
    still: int = 0

    def look(self) -> bool:
        """Once a step: whether the waiting is over."""
        self.still = 0 if self.leader.done > self.seen else self.still + 1
        self.seen = self.leader.done
        return self.leader.ended or self.leader.done >= self.length or self.still > STILL_MAX


class Scheduler:
    """Sequences on their way through a fixed number of slots and KV cells."""

    def __init__(self, facts: EngineFacts, *, reuse: bool = True) -> None:
        self._facts = facts
        self.prefixes = Prefixes(facts, reuse=reuse)
        self._held: list[Sequence] = []  # in the order of arrival
        self._follows: dict[Sequence, Follow] = {}
        self._alone: set[Sequence] = set()
        self._look = False
        self._opens: list[Sequence] = []
        self._pace = PrefillPace(facts.slots, facts.batch_tokens, apart=not facts.shares_cells)
        self._refusals = 0
        self._suspects: set[str] = set()
        self._unclean = False
        self.speed = Speed()

    # --- what is held ------------------------------------------------------------------------------------

    @property
    def held(self) -> list[Sequence]:
        """Every sequence that is admitted and has not ended, in the order of arrival."""
        return list(self._held)

    @property
    def free_slots(self) -> int:
        """How many more jobs may be admitted."""
        return self._facts.slots - len(self._held)

    @property
    def kv_reserved(self) -> int:
        """KV cells promised to admitted sequences, those that still wait for room included; shared ones count once."""
        waiting = (s for s in self._held if s.slot is None)
        return self.prefixes.live_cells + sum(s.reserved - self._expected(s) for s in waiting)

    @property
    def kv_free(self) -> int:
        """KV cells that new jobs may count on; what ended jobs have left gives way."""
        return max(self._facts.kv_tokens - self.kv_reserved, 0)

    def _expected(self, sequence: Sequence) -> int:
        """Cells that a waiting sequence will get from the one it follows."""
        follow = self._follows.get(sequence)
        return follow.length if follow and self._facts.shares_cells else 0

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
            self._held.append(sequence)
            self._look = True

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
        running = [(s.slot, s) for s in self._held if s.slot is not None]
        rows = [Row(slot, s.done, (s.tokens[-1],), sample=True) for slot, s in running if s.decoding]
        budget = self._pace.budget(len(rows), fixed=repeatable(self._held))
        for slot, sequence in running:
            if sequence.decoding or budget <= 0:
                continue
            end = min(sequence.done + budget, sequence.prompt_tokens)
            budget -= end - sequence.done
            part = tuple(sequence.tokens[sequence.done : end])
            rows.append(Row(slot, sequence.done, part, sample=end == sequence.prompt_tokens))
        if not rows:
            return None
        copies = tuple((source.slot, slot, source.length) for slot, source in self.prefixes.copies.items())
        return Step(
            tuple(rows), tuple(self.prefixes.trims.items()), tuple(map(_opening, self._opens)), copies
        )

    def _start_waiting(self) -> None:
        """Let waiting sequences begin, in order; one that does not fit holds the others back, or it would starve.

        One that follows another is passed by; the cells it will need are left to it. It has lost nothing when it
        begins: the one it follows came first, so its own prompt would not have been looked at sooner.
        """
        over = [sequence for sequence, follow in self._follows.items() if follow.look()]
        for sequence in over:
            if self._follows.pop(sequence).still > STILL_MAX:
                self._alone.add(sequence)
        if not over and not self._look:
            return
        self._look = False
        ahead = 0
        for sequence in self._held:
            if sequence.slot is not None:
                continue
            if not self._start(sequence, ahead):
                return
            if sequence in self._follows:
                ahead += sequence.reserved - self._expected(sequence)

    def _start(self, sequence: Sequence, ahead: int) -> bool:
        """Let a sequence begin, or follow another; False when it can do neither now."""
        if sequence in self._follows:
            return True
        anew = repeatable(self._held)
        source, leader = self.prefixes.find(sequence, anew=anew)
        if leader and leader.length - source.length >= FOLLOW_LEAST and sequence not in self._alone:
            self._follows[sequence] = Follow(leader.sequence, leader.length, leader.sequence.done)
            return True
        if not self.prefixes.fits(sequence, source, ahead):
            return False
        if not self.prefixes.begin(sequence, source, anew=anew):
            self._look = True  # this step's copies are in the way, the next one's may not be
            return False
        self._opens.append(sequence)
        return True

    # --- apply -------------------------------------------------------------------------------------------

    def apply(
        self,
        step: Step,
        sampled: dict[int, Drawn],
        elapsed_ms: float,
        piece: Callable[[int], bytes],
        ends: Callable[[int], bool],
    ) -> list[Sequence]:
        """Take the step's tokens in; returns every sequence that got a token, those that ended now among them.

        Raises CacheSpoilt.
        """
        self._settle_state(step)
        self._refusals = 0
        by_slot = {sequence.slot: sequence for sequence in self._held}
        bad = {by_slot[slot].lease.job_id for slot, drawn in sampled.items() if drawn.useless}
        self._look_for_spoilt(bad, sampled)
        decoding = prefilled = 0
        grown: list[Sequence] = []
        for row in step.rows:
            sequence = by_slot[row.slot]
            decoding += sequence.decoding
            prefilled += 0 if sequence.decoding else len(row.tokens)
            sequence.done = row.start + len(row.tokens)
            if row.sample:
                drawn = sampled[row.slot]
                token = drawn.token
                if drawn.useless:
                    sequence.fail(ENGINE_ERROR, USELESS_LOGITS)
                elif drawn.fault is not None:
                    sequence.unfit(drawn.fault)
                else:
                    sequence.take(
                        token, piece(token), ends(token), chances_of(drawn, piece), whole=drawn.whole
                    )
                if sequence.again:
                    sequence.begin_again()
                    self.prefixes.rewind(sequence)
                    self._opens.append(sequence)
                grown.append(sequence)
        self._pace.measured(decoding, prefilled, elapsed_ms)
        self.speed.measured(len(grown), elapsed_ms)
        self._clear_ended()
        return grown

    def _look_for_spoilt(self, bad: set[str], sampled: dict[int, Drawn]) -> None:
        """NaN in a cell may reach those who are masked from it (0 × NaN); where a row is sound, it does not.

        So a bad row among sound ones is its job's own, and so are those of one job alone. Where the rows of another job
        follow, and none was sound in between, the cache is bad. `bad` are the jobs that got useless rows.
        """
        self._unclean = self._unclean or bool(bad)
        if not all(drawn.useless for drawn in sampled.values()):
            self._suspects.clear()
            return
        self._suspects |= bad
        if len(self._suspects) > 1:
            raise CacheSpoilt(f"{USELESS_LOGITS}, whoever asks")

    def refused(self, step: Step) -> list[Sequence]:
        """The KV cache had no room (its cuts were made all the same): plan smaller. Returns what had to be given up."""
        self._settle_state(step)
        self._pace.refused()
        self._refusals += 1
        self._look = True
        if self.prefixes.give_way() or self._refusals < REFUSALS_MAX:
            return []
        self._refusals = 0
        youngest = [sequence for sequence in self._held if sequence.slot is not None][-1:]
        return self._fail(youngest, "the KV cache is full")

    def failed(self, step: Step, message: str) -> list[Sequence]:
        """The decode went wrong: the sequences in it fail, the others go on."""
        self._settle_state(step)
        slots = {row.slot for row in step.rows}
        return self._fail((s for s in self._held if s.slot in slots), message)

    def _fail(self, sequences: Iterable[Sequence], message: str) -> list[Sequence]:
        failed = list(sequences)
        for sequence in failed:
            sequence.fail(ENGINE_ERROR, message)
        self._clear_ended()
        return failed

    def _settle_state(self, step: Step) -> None:
        """The engine has made the cuts, copies and samplers of `step`; keep what has been asked since."""
        self.prefixes.settle(step.trims, step.copies)
        opened = {opening.slot for opening in step.opens}
        self._opens = [s for s in self._opens if s.slot not in opened]

    def _clear_ended(self) -> None:
        """Take the ended out; a slot keeps what its job has in the cache, where that is sound.

        Once nobody is left in a cache where NaN has been, all of it is given up: the engine then washes it.
        """
        for sequence in [s for s in self._held if s.ended]:
            self._held.remove(sequence)
            self._look = True
            self._follows.pop(sequence, None)
            self._alone.discard(sequence)
            self._opens = [s for s in self._opens if s is not sequence]
            if sequence.slot is not None:
                self.prefixes.end(sequence, intact=sequence.sound)
        if self._unclean and not any(s.slot is not None for s in self._held):
            self.prefixes.clear()
            self._unclean = False
            self._suspects.clear()


def _opening(sequence: Sequence) -> Opening:
    """What the engine has to know before a sequence's first token."""
    assert sequence.slot is not None
    lease = sequence.lease
    prompt = tuple(sequence.tokens[: sequence.prompt_tokens])
    return Opening(sequence.slot, lease.brief.sampling, lease.brief.schema, prompt, lease.tokens)
