"""Whether a finished answer is valid JSON that fits its schema; nothing is told a caller that is not. Pure."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, NoReturn

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

REASON_CHARS_MAX = 200


def misfit(text: str, schema: str) -> str | None:
    """Why this text is no answer of the schema; None where it is one."""
    try:
        answer = json.loads(text, parse_constant=_no_number)
        json.dumps(answer, allow_nan=False, ensure_ascii=False).encode()
        _validator(schema).validate(answer)
    except ValidationError as error:
        return f"{error.json_path}: {error.message}"[:REASON_CHARS_MAX]
    except (ValueError, RecursionError) as error:
        return f"{type(error).__name__}: {error}"[:REASON_CHARS_MAX]
    return None


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


@lru_cache(maxsize=64)
def _validator(schema: str) -> Any:
    # `format` is no keyword of these schemas; nothing is asserted that the grammar does not know.
    return Draft202012Validator(json.loads(schema))
