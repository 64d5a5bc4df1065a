"""Calls of tools in what a model has written, in the forms that published chat templates ask for. Pure.

`<tool_call>{…}</tool_call>`, or nothing but a JSON object (or a list of them) with the name of a tool and its
arguments. What is none of these stays text. The outcome is the same however the answer was cut into pieces.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

OPEN, CLOSE = "<tool_call>", "</tool_call>"
CALLS_MAX = 64  # of one answer; one with more is shown as text
CALL_ID_CHARS = 9  # letters and digits, as Mistral's templates insist on
_MARKED = re.compile(f"{OPEN}(.*?)(?:{CLOSE}|\\Z)", re.DOTALL)


@dataclass(frozen=True)
class Call:
    """What is to be called; `arguments` is a JSON object as text."""

    name: str
    arguments: str

    def shown(self, job_id: str, choice: int, index: int) -> dict[str, Any]:
        """As OpenAI's API shows it; its id is the same each time the job is read."""
        digest = hashlib.sha256(f"{job_id}/{choice}/{index}".encode()).hexdigest()
        return {
            "id": digest[:CALL_ID_CHARS],
            "type": "function",
            "function": {"name": self.name, "arguments": self.arguments},
        }


class CallsApart:
    """Tells text from calls in an answer that comes in pieces. What may be a call is held back to the end."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._held = ""
        self._begun = not names
        self._calling = False

    def feed(self, piece: str) -> str:
        """The text that can be told now."""
        self._held += piece
        if self._calling:
            return ""
        if not self._begun:
            start = self._held.lstrip()
            if OPEN.startswith(start):
                return ""
            if start[0] in "{[" or start.startswith(OPEN):
                self._calling = True
                return ""
            self._begun = True
        if not self._names:
            told, self._held = self._held, ""
            return told
        told, mark, rest = self._held.partition(OPEN)
        if mark:
            self._held, self._calling = mark + rest, True
            return told
        most = min(len(OPEN) - 1, len(told))
        keep = next(n for n in range(most, -1, -1) if told.endswith(OPEN[:n]))
        self._held = told[len(told) - keep :]
        return told[: len(told) - keep]

    def end(self) -> tuple[str, list[Call]]:
        """The rest of the text, and the calls."""
        held, self._held = self._held, ""
        calls, text = _found(held, self._names)
        return (text, calls) if calls else (held, [])


def calls_in(text: str, names: Collection[str]) -> tuple[str, list[Call]]:
    """A whole answer: its text without the calls, and these."""
    apart = CallsApart(names)
    told = apart.feed(text)
    rest, calls = apart.end()
    return told + rest, calls


def _found(text: str, names: Collection[str]) -> tuple[list[Call], str]:
    if not names:
        return [], text
    if OPEN in text:
        written = [match[1] for match in _MARKED.finditer(text)]
        rest = _MARKED.sub("", text).strip()
        values = [_json(each) for each in written[: CALLS_MAX + 1]]
    else:
        value, rest = _json(text), ""
        values = value if isinstance(value, list) else [value]
    if len(values) > CALLS_MAX:
        return [], text
    calls = [_call(value, names) for value in values]
    found = [call for call in calls if call is not None]
    return (found, rest) if len(found) == len(calls) else ([], text)


def _call(value: Any, names: Collection[str]) -> Call | None:
    """The call that this value is, if it is one of a tool that there is."""
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    if not isinstance(value, dict) or value.get("name") not in list(names):
        return None
    arguments = value.get("arguments", value.get("parameters"))
    if isinstance(arguments, str):
        arguments = _json(arguments)
    elif arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        return None
    try:
        text = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
        text.encode()  # JSON can write half a character, and UTF-8 cannot
    except (ValueError, RecursionError):
        return None
    return Call(value["name"], text)


def _json(text: str) -> Any:
    """The value; None where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
