"""What a hostile caller sends: one request each, and all that may become of it. Pure; `hostile` sends them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

BAD = "400 bad_request"
INVALID = "422 invalid_request"
CONTEXT = "422 context_exceeded"
LARGE = "413 too_large"
SUCCEEDED = "succeeded"
SCHEMA_ERROR = "failed schema_error"
CONTEXT_ERROR = "failed context_exceeded"

JOBS = "/v1/jobs"
_NUMBER = re.compile(r'"@number (\S+?)@"')

Check = Callable[[Any], object]


@dataclass(frozen=True)
class Attack:
    """One request. `becomes` is what may come of it: `422 invalid_request`, `succeeded`, `failed schema_error`.

    `check` looks at the whole answer, of an accepted job at its end, and is false or raises where it is wrong.
    """

    name: str
    content: bytes
    becomes: frozenset[str]
    method: str = "POST"
    path: str = JOBS
    headers: Mapping[str, str] = field(default_factory=dict)
    check: Check | None = None

    @property
    def control(self) -> bool:
        """Whether it only looks hostile, and must be answered."""
        return self.becomes == {SUCCEEDED}


def written(value: Any) -> bytes:
    """As JSON, decimals digit for digit and lone surrogates as escapes."""
    text = json.dumps(value, default=lambda number: f"@number {number}@")
    return _NUMBER.sub(r"\1", text).encode()


def job(name: str, *becomes: str, check: Any = None, **fields: Any) -> Attack:
    """A job's body; a short prompt and few tokens where nothing else is said."""
    body = {"tokens": 6} | ({} if "messages" in fields else {"prompt": "hi"}) | fields
    return Attack(name, written(body), frozenset(becomes), check=check)


def raw(name: str, content: bytes, *becomes: str, **more: Any) -> Attack:
    """A body that is no body."""
    return Attack(name, content, frozenset(becomes), **more)


def number(text: str) -> Decimal | str:
    """A number that Python would not write like this."""
    return f"@number {text}@"


def nested(depth: int, inside: Any = 0, name: str | None = None) -> Any:
    """Lists in lists, or objects in objects under one name."""
    for _ in range(depth):
        inside = [inside] if name is None else {name: inside}
    return inside
