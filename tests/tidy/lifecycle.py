"""The lifecycle table beside its scripts and its page: three tellings of one thing that must agree."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import PurePosixPath

from herder.lifecycle import Transition
from tests.tidy.tree import Source

FOLDER = "herder/lua/"
PAGE = "docs/reference/lifecycle.md"


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


def page_faults(page: str, table: Iterable[Transition]) -> list[str]:
    """Each row of the table is one row of a Markdown table with the same two states, event, script and maker."""
    rows = [
        [re.sub(r"[`*]", "", cell).strip() for cell in line.split("|")]
        for line in page.splitlines()
        if "|" in line
    ]
    faults: list[str] = []
    for t in table:
        wanted = {t.event, t.script, t.made_by, f"{t.source or '—'} → {t.target}"}
        if not any(wanted <= set(row) for row in rows):
            faults.append(
                f"{PAGE}: row {t.row} ({t.source or '—'} → {t.target}, {t.event}) is missing or differs"
            )
    return faults
