"""Where `herder run` and `herder quote` find the prompt: an argument, a file, standard input, or a chat as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from llama_herder.cli.output import UsageProblem, money
from llama_herder.types import Message

PROMPT_BYTES_MAX = 16_000_000


def read_prompt(
    prompt: str | None, messages: str | None, system: str | None, raw: bool
) -> str | list[Message]:
    """The text, or the chat.

    1. `--messages FILE` is a chat as JSON. 2. `@FILE` is a file (`@@…` a prompt that begins with @), `-` standard
    input. 3. No prompt is standard input too, if something is piped. 4. `--system` makes a chat of the text.
    """
    if messages is not None:
        if prompt is not None or system is not None or raw:
            raise UsageProblem("--messages is the whole chat: leave PROMPT, --system and --raw away")
        return _chat(messages)
    if prompt is None:
        if sys.stdin is None or sys.stdin.isatty():
            raise UsageProblem("no prompt: give one, or @FILE, or pipe it in")
        prompt = "-"
    if prompt == "-":
        text = _decoded(_stdin(), "standard input")
    elif prompt.startswith("@@"):
        text = prompt[1:]
    elif prompt.startswith("@"):
        text = _decoded(_file(prompt[1:]), prompt[1:])
    else:
        text = prompt
    if not text:
        raise UsageProblem("the prompt is empty")
    if system is None:
        return text
    if raw:
        raise UsageProblem("--raw sends the prompt as it is: --system has no place in it")
    return [{"role": "system", "content": system}, {"role": "user", "content": text}]


def _chat(path: str) -> list[Message]:
    name = "standard input" if path == "-" else path
    text = _decoded(_stdin() if path == "-" else _file(path), name)
    try:
        found: Any = json.loads(text)
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, column {error.colno}"
        raise UsageProblem(f"{name} is not JSON: {error.msg} at {line}; nothing was sent") from None
    except RecursionError:
        raise UsageProblem(f"{name} is nested too deeply; nothing was sent") from None
    if isinstance(found, dict):
        found = found.get("messages")
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        shape = '[{"role": "user", "content": "…"}]'
        raise UsageProblem(f"{name} is not a chat: it must look like {shape}; nothing was sent")
    return found


def _file(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return _capped(file.read(PROMPT_BYTES_MAX + 1), path)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "not a file name"
        raise UsageProblem(f"cannot read {path!r}: {why.lower()}") from None


def _stdin() -> bytes:
    if sys.stdin is None:
        raise UsageProblem("there is no standard input")
    return _capped(sys.stdin.buffer.read(PROMPT_BYTES_MAX + 1), "standard input")


def _capped(content: bytes, name: str) -> bytes:
    if len(content) > PROMPT_BYTES_MAX:
        raise UsageProblem(f"{name} is longer than {money(PROMPT_BYTES_MAX)} bytes, more than any herd takes")
    return content


def _decoded(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageProblem(f"{name} is not UTF-8 text (byte {error.start})") from None
