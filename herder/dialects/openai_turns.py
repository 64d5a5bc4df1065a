"""The messages of OpenAI's clients as turns of ours: parts, roles, and tools for templates that know none. Pure.

Where a chat template takes tools it is given them. Where it does not, the model is told of them in the first message of
the system or the user, and earlier calls and their answers stand in the turns as text, so that nothing is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from herder.dialects.openai_calls import CLOSE, OPEN
from herder.dialects.openai_tools import Toolbox, as_of_a_job, wrong

PARTS_JOINED_BY = "\n"
_TOLD = (
    "You can call these functions:\n{tools}\n"
    f'To call one, answer only with {OPEN}{{{{"name": …, "arguments": {{{{…}}}}}}}}{CLOSE}'
)
_TAKES_TOOLS = re.compile(r"\btools\b")

Turn = dict[str, Any]


def turns_of(messages: Any) -> list[Turn]:
    """The turns, with the fields that we know. What they hold is checked with the job. Raises InvalidRequest."""
    if not isinstance(messages, list) or not messages:
        raise wrong("messages", "must be a list of messages, not empty")
    return [_turn(message, f"messages.{i}") for i, message in enumerate(messages)]


def _turn(message: Any, at: str) -> Turn:
    if not isinstance(message, dict):
        raise wrong(at, "must be an object with a role and content")
    role = "system" if message.get("role") == "developer" else message.get("role")
    turn: Turn = {"role": role, "content": _text(message.get("content"), f"{at}.content")}
    if role == "assistant":
        if message.get("function_call") is not None:
            raise wrong(f"{at}.function_call", "is not taken any more: use tool_calls")
        if message.get("tool_calls"):
            turn["tool_calls"] = _calls(message["tool_calls"], f"{at}.tool_calls")
        elif turn["content"] is None:
            turn["content"] = message.get("refusal") or ""
    elif role == "tool":
        turn["content"] = turn["content"] or ""
        turn |= {name: message[name] for name in ("tool_call_id", "name") if message.get(name) is not None}
    return turn


def _text(content: Any, at: str) -> Any:
    """The text of a content, its parts joined; anything that is no text is left for the check of the job."""
    if not isinstance(content, list):
        return content
    texts = []
    for i, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in ("text", "refusal"):
            what = f"{kind[:40]} is not taken" if isinstance(kind, str) else "must be an object with a type"
            raise wrong(f"{at}.{i}", f"{what}: the models here read text, send parts of the type text")
        text = part.get(kind)
        if not isinstance(text, str):
            raise wrong(f"{at}.{i}.{kind}", "must be a string")
        texts.append(text)
    return PARTS_JOINED_BY.join(texts)


def _calls(calls: Any, at: str) -> list[Any]:
    if not isinstance(calls, list):
        raise wrong(at, "must be a list")
    return [_call(call, f"{at}.{i}") for i, call in enumerate(calls)]


def _call(call: Any, at: str) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        raise wrong(f"{at}.function", "must be an object with a name and arguments")
    arguments = function.get("arguments")
    known = {"name": function.get("name"), "arguments": "{}" if arguments in (None, "") else arguments}
    return {"type": "function", "function": known} | ({"id": call["id"]} if call.get("id") else {})


def with_tools(turns: list[Turn], box: Toolbox, template: str | None) -> tuple[list[Turn], list[Any] | None]:
    """The turns as this template can take them, and the tools that it is to be given. Raises InvalidRequest."""
    if template is None or _TAKES_TOOLS.search(template):
        return turns, list(box.tools) or None
    if box.tools or any(turn["role"] == "tool" or "tool_calls" in turn for turn in turns):
        as_of_a_job("messages", turns)  # while they stand where they were sent: they are counted in errors
    plain = _plain(turns)
    if box.tools:
        tools = "\n".join(_written(tool["function"]) for tool in box.tools)
        told = _TOLD.format(tools=tools)
        first = plain[0]
        if first["role"] == "system" and isinstance(first["content"], str):
            plain[0] = {"role": "system", "content": f"{first['content']}\n\n{told}"}
        elif first["role"] == "user" and isinstance(first["content"], str):
            # Some templates have no place for a system message.
            plain[0] = {"role": "user", "content": f"{told}\n\n{first['content']}"}
        else:
            plain.insert(0, {"role": "system", "content": told})
    return plain, None


def _plain(turns: Sequence[Turn]) -> list[Turn]:
    """Calls as text of the assistant, and what the tools said as the user's."""
    found: list[Turn] = []
    answering = False
    for turn in turns:
        role, content = turn["role"], turn["content"]
        if role == "assistant" and "tool_calls" in turn:
            calls = [_written(call["function"]) for call in turn["tool_calls"]]
            said = [f"{OPEN}{call}{CLOSE}" for call in calls]
            found.append(
                {"role": role, "content": "\n".join([*([content] if content else []), *said])}
                if content is None or isinstance(content, str)
                else turn
            )
        elif role == "tool" and isinstance(content, str):
            text = f"<tool_response>{content}</tool_response>"
            if answering:  # of several calls: one turn, since many templates want the roles to alternate
                found[-1] = {"role": "user", "content": f"{found[-1]['content']}\n{text}"}
            else:
                found.append({"role": "user", "content": text})
        elif role == "user" and answering and isinstance(content, str):
            found[-1] = {"role": "user", "content": f"{found[-1]['content']}\n{content}"}
        else:
            found.append(turn)
        answering = role == "tool" and found[-1]["role"] == "user"
    return found


def _written(function: dict[str, Any]) -> str:
    """A function, or a call of one, as JSON; arguments that came as text are put in as what they say."""
    shown = dict(function)
    if isinstance(shown.get("arguments"), str):
        shown["arguments"] = json.loads(shown["arguments"])
    return json.dumps(shown, ensure_ascii=False, default=float)
