"""Whether a finished answer is valid JSON that fits its schema; nothing is told a caller that is not. Pure.

The validator is native code without recursion over errors: an answer of a thousand values, each of which misses twenty
alternatives of twenty lists, is looked at between two steps.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import NoReturn

from jsonschema_rs import Draft202012Validator, ValidationError

REASON_CHARS_MAX = 200


def misfit(text: str, schema: str) -> str | None:
    """Why this text is no answer of the schema; None where it is one."""
    try:
        answer = json.loads(text, parse_constant=_no_number)
        json.dumps(answer, allow_nan=False, ensure_ascii=False).encode()
        _validator(schema).validate(answer)
    except ValidationError as error:
        place = "".join(f".{step}" for step in error.instance_path)
        return f"${place}: {error.message}"[:REASON_CHARS_MAX]
    except (ValueError, RecursionError) as error:
        return f"{type(error).__name__}: {error}"[:REASON_CHARS_MAX]
    return None


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


@lru_cache(maxsize=64)
def _validator(schema: str) -> Draft202012Validator:
    # `format` is no keyword of these schemas; nothing is asserted that the grammar does not know.
    return Draft202012Validator(json.loads(schema))
