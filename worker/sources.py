"""Where a new prompt may begin with what the cache holds: the longest beginning that it has in common with a slot.

Pure: every slot is looked at, none is changed. Must not know of cells, of the engine, or of who goes first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from worker.kept import TOKEN_BYTES, Kept, owner_of, packed, shared_length
from worker.sequence import Sequence


@dataclass(frozen=True)
class Source:
    """A slot whose first `length` cells are what a prompt begins with."""

    slot: int = 0
    length: int = 0


@dataclass(frozen=True)
class Leader:
    """A job that is still computing its prompt, of which another's first `length` tokens are the same."""

    sequence: Sequence
    length: int


NOTHING = Source()


def find(
    sequence: Sequence, live: Mapping[int, tuple[Sequence, bytes]], kept: Mapping[int, Kept]
) -> tuple[Source, Leader | None]:
    """Where the prompt may begin now, and the job that is computing a longer part of it, if there is one.

    `live` has the job and the packed prompt of each slot. Never the whole prompt: its last token has to be decoded for
    its logits. A live slot is preferred to a kept one of the same length, whose cells would have to stay for it.
    """
    source: Source = NOTHING
    leader: Leader | None = None
    owner, prompt = owner_of(sequence.lease), packed(sequence.tokens[: sequence.prompt_tokens])
    most = sequence.prompt_tokens - 1
    for slot, (other, others) in live.items():
        if not owner.meets(owner_of(other.lease)):
            continue
        # Only what is longer than the best so far is looked at closely: of many jobs that begin alike, one.
        best = source.length if other.decoding or leader is None else min(source.length, leader.length)
        shared = shared_length(others, prompt, min(best, other.prompt_tokens - 1))
        if other.lease.brief.schema is not None:
            # Its answer may be begun anew from the prompt's last token: what comes then needs the cells.
            shared = min(shared, other.prompt_tokens - 1)
        elif shared == other.prompt_tokens:
            answer = packed(other.tokens[shared : other.done])
            shared += shared_length(answer, prompt[shared * TOKEN_BYTES :])
        shared = min(shared, most)
        if min(shared, other.done) > source.length:
            source = Source(slot, min(shared, other.done))
        if not other.decoding and shared > max(other.done, leader.length if leader else 0):
            leader = Leader(other, shared)
    for slot, left in kept.items():
        if owner.meets(left.owner):
            shared = min(shared_length(left.tokens, prompt, source.length), most)
            source = Source(slot, shared) if shared > source.length else source
    return source, leader
