"""Idle slots keep the tokens of the job they last served; the next job of the same account may begin there.

Pure bookkeeping: which idle slot suits a prompt, and which to empty when room is short. Never across accounts: how
fast an answer starts would tell one caller what another has asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Kept:
    """What an idle slot still holds in the KV cache, one cell a token."""

    account: str
    tokens: tuple[int, ...]


def shared_length(left: Sequence[int], right: Sequence[int]) -> int:
    """The length of the longest common prefix."""
    least = min(len(left), len(right))
    for i in range(least):
        if left[i] != right[i]:
            return i
    return least


class IdleSlots:
    """The slots without a job, least recently used first, each with what it keeps (an empty one keeps nothing)."""

    def __init__(self, slots: int) -> None:
        self._slots: dict[int, Kept | None] = dict.fromkeys(range(slots))

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def kept_tokens(self) -> int:
        """KV cells that idle slots occupy."""
        return sum(len(kept.tokens) for kept in self._slots.values() if kept)

    def take(self, account: str, prompt: Sequence[int]) -> tuple[int, int]:
        """Take the slot that suits `prompt` best: (slot, tokens to keep in it).

        1. The longest prefix shared with a job of the same account, and never the whole prompt: its last token must be
        decoded again for its logits. 2. Else an empty slot. 3. Else the least recently used one.
        """
        best, keep = None, 0
        for slot, kept in self._slots.items():
            if kept is not None and kept.account == account:
                shared = min(shared_length(kept.tokens, prompt), len(prompt) - 1)
                if shared > keep:
                    best, keep = slot, shared
        if best is None:
            best = next((slot for slot, kept in self._slots.items() if kept is None), None)
        if best is None:
            best = next(iter(self._slots))
        del self._slots[best]
        return best, keep

    def give(self, slot: int, kept: Kept | None) -> None:
        """A slot has become idle."""
        self._slots[slot] = kept

    def evict(self) -> int | None:
        """Forget what the least recently used slot keeps; that slot, or None when every idle slot is empty."""
        slot = next((slot for slot, kept in self._slots.items() if kept is not None), None)
        if slot is not None:
            self._slots[slot] = None
        return slot
