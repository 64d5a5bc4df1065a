"""Who holds which cells of the unified KV cache, run by run: a mirror, so that cells which slots share count once.

Pure arithmetic. Slots that hold a cell hold all cells before it in common as well, since a copy always begins at 0: the
runs are a tree, and what a slot holds alone is the end of its path. Must not know of tokens, jobs or the engine.
"""

from __future__ import annotations

from collections.abc import Iterable


class Run:
    """Cells in a row, all of them held by the same slots."""

    __slots__ = ("holders", "length")

    def __init__(self, holders: set[int], length: int) -> None:
        self.holders = holders
        self.length = length


class Cells:
    """The cells of all slots. `used` counts those that somebody holds; one is free when its last holder has left."""

    def __init__(self, sequences: int) -> None:
        self._paths: list[list[Run]] = [[] for _ in range(sequences)]
        self.used = 0

    def length(self, slot: int) -> int:
        """How many cells a slot holds."""
        return sum(run.length for run in self._paths[slot])

    def alone(self, slot: int) -> int:
        """How many cells would be free if the slot left them; they are its last ones."""
        return sum(run.length for run in self._paths[slot] if len(run.holders) == 1)

    def held(self, slots: Iterable[int], also: tuple[int, int] = (0, 0)) -> int:
        """How many cells these slots hold together, and with them the first (length) of one more slot: `also`."""
        runs = {run for slot in slots for run in self._paths[slot]}
        slot, left = also
        more = 0
        for run in self._paths[slot]:
            more += 0 if run in runs else min(run.length, left)
            left -= min(run.length, left)
        return sum(run.length for run in runs) + more

    def apart(self, slot: int, others: Iterable[int]) -> int:
        """How many cells a slot holds that none of `others` holds."""
        known = set(others)
        return sum(run.length for run in self._paths[slot] if not run.holders & known)

    def holders(self, slot: int, length: int) -> list[set[int]]:
        """Who holds the first cells of a slot, run by run."""
        found, start = [], 0
        for run in self._paths[slot]:
            if start >= length:
                break
            found.append(run.holders)
            start += run.length
        return found

    def extend(self, slot: int, length: int) -> None:
        """So many new cells at the end of a slot."""
        if length > 0:
            self._paths[slot].append(Run({slot}, length))
            self.used += length

    def trim(self, slot: int, keep: int) -> None:
        """The slot leaves all but its first `keep` cells."""
        index = self._cut(slot, keep)
        for run in self._paths[slot][index:]:
            run.holders.discard(slot)
            if not run.holders:
                self.used -= run.length
        del self._paths[slot][index:]

    def copy(self, source: int, target: int, length: int) -> None:
        """An empty slot shares the first cells of another."""
        assert not self._paths[target], f"slot {target} is copied into, and holds something"
        assert self.length(source) >= length, f"slot {source} holds less than {length}"
        runs = self._paths[source][: self._cut(source, length)]
        for run in runs:
            run.holders.add(target)
        self._paths[target] = runs

    def _cut(self, slot: int, at: int) -> int:
        """Make a run end at position `at`; how many of the slot's runs are before it."""
        start = 0
        for index, run in enumerate(self._paths[slot]):
            if start >= at:
                return index
            if start + run.length > at:
                tail = Run(set(run.holders), start + run.length - at)
                run.length -= tail.length
                # The runs before it are the same in all of these paths.
                for holder in run.holders:
                    self._paths[holder].insert(index + 1, tail)
                return index + 1
            start += run.length
        return len(self._paths[slot])
