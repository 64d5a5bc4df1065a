"""What a worker reads of a job: the rendered text, and how it is to be answered. Pure; one JSON form for Redis."""

from __future__ import annotations

import json
from dataclasses import dataclass

from pydantic_core import to_json


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. Temperature 0 is greedy; `seed` is fixed at submit so that a re-run repeats.

    The defaults change nothing: `top_k` 0 is the whole vocabulary, penalties count the last `penalty_tokens` tokens,
    `logit_bias` is (token id, what is added to its logit), `logprobs` None or how many of the likeliest are told.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    top_k: int = 0
    min_p: float = 0.0
    typical_p: float = 1.0
    repeat_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    penalty_tokens: int = 64
    logit_bias: tuple[tuple[int, float], ...] = ()
    logprobs: int | None = None
    ignore_eos: bool = False


@dataclass(frozen=True)
class Brief:
    """What a worker reads of a job: the rendered text, and how it is to be answered.

    `n` answers are wanted; `schema` is the JSON schema (JSON text) that each must fit; `share_prefix` allows other
    accounts, if they allow it too, to begin where this prompt's KV cells end. Without `cache_prompt` nothing of the
    prompt comes from the cache; what is `repeatable` is computed in the same way each time that it is alone.
    """

    prompt: str
    stop: tuple[str, ...] = ()
    sampling: Sampling = Sampling()
    n: int = 1
    schema: str | None = None
    share_prefix: bool = False
    cache_prompt: bool = True
    repeatable: bool = False

    def as_json(self) -> str:
        """The form in which it waits in Redis; what is at its default is left out."""
        plain = {name: value for name, value in vars(self).items() if value != _BRIEF_DEFAULTS.get(name)}
        if "sampling" in plain:
            plain["sampling"] = {k: v for k, v in vars(self.sampling).items() if v != _SAMPLING_DEFAULTS[k]}
        return to_json(plain).decode()


_SAMPLING_DEFAULTS = vars(Sampling())
_BRIEF_DEFAULTS = {name: value for name, value in vars(Brief("")).items() if name != "prompt"}


def brief_of(text: str | bytes) -> Brief:
    """The brief behind its JSON form."""
    plain = json.loads(text)
    sampling = plain.pop("sampling", {})
    bias = tuple((token, value) for token, value in sampling.pop("logit_bias", ()))
    stop = tuple(plain.pop("stop", ()))
    return Brief(**plain, stop=stop, sampling=Sampling(**sampling, logit_bias=bias))
