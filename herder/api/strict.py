"""What all bodies are made of: a base that refuses unknown fields, texts without NUL, numbers that are numbers."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError


def _no_nul(text: str) -> str:
    if "\x00" in text:
        raise ValueError("must not contain NUL")
    return text


def _real(value: Any) -> Any:
    """A JSON number as a float; strings and booleans are not numbers."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError("must be a number")
    try:
        return float(value)
    except OverflowError:  # of an integer; a Decimal becomes infinite, which is refused as well
        raise ValueError("is too large") from None


AT = "at:"
_NO_NUL = {"pattern": "^[^\\u0000]*$"}
Text = Annotated[str, AfterValidator(_no_nul), Field(json_schema_extra=_NO_NUL)]
Real = Annotated[float, BeforeValidator(_real)]


def at(field: str, message: str) -> PydanticCustomError:
    """A fault of a whole body, told of the field that is to be changed; `problems` reads it off the type."""
    return PydanticCustomError(cast(Any, f"{AT}{field}"), cast(Any, message))


class Strict(BaseModel):
    """No unknown fields, no `"5"` for 5, no 5.0 for 5."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
