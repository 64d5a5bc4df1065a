"""What the KV cache holds, slot by slot: where a prompt may begin with what is there, and what gives way to it.

A slot is live (a job is in it), kept (what a job has left) or free. Where slots cannot share cells, a job goes on in
the very slot that has its beginning, or gets a copy. Pure bookkeeping over `cells.py`; cuts and copies are collected
for the next step. Prompts are compared when a job is to begin. Must not know of the engine, or of who goes first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from worker.cells import Cells
from worker.engine import EngineFacts
from worker.kept import TOKEN_BYTES, Allowance, Kept, owner_of, packed
from worker.sequence import Sequence
from worker.sources import NOTHING, Leader, Source, find

CHANCE = 8
"""Tokens that prompts may have in common behind what they share: for so few, none of many sources is better."""
COPY_LEAST = 32
"""Tokens that are worth copying a slot for where slots share no cells: all of its cells are, whatever they hold."""


class Prefixes:
    """Every slot of the cache. `trims` and `copies` (target → source, length) are what the next step has to do.

    `cells` counts for a live slot all that its job may still need.
    """

    def __init__(self, facts: EngineFacts, *, reuse: bool = True) -> None:
        self._kv_tokens = facts.kv_tokens
        self._reuse = reuse and facts.trimmable
        self._shares = facts.shares_cells
        self.cells = Cells(facts.sequences)
        self._free = list(range(facts.sequences))[::-1]
        self._live: dict[int, tuple[Sequence, bytes]] = {}
        self._kept: dict[int, Kept] = {}
        self._allowance = Allowance(facts.kv_tokens)
        self._clock = 0
        self._again: set[int] = set()  # live slots whose job wanted what had to go, which counts as a use
        self.trims: dict[int, int] = {}
        self.copies: dict[int, Source] = {}

    @property
    def live_cells(self) -> int:
        """Cells that jobs hold or will still need, each counted once; what is only kept gives way."""
        return self.cells.held(self._live)

    @property
    def kept_cells(self) -> int:
        """Cells that nobody but kept slots hold."""
        return self.cells.used - self.live_cells

    # --- find --------------------------------------------------------------------------------------------

    def find(self, sequence: Sequence, *, anew: bool = False) -> tuple[Source, Leader | None]:
        """Where the prompt may begin now, and the job that is computing a longer part of it, if there is one.

        `anew`, and without `cache_prompt`: nothing but what the job's own other answers have.
        """
        if not self._reuse:
            return NOTHING, None
        if sequence.lease.brief.cache_prompt and not anew:
            return find(sequence, self._live, self._kept)
        return find(sequence, {s: live for s, live in self._live.items() if live[0].key == sequence.key}, {})

    # --- begin and end -----------------------------------------------------------------------------------

    def fits(self, sequence: Sequence, source: Source, ahead: int = 0) -> bool:
        """Whether there is room for all that the job may need, and `ahead` more cells, if all that is kept goes."""
        needed = sequence.reserved - source.length
        return self.cells.held(self._live, (source.slot, source.length)) + needed + ahead <= self._kv_tokens

    def begin(self, sequence: Sequence, source: Source, *, anew: bool = False) -> bool:
        """Put a job that fits into a slot, sharing the source's cells; False when no slot can be had in this step.

        `anew`: with all cells to itself, from the first one on.
        """
        needed = sequence.reserved - source.length
        if not self._shares:
            return self._begin_apart(sequence, source)
        if anew and not self._live:
            self.clear()  # where its cells lie is seen in the last bits of its logits
        if not self._empty_slot(source):
            # Where no slot is to spare, that of the source is.
            return source.length > 0 and not self.copies and self.begin(sequence, NOTHING)
        if not self._make_room(self._kv_tokens - needed, source):
            return False
        slot = self._free.pop()
        if source.length:
            self.cells.copy(source.slot, slot, source.length)
            self.copies[slot] = source
        self._keep_to(max(self._allowance.cells, source.length))
        self._enter(sequence, slot, source, self._kept.get(source.slot))
        return True

    def _begin_apart(self, sequence: Sequence, source: Source) -> bool:
        """Where slots share no cells: a copy of the beginning, or go on in the slot that has it, whichever loses less.

        Each slot has cells enough for any job, and there is one for each job that is admitted.
        """
        kept = self._kept.get(source.slot)
        there = kept is not None and self._floor(source.slot, NOTHING) <= source.length
        if source.length < COPY_LEAST and not (there and self.cells.length(source.slot) <= 2 * source.length):
            source, kept, there = NOTHING, None, False
        if there and kept is not None and self._tail(source) <= self._price_of_a_slot(source):
            slot = source.slot
            del self._kept[slot]
            self.cells.trim(slot, source.length)
            self.trims[slot] = source.length
            self._enter(sequence, slot, source, kept)
            return True
        if not self._empty_slot(source):
            return False  # they are all copied from; the next step's copies may not be in the way
        slot = min(self._free)  # neighbours are decoded together
        self._free.remove(slot)
        if source.length:
            self.copies[slot] = source
        self.cells.extend(slot, source.length)
        self._enter(sequence, slot, source, kept)
        return True

    def _price_of_a_slot(self, source: Source) -> float:
        """What is lost for an empty one."""
        victim = self._least_worth(source)
        return 0.0 if self._free else self._worth(victim) if victim is not None else math.inf

    def _tail(self, source: Source) -> float:
        """What is lost where a job goes on in a kept slot: what `_worth` says of the cells behind the beginning."""
        return self._kept[source.slot].likely(self._clock) * (self.cells.length(source.slot) - source.length)

    def _enter(self, sequence: Sequence, slot: int, source: Source, kept: Kept | None) -> None:
        """The slot is the job's, with the beginning that it has from what was `kept`, or from a live slot."""
        prompt = packed(sequence.tokens[: sequence.prompt_tokens])
        needed = self._needed(source) if self._shares else 0
        self._clock += 1
        if source.length and kept is not None:
            kept.uses, kept.last = kept.uses + 1, self._clock
        if self._allowance.began(owner_of(sequence.lease), prompt, source.length, needed):
            self._again.add(slot)
        self.cells.extend(slot, sequence.reserved - source.length)
        self._live[slot] = sequence, prompt
        sequence.slot, sequence.done, sequence.cached = slot, source.length, source.length

    def _needed(self, source: Source) -> int:
        """Cells that kept slots must be allowed for the source to be there: its own, and all that would go later.

        From whichever slot CHANCE tokens less could have been had for least.
        """
        likely = dict.fromkeys(self._live, math.inf)
        likely |= {slot: kept.likely(self._clock) for slot, kept in self._kept.items()}
        runs = self.cells.holders(source.slot, source.length - CHANCE)
        last = min((max(likely.get(slot, 0.0) for slot in holders) for holders in runs), default=math.inf)
        later = [slot for slot in self._kept if likely[slot] >= last]
        return self.cells.held(later, (source.slot, source.length))

    def rewind(self, sequence: Sequence) -> None:
        """A job begins its answer anew: only its prompt stays, less the token whose logits are needed."""
        assert sequence.slot is not None
        sequence.done = sequence.prompt_tokens - 1 if self._reuse else 0
        self.trims[sequence.slot] = sequence.done

    def end(self, sequence: Sequence, *, intact: bool) -> None:
        """A job has left its slot, which keeps what is decoded, unless that is undefined or somebody else has it."""
        slot = sequence.slot
        assert slot is not None
        del self._live[slot]
        self.cells.trim(slot, sequence.done)
        tokens = packed(sequence.tokens[: sequence.done])
        self._kept[slot] = kept = Kept(
            owner_of(sequence.lease), tokens, int(slot in self._again), self._clock
        )
        self._again.discard(slot)
        wanted = self._reuse and intact and bool(tokens)
        if not wanted or (not self._pinned(slot) and self._merged(slot, kept)):
            self._drop(slot)
        if self._shares:  # else no step passes over what another slot keeps
            # All that this job has left may stay until the next one begins: it may be the same again.
            self._keep_to(self._allowance.cells + self.cells.alone(slot))

    def _merged(self, slot: int, kept: Kept) -> bool:
        """Whether another slot holds all of this; what this one holds all of is dropped."""
        for other_slot, other in list(self._kept.items()):
            if other_slot == slot or self._pinned(other_slot):
                continue
            if kept.tokens.startswith(other.tokens) and kept.owner.covers(other.owner):
                kept.uses = max(kept.uses, other.uses)
                self._drop(other_slot)
            elif other.tokens.startswith(kept.tokens) and other.owner.covers(kept.owner):
                other.last = self._clock
                return True
        return False

    # --- give way ----------------------------------------------------------------------------------------

    def give_way(self) -> bool:
        """Drop the kept slot that is worth least; False when there is none."""
        slot = min((s for s in self._kept if not self._pinned(s)), key=self._worth, default=None)
        if slot is not None:
            self._let_go(slot, 0)
        return slot is not None

    def clear(self) -> None:
        """Drop all that is kept; nothing is live."""
        for slot in list(self._kept):
            self._drop(slot)

    def _keep_to(self, cells: int) -> None:
        """Cut kept slots to so many cells in all, as far as the copies of this step let them be cut."""
        excess = self.cells.held(self._kept) - cells
        self._make_room(self.cells.used - max(excess, 0), NOTHING)

    def _worth(self, slot: int) -> float:
        """What is lost with a slot: tokens to compute again, times how likely that is."""
        return self._kept[slot].likely(self._clock) * (1 + self.cells.alone(slot))

    def _empty_slot(self, source: Source) -> bool:
        """See that a slot is free."""
        if not self._free:
            slot = self._least_worth(source)
            if slot is None:
                return False
            self._let_go(slot, 0)
        return True

    def _least_worth(self, source: Source) -> int | None:
        """The kept slot to do without first; none that this step copies from."""
        spare = (s for s in self._kept if self._floor(s, source) == 0)
        return min(spare, key=self._worth, default=None)

    def _make_room(self, most: int, source: Source) -> bool:
        """Cut kept slots until at most so many cells are used; False when copies of this step are in the way.

        1. The cells that a slot holds alone, from its end, as many as are missing: the least likely to be wanted first.
        2. Where there are none, cells are shared by kept slots only: the one worth least leaves them to the others.
        """
        while (missing := self.cells.used - most) > 0:
            spare = {slot: self._spare(slot, source) for slot in self._kept}
            slot = min(
                (s for s in spare if spare[s] > 0),
                key=lambda s: self._kept[s].likely(self._clock),
                default=None,
            )
            if slot is not None:
                self._let_go(slot, self.cells.length(slot) - min(missing, spare[slot]))
                continue
            rest = (s for s in spare if self._floor(s, source) == 0 and self.cells.apart(s, self._live))
            slot = min(rest, key=self._worth, default=None)
            if slot is None:
                return False
            self._let_go(slot, 0)
        return True

    def _spare(self, slot: int, source: Source) -> int:
        """Cells that a kept slot can give away by itself."""
        return min(self.cells.alone(slot), self.cells.length(slot) - self._floor(slot, source))

    def _floor(self, slot: int, source: Source) -> int:
        """Cells of a kept slot that this step still copies."""
        copied = [s.length for s in (*self.copies.values(), source) if s.slot == slot]
        return max(copied, default=0)

    def _pinned(self, slot: int) -> bool:
        """Whether a copy of this step is taken from the slot: cuts come first."""
        return self._floor(slot, NOTHING) > 0

    def _let_go(self, slot: int, keep: int) -> None:
        """Cut a kept slot for want of room."""
        self._allowance.went(self._kept[slot])
        if keep == 0:
            self._drop(slot)
            return
        self.cells.trim(slot, keep)
        kept = self._kept[slot]
        self._kept[slot] = replace(kept, tokens=kept.tokens[: keep * TOKEN_BYTES])
        self.trims[slot] = keep

    def _drop(self, slot: int) -> None:
        """A kept slot becomes a free one."""
        del self._kept[slot]
        self.cells.trim(slot, 0)
        self.trims[slot] = 0
        self.copies.pop(slot, None)
        self._free.append(slot)

    def settle(self, trims: Iterable[tuple[int, int]], copies: Iterable[tuple[int, int, int]]) -> None:
        """The engine has done these; forget them, keep what has been asked since."""
        for slot, keep in trims:
            if self.trims.get(slot) == keep:
                del self.trims[slot]
        for source, target, length in copies:
            if self.copies.get(target) == Source(source, length):
                del self.copies[target]
