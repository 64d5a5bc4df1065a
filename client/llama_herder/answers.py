"""How answers are asked for, and what comes of it: the options of sampling, the texts, how likely their tokens were.

Frozen dataclasses read from the herder's JSON, as in `types`. Knows nothing of HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from llama_herder._json import FromJson


class Sampling(TypedDict, total=False):
    """How an answer is drawn, and how many are wanted; None, like leaving it out, is the herder's default."""

    n: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    typical_p: float | None
    repeat_penalty: float | None
    frequency_penalty: float | None
    presence_penalty: float | None
    penalty_tokens: int | None
    logit_bias: Mapping[int, float] | Mapping[str, float] | None
    seed: int | None
    logprobs: int | None
    ignore_eos: bool | None


class Form(TypedDict, total=False):
    """What an answer is to be: `output_type` like `{"age": "int", "units": "str"}`, or OpenAI's `response_format`."""

    output_type: Mapping[str, Any] | None
    response_format: Mapping[str, Any] | None


@dataclass(frozen=True)
class Chance(FromJson):
    """A token, its own text, and its natural log-probability."""

    token: int = 0
    text: str = ""
    logprob: float = 0.0


@dataclass(frozen=True)
class TokenChances(Chance):
    """A token of an answer, and the likeliest ones of its place, most likely first."""

    top: tuple[Chance, ...] = ()

    @classmethod
    def _nested(cls, values: dict[str, Any]) -> dict[str, Any]:
        return _each(values, "top", Chance)


@dataclass(frozen=True)
class Choice(FromJson):
    """One answer of several; `logprobs` has an entry a token, where they were asked for.

    `reasoning` is what the model thought before it, where its chat template marks that; it is no part of `text`.
    `output` is the JSON value that an answer with a form is; None for any text.
    """

    text: str = ""
    finish_reason: str = ""
    completion_tokens: int = 0
    logprobs: tuple[TokenChances, ...] | None = None
    reasoning: str | None = None
    output: Any = None

    @classmethod
    def _nested(cls, values: dict[str, Any]) -> dict[str, Any]:
        return _each(values, "logprobs", TokenChances)


@dataclass(frozen=True)
class Result(Choice):
    """The answer to a prompt. `finish_reason` is stop, length or cancelled.

    With `n` the first answer, and all of them in `choices`; `completion_tokens` are those of all.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    choices: tuple[Choice, ...] = ()

    @classmethod
    def _nested(cls, values: dict[str, Any]) -> dict[str, Any]:
        return _each(_each(values, "logprobs", TokenChances), "choices", Choice)


def _each(values: dict[str, Any], name: str, kind: type[FromJson]) -> dict[str, Any]:
    if isinstance(values.get(name), list):
        values[name] = tuple(map(kind.from_json, values[name]))
    return values
