"""The lifecycle table beside its scripts and its page: three tellings of one thing that must agree."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import PurePosixPath

from herder.lifecycle import Transition
from tests.tidy.tree import Source

FOLDER = "herder/lua/"
PAGE = "docs/reference/lifecycle.md"
HEADINGS = frozenset({"row", "script"})


def script_faults(files: list[Source], named: Collection[str]) -> list[str]:
    """Every script is named by the table or its list of other scripts, and every named script is there."""
    there = {
        PurePosixPath(file.path).stem
        for file in files
        if file.path.startswith(FOLDER)
        and file.path.endswith(".lua")
        and not PurePosixPath(file.path).name.startswith("_")
    }
    return [
        *(f"{FOLDER}{name}.lua is in no row of the lifecycle" for name in sorted(there - set(named))),
        *(f"{FOLDER}{name}.lua is named by the lifecycle and missing" for name in sorted(set(named) - there)),
    ]


def page_faults(page: str, table: Iterable[Transition], others: Mapping[str, str]) -> list[str]:
    """The page has one row for each transition and each other script, cell for cell, and no row besides."""
    rows = {
        tuple(re.sub(r"[`*]", "", cell).strip() for cell in line.strip().strip("|").split("|"))
        for line in page.splitlines()
        if line.startswith("|")
    }
    told = {row for row in rows if not set(row[0]) <= set("-: ") and row[0] not in HEADINGS}
    meant = {
        *((t.row, f"{t.source or '—'} → {t.target}", t.event, t.script, t.made_by, t.money) for t in table),
        *others.items(),
    }
    return [
        *(f"{PAGE}: the row {' | '.join(row)} is missing" for row in sorted(meant - told)),
        *(f"{PAGE}: the row {' | '.join(row)} is not in the table" for row in sorted(told - meant)),
    ]
