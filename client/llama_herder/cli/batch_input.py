"""What `herder batch` reads: JSON lines or plain text, checked as far as it can be here, with line numbers.

Line numbers are kept, so that those in the herder's refusals are those of the file.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_herder._core import json_bytes, one_line
from llama_herder._json import odd_number
from llama_herder.cli.output import UsageProblem, money

INPUT_BYTES_MAX = 256_000_000
FAULTS_MAX = 3


@dataclass(frozen=True)
class Input:
    """`count` items as JSON lines, what the whole is known by, and what to call where it came from."""

    lines: bytes
    count: int
    sha256: str
    name: str


def read_input(path: str, as_text: bool, tokens: int | None) -> Input:
    """The items of a file, or of standard input. Raises UsageProblem with the lines that cannot be right."""
    name = "standard input" if path == "-" else one_line(path)
    content = _content(path, name)
    if len(content) > INPUT_BYTES_MAX:
        raise UsageProblem(
            f"{name} is longer than {money(INPUT_BYTES_MAX)} bytes: make several batches of it"
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UsageProblem(f"{name}, line {line}: this is not UTF-8 text; nothing was sent") from None
    rows = [row.removesuffix("\r") for row in text.split("\n")]
    if as_text:
        lines = [json_bytes({"prompt": row}) if row else b"" for row in rows]
    else:
        _check(name, rows, tokens)
        lines = [row.encode() if row.strip() else b"" for row in rows]
    if as_text and tokens is None:
        raise UsageProblem("--tokens is needed: the most tokens of each answer")
    count = sum(1 for line in lines if line)
    if not count:
        raise UsageProblem(f"{name} has no prompts")
    found = b"\n".join(lines)
    return Input(found, count, hashlib.sha256(found).hexdigest(), name)


def _content(path: str, name: str) -> bytes:
    if path == "-":
        if sys.stdin is None:
            raise UsageProblem("there is no standard input")
        return sys.stdin.buffer.read(INPUT_BYTES_MAX + 1)
    try:
        with Path(path).open("rb") as file:
            return file.read(INPUT_BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "not a file name"
        raise UsageProblem(f"cannot read {name!r}: {why.lower()}") from None


def _check(name: str, rows: list[str], tokens: int | None) -> None:
    """What needs no herd to be seen; names the first lines that are wrong."""
    faults = [f"line {number}: {why}" for number, why in _faults(rows, tokens)]
    if faults:
        more = f" (and {money(len(faults) - FAULTS_MAX)} more)" if len(faults) > FAULTS_MAX else ""
        raise UsageProblem(f"{name}, {'; '.join(faults[:FAULTS_MAX])}{more}; nothing was sent")


def _faults(rows: list[str], tokens: int | None) -> Iterator[tuple[int, str]]:
    seen: dict[str, int] = {}
    for number, row in enumerate(rows, 1):
        if not row.strip():
            continue
        try:
            item = json.loads(row)
        except (ValueError, RecursionError):
            yield number, "this is not JSON (is it plain text? --text takes a prompt a line)"
            continue
        why = _fault(item, tokens)
        if why:
            yield number, why
            continue
        custom_id = item.get("custom_id")
        if isinstance(custom_id, str) and seen.setdefault(custom_id, number) != number:
            yield number, f"custom_id is the same as in line {seen[custom_id]}"


def _fault(item: Any, tokens: int | None) -> str:
    if not isinstance(item, dict):
        return 'not a JSON object; an item looks like {"prompt": "…"}'
    if item.get("prompt") is None and item.get("messages") is None:
        return "prompt or messages is missing"
    if odd := odd_number(item):  # Python reads NaN, which is no JSON
        return one_line(odd, 200)
    asked = item.get("tokens")
    if asked is None:
        return "" if tokens is not None else "it has no tokens of its own, so --tokens is needed"
    whole = isinstance(asked, int) and not isinstance(asked, bool)
    return "" if whole and asked >= 1 else "tokens must be a whole number, 1 or more"
