"""Where in a JSON text a fault stands that its parser found: the path that goes into `errors`. Only refusals come here.

Pure. `reading` says what is a fault; here the text is read once more, with every fault left in its place.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from herder.errors import InvalidRequest

PATH_CHARS_MAX = 200


@dataclass(frozen=True)
class _Fault:
    """What stands where there should be a value; it would have been refused."""


def placed(error: InvalidRequest, raw: bytes | bytearray) -> InvalidRequest:
    """The refusal with the path of the first fault; as it was where that is not within an object's field."""
    try:
        read = json.loads(
            raw.decode(), parse_float=_real, parse_constant=_constant, object_pairs_hook=_marked
        )
        path = _first(read)
    except (ValueError, RecursionError):
        return error  # told as it is: another fault comes behind it
    if not path:
        return error
    said = [fault["message"] for fault in error.extra.get("errors", ())] or [error.detail]
    return InvalidRequest(f"{path}: {said[0]}", errors=[{"field": path, "message": said[0]}])


def _first(value: Any) -> str:
    """The path of the first fault; empty where there is none."""
    rest: list[tuple[str, Any]] = [("", value)]
    while rest:
        path, value = rest.pop()
        if isinstance(value, _Fault) or (isinstance(value, str) and not _is_unicode(value)):
            return path.encode("utf-8", "backslashreplace").decode()[:PATH_CHARS_MAX]
        inside = (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        )
        rest += reversed(
            [(f"{path}.{name}".lstrip(".")[: PATH_CHARS_MAX + 1], each) for name, each in inside]
        )
    return ""


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _real(text: str) -> Any:
    try:
        return Decimal(text) if len(text) <= 64 else _Fault()
    except InvalidOperation:
        return _Fault()


def _constant(name: str) -> _Fault:
    return _Fault()


def _marked(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for name, value in pairs:
        named[name] = _Fault() if name in named else value
    return named
