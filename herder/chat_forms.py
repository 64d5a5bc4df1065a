"""The forms in which one and the same chat may be put, since published chat templates do not agree on them.

A turn with tool calls has no `content`, or an empty one; `arguments` are an object, or a text with JSON in it; no tools
are none, or an empty list. Pure. Must not know of Jinja, of any model or of where a chat comes from.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, NamedTuple

Message = dict[str, Any]
Tools = list[dict[str, Any]] | None
Change = Callable[[Any], Any]


class Form(NamedTuple):
    """What a template is given."""

    messages: list[Message]
    tools: Tools


def forms(messages: Sequence[Message], tools: Sequence[dict[str, Any]] | None) -> list[Form]:
    """Every form of a chat, as it came first, none twice; at most twelve."""
    found: list[Form] = []
    listed = list(tools) if tools else None
    for no_tools, arguments, content in product((None, []), (_as_is, _object, _text), (_as_is, _empty)):
        form = Form([_changed(message, arguments, content) for message in messages], listed or no_tools)
        if form not in found:
            found.append(form)
    return found


def garbled(text: str, form: Form) -> bool:
    """Whether arguments stand in the text as no model has seen them: JSON in a JSON string, or Python's own form."""
    return any(_written_wrong(arguments) in text for arguments in _arguments(form.messages) if arguments)


def _written_wrong(arguments: Any) -> str:
    return json.dumps(arguments, ensure_ascii=False) if isinstance(arguments, str) else str(arguments)


def _arguments(messages: Sequence[Message]) -> list[Any]:
    calls = (call for message in messages for call in message.get("tool_calls") or ())
    return [call["function"]["arguments"] for call in calls]


def _changed(message: Message, arguments: Change, content: Change) -> Message:
    if not message.get("tool_calls"):
        return message
    calls = [
        {**call, "function": {**call["function"], "arguments": arguments(call["function"]["arguments"])}}
        for call in message["tool_calls"]
    ]
    return {**message, "content": content(message.get("content")), "tool_calls": calls}


def _as_is(value: Any) -> Any:
    return value


def _empty(content: str | None) -> str:
    return content or ""


def _object(arguments: Any) -> Any:
    """What the text says, where that is an object."""
    try:
        said = json.loads(arguments) if isinstance(arguments, str) else arguments
    except (ValueError, RecursionError):
        return arguments
    return said if isinstance(said, dict) else arguments


def _text(arguments: Any) -> Any:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
