"""How an answer is drawn, as callers ask for it: every option with its default and its range. Pure.

The defaults change nothing: greedy, one answer. `docs/reference/sampling.md` says what each does, and in which order.
"""

from __future__ import annotations

import random
import re
from typing import Annotated

from pydantic import AfterValidator, Field

from herder.api.strict import Real, Strict
from herder.brief import Sampling
from herder.errors import InvalidRequest

SEED_MAX = 2**32 - 1
ANSWERS_MAX = 4
BIASES_MAX = 256
LIKELIEST_MAX = 20
LOGPROBS_TOTAL_MAX = 16_384
"""Log-probabilities of a result; each is some 50 bytes of Redis."""

_ID_PATTERN = r"^(0|[1-9][0-9]{0,8})$"


def _token_id(text: str) -> str:
    if not re.match(_ID_PATTERN, text) or text.endswith("\n"):
        raise ValueError("must be a token id, from 0 on")
    return text


TokenId = Annotated[str, AfterValidator(_token_id), Field(json_schema_extra={"pattern": _ID_PATTERN})]
Bias = Annotated[Real, Field(ge=-100, le=100)]


class SamplingOptions(Strict):
    """The options of sampling, and how many answers are wanted."""

    temperature: Annotated[Real, Field(ge=0, le=2)] = Field(
        0.0, description="0 is greedy: always the likeliest token"
    )
    top_p: Annotated[Real, Field(gt=0, le=1)] = Field(1.0, description="nucleus sampling")
    top_k: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        0, description="only the so many likeliest; 0: all"
    )
    min_p: Annotated[Real, Field(ge=0, le=1)] = Field(
        0.0, description="only tokens at least so likely as this share of the likeliest one's probability"
    )
    typical_p: Annotated[Real, Field(gt=0, le=1)] = Field(1.0, description="locally typical sampling")
    repeat_penalty: Annotated[Real, Field(ge=0.1, le=10)] = Field(
        1.0, description="divides the logit of a token that was there"
    )
    frequency_penalty: Annotated[Real, Field(ge=-2, le=2)] = Field(
        0.0, description="taken from the logit of a token for each time that it was there"
    )
    presence_penalty: Annotated[Real, Field(ge=-2, le=2)] = Field(
        0.0, description="taken from the logit of a token that was there"
    )
    penalty_tokens: Annotated[int, Field(ge=0, le=4096)] = Field(
        64, description="how many of the last tokens penalties look at, the prompt included"
    )
    logit_bias: Annotated[dict[TokenId, Bias], Field(max_length=BIASES_MAX)] = Field(
        default_factory=dict, description="what is added to the logit of a token, by its id"
    )
    seed: Annotated[int, Field(ge=0, le=SEED_MAX)] | None = Field(
        None, description="random where none is given"
    )
    logprobs: Annotated[int, Field(ge=0, le=LIKELIEST_MAX)] | None = Field(
        None, description="tell each token's log-probability, and the so many likeliest beside it"
    )
    ignore_eos: bool = Field(False, description="go on until `tokens` are used up, or a stop string comes")
    n: Annotated[int, Field(ge=1, le=ANSWERS_MAX)] = Field(
        1, description="so many answers to one prompt; each costs its tokens"
    )

    def logprobs_total(self, tokens: int) -> int:
        """The most log-probabilities that the result may hold, of answers of so many tokens."""
        return 0 if self.logprobs is None else (self.logprobs + 1) * tokens * self.n

    def sampling(self) -> Sampling:
        """As the worker reads it, with (where none was given) a seed of its own."""
        return Sampling(
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed if self.seed is not None else random.getrandbits(32),
            top_k=self.top_k,
            min_p=self.min_p,
            typical_p=self.typical_p,
            repeat_penalty=self.repeat_penalty,
            frequency_penalty=self.frequency_penalty,
            presence_penalty=self.presence_penalty,
            penalty_tokens=self.penalty_tokens,
            logit_bias=tuple((int(token), bias) for token, bias in self.logit_bias.items()),
            logprobs=self.logprobs,
            ignore_eos=self.ignore_eos,
        )


SAMPLING_FIELDS = tuple(SamplingOptions.model_fields)


def no_token(token: str | int, vocab_size: int) -> str:
    """What is said of a token that the model does not have."""
    last = vocab_size - 1
    return f"token {str(token)[:20]} is not one of the model's {vocab_size}: ids go from 0 to {last}"


def check_tokens(options: SamplingOptions, vocab_size: int) -> None:
    """Raises InvalidRequest for a token that the model does not have."""
    for token in options.logit_bias:
        if int(token) >= vocab_size:
            message = no_token(token, vocab_size)
            errors = [{"field": f"logit_bias.{token}", "message": message}]
            raise InvalidRequest(f"logit_bias: {message}", limit=vocab_size - 1, errors=errors)
