"""What Lamini's clients send: bodies with commas too many, types in their words, lengths of two kinds. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import StrictInt, model_validator

from herder.api.reading import object_in
from herder.api.strict import at
from herder.dialects.asking import Lenient
from herder.errors import BadRequest, HerderError
from herder.settings import Settings

# A string, whole or broken off, or a comma that has nothing before it, stays; a comma with nothing behind it goes.
_COMMAS = re.compile(
    rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[{,][ \t\r\n]*+,|,(?=[ \t\r\n]*+[}\]])', re.DOTALL
)
# The names that their examples have for the same types.
_TYPES = {"string": "str", "integer": "int", "number": "float", "boolean": "bool"}
TYPE_DEPTH_MAX = 64  # of what is read here; `output_types` has the limit that is told
NAMES = {
    "model": "model_name", "tokens": "max_new_tokens", "prompts": "prompt", "items": "prompt",
}  # fmt: skip


class Asked(Lenient):
    """One prompt or a list of them. `out_type` is what older clients call `output_type`."""

    model_name: str | None = None
    prompt: str | list[Any]
    out_type: dict[str, Any] | None = None
    output_type: dict[str, Any] | None = None
    max_tokens: StrictInt | None = None
    max_new_tokens: StrictInt | None = None
    server: Any = None

    @model_validator(mode="before")
    @classmethod
    def _one_or_some(cls, value: Any) -> Any:
        prompt = value.get("prompt") if isinstance(value, dict) else None
        if not isinstance(prompt, str | list):
            raise at("prompt", "must be a string or a list of strings")
        if isinstance(prompt, list):
            if not prompt:
                raise at("prompt", "must be a list with something in it")
            for index, each in enumerate(prompt):
                if not isinstance(each, str):
                    raise at(f"prompt.{index}", "must be a string")
        return value

    @model_validator(mode="after")
    def _its_model(self) -> Asked:
        self.model = self.model_name
        return self

    @property
    def wanted(self) -> dict[str, Any] | None:
        """What the answer is to be, in our words."""
        wanted = self.out_type if self.output_type is None else self.output_type
        return None if wanted is None else {name: _ours(each, 0) for name, each in wanted.items()}

    @property
    def names(self) -> Mapping[str, str]:
        """What the caller calls our fields."""
        names = dict(NAMES)
        if self.max_new_tokens is None:
            names["tokens"] = "max_tokens"
        if self.output_type is None:
            names["output_type"] = "out_type"
        return names

    @property
    def fit(self) -> bool:
        """Whether the length is a guess: `max_tokens` is one, of the prompt's and the answer's together."""
        return self.max_new_tokens is None

    def fields(self, settings: Settings) -> dict[str, Any]:
        """Those of a job, but for its prompt."""
        tokens = self.max_new_tokens
        if tokens is None and self.max_tokens is not None:
            tokens = min(self.max_tokens, settings.tokens_max)
        return {"raw": True, "tokens": tokens, "output_type": self.wanted}


def _ours(wanted: Any, depth: int) -> Any:
    if depth > TYPE_DEPTH_MAX:
        return wanted
    match wanted:
        case str():
            return _TYPES.get(wanted, wanted)
        case dict():
            return {name: _ours(each, depth + 1) for name, each in wanted.items()}
        case [only]:
            return [_ours(only, depth + 1)]
    return wanted


def without_trailing_commas(raw: bytes) -> bytes:
    """JSON without the commas that stand before the end of an object or a list; strings stay as they are."""
    return _COMMAS.sub(lambda found: b"" if found[0] == b"," else found[0], raw)


def forgiving(raw: bytes | bytearray) -> dict[str, Any]:
    """The object in a body of theirs, whose commas may be too many. Raises BadRequest, InvalidRequest."""
    try:
        return object_in(raw)
    except BadRequest as error:
        mended = without_trailing_commas(bytes(raw))
        if len(mended) == len(raw):
            raise
        try:
            return object_in(mended)
        except BadRequest:
            raise error from None


def is_lamini(raw: bytes | bytearray) -> bool:
    """Whether a body at the address that OpenAI's clients have too is one of Lamini's: it names its model so."""
    try:
        value = forgiving(raw)
    except HerderError:
        return False
    return "model_name" in value and value.get("model") is None
