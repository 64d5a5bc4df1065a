"""Reading an AO message: its tags, wherever they stand. Pure.

As fields of the message, as a map in `Tags`, or there as a list of `{name, value}`; upper or lower case. What nobody
here needs is ignored, whatever it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from herder.errors import InvalidRequest

DIGITS_MAX = 16  # of 2^53
TAGS_MAX = 1_000
# What the herd reads of a message; the spellings that are in use.
_READ = {
    name.lower(): name
    for name in (
        "Action", "Target", "Quantity", "X-Prompt", "X-Tokens", "X-Reference", "X-Termination", "X-Model", "reply_url",
        "Model-ID",
    )
} | {"modelid": "Model-ID", "model_id": "Model-ID", "reply-url": "reply_url", "x-reply-url": "reply_url"}  # fmt: skip


@dataclass(frozen=True)
class Sent:
    """A message as far as it is read: tag → value, a text or a whole number."""

    tags: dict[str, str | int]

    def text(self, name: str) -> str:
        """A tag that has to be there. Raises InvalidRequest."""
        found = self.text_or_none(name)
        if not found:
            _refuse(name, "is required")
        return found

    def text_or_none(self, name: str) -> str | None:
        """A tag that need not be there."""
        found = self.tags.get(name)
        return None if found is None else str(found)

    def number(self, name: str) -> int:
        """A tag that has to be a whole number, as a text or not. Raises InvalidRequest."""
        found = self.text(name)
        if not re.fullmatch(rf"[0-9]{{1,{DIGITS_MAX}}}", found, re.ASCII):
            _refuse(name, f'must be a whole number as a text, such as "40", of at most {DIGITS_MAX} digits')
        return int(found)


def sent_in(body: dict[str, Any]) -> Sent:
    """The message in a JSON object. Raises InvalidRequest: a tag that is read is no text, or has two values."""
    tags: dict[str, str | int] = {}
    for given, value in _told(body):
        name = _READ.get(given.lower().strip())
        if name is None or value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, str | int):
            _refuse(name, "must be a text")
        if str(tags.setdefault(name, value)) != str(value):
            _refuse(name, "is given twice, with different values")
    return Sent(tags)


def _told(body: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every tag with its value."""
    for name, value in body.items():
        if name.lower() != "tags":
            yield name, value
        elif isinstance(value, dict):
            yield from value.items()
        elif isinstance(value, list) and len(value) <= TAGS_MAX:
            for i, each in enumerate(value):
                yield _pair(i, each)
        elif value is not None:
            _refuse(name, f"must be a map, or a list of at most {TAGS_MAX} {{name, value}}")


def _pair(i: int, each: Any) -> tuple[str, Any]:
    named = {key.lower(): value for key, value in each.items()} if isinstance(each, dict) else {}
    name = named.get("name")
    if not isinstance(name, str) or "value" not in named:
        _refuse(f"Tags.{i}", "must be {name, value}")
    return name, named["value"]


def _refuse(name: str, problem: str) -> NoReturn:
    raise InvalidRequest(f"{name}: {problem}", errors=[{"field": name, "message": problem}])
