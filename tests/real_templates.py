"""What templates of published models make of each kind of chat: `python -m tests.real_templates FOLDER`.

Holds the chats, and what of each must be found in the text. Run by hand over a whole folder, it counts; a test does so
with the few templates in `chat_templates`.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from herder.chat_forms import Message
from herder.rendering import TemplateError, render

FOLDER = Path(__file__).parent / "chat_templates"
TOOL = {"name": "get_weather", "description": "Weather of a city", "parameters": {"type": "object"}}
TOOLS: list[dict[str, Any]] = [{"type": "function", "function": TOOL}]


class Case(NamedTuple):
    """A chat, and words that the text must have."""

    messages: list[Message]
    words: tuple[str, ...]
    tools: list[dict[str, Any]] | None = None


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def call(arguments: Any, content: str | None = None) -> Message:
    called = {
        "id": "call12345",
        "type": "function",
        "function": {"name": "get_weather", "arguments": arguments},
    }
    return {"role": "assistant", "content": content, "tool_calls": [called]}


SYSTEM = {"role": "system", "content": "Answer in verse."}
ASKED = user("Is it warm in Paris?")
CALLED = call({"city": "Paris"})
CALLED_WITH_TEXT = call('{"city": "Paris"}')
TOLD = {"role": "tool", "content": "21 degrees", "name": "get_weather", "tool_call_id": "call12345"}
CASES = {
    "user": Case([ASKED], ("warm in Paris",)),
    "system": Case([SYSTEM, ASKED], ("in verse", "warm in Paris")),
    "turns": Case([ASKED, assistant("It is."), user("And Rome?")], ("warm", "It is.", "And Rome?")),
    "system, turns": Case(
        [SYSTEM, ASKED, assistant("It is."), user("Rome?")], ("in verse", "It is.", "Rome?")
    ),
    "tools": Case([ASKED], ("warm in Paris", "get_weather"), TOOLS),
    "call": Case([ASKED, CALLED, TOLD], ("warm in Paris", "get_weather", "city", "21 degrees"), TOOLS),
    "call with text": Case([ASKED, CALLED_WITH_TEXT, TOLD], ("get_weather", "city", "21 degrees"), TOOLS),
    "call, turns": Case(
        [ASKED, CALLED, TOLD, assistant("It is."), user("Rome?")],
        ("city", "21 degrees", "It is.", "Rome?"),
        TOOLS,
    ),
}


def outcome(template: str, case: Case) -> str:
    """The text that is read, or why there is none behind `refused: `. Raises AssertionError where words are missing."""
    try:
        text = render(template, case.messages, case.tools, bos_token="<s>", eos_token="</s>")
    except TemplateError as error:
        return f"refused: {error}"
    missing = [word for word in case.words if word not in text]
    assert not missing, f"{missing} not in {text!r}"
    return text


def main() -> None:
    folder = Path(sys.argv[1])
    well: Counter[str] = Counter()
    files = sorted(folder.glob("*.jinja"))
    for file in files:
        for name, case in CASES.items():
            found = outcome(file.read_text("utf-8"), case)
            well[name] += not found.startswith("refused: ")
            if found.startswith("refused: "):
                print(f"{file.stem}, {name}: {found}")
    print(f"{len(files)} templates: " + ", ".join(f"{name} {count}" for name, count in well.items()))


if __name__ == "__main__":
    main()
