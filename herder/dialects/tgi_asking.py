"""What clients of TGI ask for, as the fields of a job. Knows no route and no answer.

Greedy unless `do_sample` or a parameter of sampling is given, as there; 20 tokens where no number is given.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr

from herder.api.reading import object_in
from herder.api.state import Herd
from herder.api.submission import model_of
from herder.dialects.asking import Lenient, model_named
from herder.errors import InvalidRequest

TOKENS_DEFAULT = 20
SEED_BITS = 0xFFFF_FFFF
TOP_MAX = 5
_SAMPLING = ("temperature", "top_k", "top_p", "typical_p")
_OWN = {
    "tokens": "max_new_tokens", "repeat_penalty": "repetition_penalty", "response_format": "grammar",
    "response_format.json_schema.schema": "grammar.value",
    "logprobs": "top_n_tokens", "stop": "stop", "seed": "seed", "frequency_penalty": "frequency_penalty",
} | {name: name for name in _SAMPLING}  # fmt: skip
NAMES = {"prompt": "inputs"} | {ours: f"parameters.{theirs}" for ours, theirs in _OWN.items()}


class Parameters(BaseModel):
    """How the answer is made; what has a field of the same meaning in a job is checked there."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    max_new_tokens: Any = None
    do_sample: StrictBool | None = None
    temperature: Any = None
    top_k: Any = None
    top_p: Any = None
    typical_p: Any = None
    repetition_penalty: Any = None
    frequency_penalty: Any = None
    seed: Annotated[StrictInt, Field(ge=0, lt=1 << 64)] | None = None
    stop: list[StrictStr] | None = None
    stop_sequences: list[StrictStr] | None = None
    return_full_text: StrictBool | None = None
    best_of: StrictInt | None = None
    truncate: Annotated[StrictInt, Field(ge=1)] | None = None
    watermark: StrictBool | None = None
    details: StrictBool | None = None
    decoder_input_details: StrictBool | None = None
    top_n_tokens: Annotated[StrictInt, Field(ge=0, le=TOP_MAX)] | None = None
    grammar: dict[str, Any] | None = None

    @property
    def stops(self) -> list[str]:
        """Under whichever name."""
        return [*(self.stop or ()), *(self.stop_sequences or ())]

    @property
    def samples(self) -> bool:
        """Whether a token is drawn, rather than the likeliest taken."""
        return bool(self.do_sample) or any(getattr(self, name) is not None for name in _SAMPLING)


class Generate(Lenient):
    """The body of `/`, `/generate` and `/generate_stream`."""

    inputs: StrictStr
    parameters: Parameters | None = None
    stream: StrictBool | None = None

    @property
    def how(self) -> Parameters:
        """The parameters, all of their defaults if need be."""
        return self.parameters or Parameters()


def fields_of(body: Generate, *, told: bool) -> dict[str, Any]:
    """The fields of a job; `told`: its tokens are to be named. Raises InvalidRequest for what cannot be done."""
    how = body.how
    if how.best_of not in (None, 1):
        raise refused("best_of", "must be 1: one answer is made to one prompt")
    if how.watermark:
        raise refused("watermark", "answers are not watermarked; leave it out")
    if how.decoder_input_details:
        raise refused("decoder_input_details", "the tokens of a prompt are not told; leave it out")
    return {
        "prompt": body.inputs,
        "raw": True,
        "tokens": TOKENS_DEFAULT if how.max_new_tokens is None else how.max_new_tokens,
        "temperature": 1 if how.samples and how.temperature is None else how.temperature,
        "top_k": how.top_k,
        "top_p": how.top_p,
        "typical_p": how.typical_p,
        "repeat_penalty": how.repetition_penalty,
        "frequency_penalty": how.frequency_penalty,
        "seed": None if how.seed is None else how.seed & SEED_BITS,
        "stop": how.stops or None,
        "logprobs": (how.top_n_tokens or 0) if told else None,
        "response_format": None if how.grammar is None else _format(how.grammar),
    }


def refused(field: str, message: str) -> InvalidRequest:
    """What is wrong with a parameter."""
    name = f"parameters.{field}"
    return InvalidRequest(f"{name}: {message}", errors=[{"field": name, "message": message}])


def _format(grammar: dict[str, Any]) -> dict[str, Any]:
    """A grammar as a `response_format`."""
    kind, value = grammar.get("type"), grammar.get("value")
    if kind not in ("json", "json_object", "json_schema"):
        raise refused("grammar", "type must be json; others cannot be kept to here")
    if isinstance(value, str):
        value = object_in(value.encode(), "parameters.grammar.value")
    if kind == "json_schema" and isinstance(value, dict):
        value = value.get("schema")
    if not isinstance(value, dict):
        raise refused("grammar", "value must be a JSON schema")
    return {"type": "json_schema", "json_schema": {"schema": value}}


async def truncated(herd: Herd, body: Generate) -> str:
    """The end of the prompt, as much of it as has `truncate` tokens. Raises InvalidRequest where nobody can count."""
    most = body.how.truncate
    if most is None:
        return body.inputs
    card = (await model_of(herd, await model_named(herd, body.model))).card
    text = body.inputs.encode()[-most * card.max_piece_bytes :].decode("utf-8", "ignore")
    left, right = 0, len(text)  # characters to leave out: none may be enough, all certainly are
    while left < right:
        # The first look is at the whole: mostly it fits.
        middle = (left + right) // 2 if left or right < len(text) else 0
        count = await herd.counter.count(card.model, text[middle:])
        if count is None:
            raise refused(
                "truncate", "this herder cannot count the model's tokens; shorten the prompt instead"
            )
        left, right = (left, middle) if count <= most else (middle + 1, right)
    if left >= len(text):
        raise refused("truncate", f"{most} tokens leave nothing of the prompt")
    return text[left:]
