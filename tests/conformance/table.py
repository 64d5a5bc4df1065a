"""What passes, as the tables of a page of the docs. Pure but for the page's place."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "compatibility.md"
COLUMNS = (
    "completion", "chat", "stream", "stop", "typed", "tools", "20 at once", "list of 20", "models",
    "400", "401", "402", "404", "429",
)  # fmt: skip
_BEGIN, _END = "<!-- {name}: written by make conformance -->", "<!-- end of {name} -->"


@dataclass(frozen=True)
class Row:
    """One client; `results` has for each check why it fails, or nothing."""

    client: str
    version: str
    results: dict[str, str]


def written(page: str, rows: Sequence[Row]) -> str:
    """The page with fresh tables. Raises ValueError where it has no place for them."""
    clients = ["| client | version | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 2) + "|"]
    clients += [
        f"| {row.client} | {row.version} | " + " | ".join(_sign(row, name) for name in COLUMNS) + " |"
        for row in rows
    ]
    snippets = ["| document | what it does | with | |", "|---|---|---|---|"]
    for row in rows:
        for name in row.results:
            document, told, what = name.partition(": ")
            if told:
                snippets.append(f"| {document} | `{what}` | {row.client} | {_sign(row, name)} |")
    return _put(_put(page, "clients", clients), "snippets", snippets)


def _sign(row: Row, name: str) -> str:
    if name not in row.results:
        return "–"
    return "✗" if row.results[name] else "✓"


def _put(page: str, name: str, lines: Sequence[str]) -> str:
    begin, end = _BEGIN.format(name=name), _END.format(name=name)
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if not pattern.search(page):
        raise ValueError(f"{PAGE.name} has no place for {name}")
    return pattern.sub(lambda _: "\n".join([begin, *lines, end]), page)
