"""What the worker asks of an engine: a batch of token rows in, one sampled token for each finished row out.

The shapes are the whole contract; `llama.py` and `fake.py` fulfil it. Must not know of jobs, accounts, Redis or time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from herder.brief import Sampling


class EngineError(Exception):
    """A step that did not come off. The engine is still usable unless the process has died."""


class KvFull(EngineError):
    """No room in the KV cache for this batch; nothing was decoded, a smaller batch may fit."""


class StepFailed(EngineError):
    """The decode failed; what its rows left in the cache is undefined, so their slots must be emptied."""


class ModelUnusable(Exception):
    """The model file cannot be served; the message names the file and what to do."""


@dataclass(frozen=True)
class Row:
    """Consecutive tokens of one slot, the first at position `start`; `sample` asks for the token after the last."""

    slot: int
    start: int
    tokens: tuple[int, ...]
    sample: bool


@dataclass(frozen=True)
class Opening:
    """A slot begins another answer: how it is sampled, the JSON schema it must fit within so many `tokens`, and the
    prompt's tokens, which penalties count."""

    slot: int
    sampling: Sampling
    schema: str | None = None
    prompt: tuple[int, ...] = ()
    tokens: int = 0


@dataclass(frozen=True)
class Drawn:
    """A sampled token; where the sampling asked for them, its log-probability and the likeliest tokens with theirs.

    `whole`: with this token an answer that had to fit a schema is complete. `fault`: why it cannot be, in words; the
    token means nothing then. `useless`: it means nothing since no usable logits were computed (NaN or infinite).
    """

    token: int
    logprob: float | None = None
    likeliest: tuple[tuple[int, float], ...] = ()
    whole: bool = False
    fault: str | None = None
    useless: bool = False


@dataclass(frozen=True)
class Step:
    """One decode. In this order: cut each slot of `trims` to its first `keep` cells, let each of `copies` (from, to,
    length) share the first cells of another slot, give each slot of `opens` a fresh sampler, decode `rows`, sample.
    """

    rows: tuple[Row, ...]
    trims: tuple[tuple[int, int], ...] = ()
    opens: tuple[Opening, ...] = ()
    copies: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True)
class EngineFacts:
    """What is fixed once a model is loaded.

    At most `slots` jobs are decoded at once, each in a slot of its own out of `sequences` (numbered from 0); the other
    slots only keep what is in them. All share `kv_tokens` cells, and a cell that several slots hold counts once. One
    batch holds at most `batch_tokens`; `trimmable` tells whether a slot can be cut anywhere but at 0 (not with a
    recurrent state or a sliding window), which prefix reuse needs; `shares_cells` whether its first cells can be
    another slot's too: where not, each slot has cells of its own, enough for `context` tokens, none only keeps, and a
    copy takes time.
    """

    slots: int
    sequences: int
    kv_tokens: int
    batch_tokens: int
    context: int
    trimmable: bool
    shares_cells: bool
    vocab_size: int
    max_piece_bytes: int
    template: str | None
    bos_token: str
    eos_token: str
    adds_bos: bool
    description: str


class Engine(Protocol):
    """One loaded model. `tokenize`, `piece` and `ends` may be called from any thread, `step` from one thread only."""

    @property
    def facts(self) -> EngineFacts:
        """What is fixed once the model is loaded."""
        ...

    def tokenize(self, text: str) -> list[int]:
        """A rendered prompt's tokens: special tokens are recognised, and BOS is put first where the model wants it."""
        ...

    def piece(self, token: int) -> bytes:
        """The bytes that a sampled token adds to the text; empty for control tokens."""
        ...

    def ends(self, token: int) -> bool:
        """Whether the token means that the model has finished (an end-of-generation token)."""
        ...

    def ready(self, schema: str, tokens: int) -> str | None:
        """Make ready for an answer of at most so many tokens that fits this schema; may take long, so that it is called
        before the step that opens it, from any thread. Why there can be none, in words; None where all is well."""
        ...

    def step(self, step: Step) -> dict[int, Drawn]:
        """Decode and sample: slot → what was drawn for every row with `sample`. Raises KvFull or StepFailed."""
        ...

    def close(self) -> None:
        """Free everything native; no call may follow."""
        ...
