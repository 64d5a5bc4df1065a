"""What a job leaves in the cache, who may begin with it, and how much of that is worth its place.

Every cell that is kept costs each step a little, also where nobody looks at it: attention passes over it. So the
allowance follows what is asked for again. What had to go is remembered by its tokens alone, so that a want shows also
where nothing is kept. Pure. Must not know of slots or of the engine.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from herder.protocol import Lease

TOKEN_BYTES = array("i").itemsize
GONE_MAX = 64
"""Texts that are remembered after they had to go."""
WANTED_LEAST = 32
"""Tokens in common from which on a job has wanted what is or was kept; every prompt of a model has a few."""
LEAST_SHARE = 1 / 32
"""Of all cells: what may always be kept."""
GROWTH = 2
"""Cells by which the allowance grows for each token that would have been reused had it been kept."""
DECAY = 1 / 8
"""Part of what nobody needed that goes from the allowance with each job."""
SPARE = 3 / 2
"""Times what a job needed to be kept: what is allowed for the next one like it."""
REMEMBERED = 64
"""Jobs after which what one needed is forgotten."""


@dataclass(frozen=True)
class Owner:
    """Whose tokens they are. How fast an answer begins tells what is in the cache: both sides must allow it."""

    account: str
    shares: bool

    def meets(self, other: Owner) -> bool:
        """Whether one may begin with what the other has left."""
        return self.account == other.account or (self.shares and other.shares)

    def covers(self, other: Owner) -> bool:
        """Whether everybody who may begin with what the other has left may do so here."""
        return self.account == other.account and (self.shares or not other.shares)


@dataclass
class Kept:
    """What a job has left in a slot: `tokens` packed; how often a job has begun with it, and when last."""

    owner: Owner
    tokens: bytes
    uses: int
    last: int

    def likely(self, now: int) -> float:
        """How likely it is wanted again: each use counts for it, each job that has begun since the last against."""
        return (1 + self.uses) / (1 + now - self.last)


def owner_of(lease: Lease) -> Owner:
    """Who owns what the job leaves in the cache."""
    return Owner(lease.account, lease.brief.share_prefix)


def packed(tokens: Iterable[int]) -> bytes:
    """Tokens in the form in which they are compared."""
    return array("i", tokens).tobytes()


def shared_length(left: bytes, right: bytes, more_than: int = 0) -> int:
    """How many packed tokens two texts begin with in common; 0 where it is not more than so many."""
    enough = (more_than + 1) * TOKEN_BYTES
    if left[:enough] != right[:enough]:
        return 0
    least = min(len(left), len(right))
    # The lowest bit that differs, found without a loop over the tokens.
    differ = int.from_bytes(left[:least], "little") ^ int.from_bytes(right[:least], "little")
    if not differ:
        return least // TOKEN_BYTES
    return ((differ & -differ).bit_length() - 1) // (8 * TOKEN_BYTES)


class Allowance:
    """How many cells kept slots may hold; all of them at first."""

    def __init__(self, kv_tokens: int) -> None:
        self._most = kv_tokens
        self._least = int(kv_tokens * LEAST_SHARE)
        self._gone: deque[tuple[Owner, bytes]] = deque(maxlen=GONE_MAX)
        self._wanted: deque[int] = deque(maxlen=REMEMBERED)
        self.cells = kv_tokens

    def went(self, kept: Kept) -> None:
        """Something that was kept had to go, whole or in part."""
        if not any(owner == kept.owner and tokens.startswith(kept.tokens) for owner, tokens in self._gone):
            self._gone.append((kept.owner, kept.tokens))

    def began(self, owner: Owner, prompt: bytes, had: int, needed: int) -> bool:
        """A job has begun with `had` tokens of its packed prompt in the cache; `needed` cells had to be kept for that.

        The most that one of the last jobs needed is kept from now on, and a part more; the rest goes bit by bit.
        Returns whether it wanted more, which had to go.
        """
        if missed := self._missed(owner, prompt, had):
            self._wanted.append(self.cells + GROWTH * missed)
        else:
            self._wanted.append(int(needed * SPARE) if had >= WANTED_LEAST else 0)
        wanted = max(self._least, *self._wanted)
        excess = max(self.cells - wanted, 0)
        self.cells = min(wanted + int(excess * (1 - DECAY)), self._most)
        return missed > 0

    def _missed(self, owner: Owner, prompt: bytes, had: int) -> int:
        """Tokens that were there before something had to go; what is found is forgotten, its job brings it back."""
        best, found = 0, None
        for gone in self._gone:
            if owner.meets(gone[0]):
                shared = shared_length(gone[1], prompt, max(best, had + WANTED_LEAST - 1))
                best, found = (shared, gone) if shared > best else (best, found)
        if found is not None:
            self._gone.remove(found)
        return best - had if found is not None else 0
