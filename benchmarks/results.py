"""What `--results FOLDER` writes: every benchmark's last run, as JSON, as a page, and as a chart of its ratios.

A run replaces its own entry and leaves the others, so that a folder may be filled in several goes.
"""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.goals import GOALS
from benchmarks.peers import ROOT, environment
from benchmarks.report import Report

HEAD = """# Measured

Written by `python -m benchmarks --results`; [what is measured, and how](../../docs/reference/benchmarks.md). A value is
ours ÷ its peer's wherever there is a peer; labels that end in a unit are plain numbers. Each entry is the last run of
its benchmark, whatever it found.

![The ratios that have a goal, with their spread](ratios.svg)
"""

Entry = dict[str, Any]


def record(folder: Path, report: Report) -> None:
    """Put a benchmark's run into the folder's JSON, and write the page and the chart anew."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "results.json"
    entries: dict[str, Entry] = json.loads(kept.read_text("utf-8")) if kept.exists() else {}
    entries[report.name] = report.as_json() | {
        "rounds": {label: len(values) for label, values in report.samples.items()},
        "notes": report.notes,
        "date": datetime.now(UTC).date().isoformat(),
        "commit": _commit(),
    }
    entries = dict(sorted(entries.items()))
    kept.write_text(json.dumps(entries, indent=1, ensure_ascii=False) + "\n", "utf-8")
    (folder / "README.md").write_text(page(entries), "utf-8")
    _draw(entries, folder / "ratios.svg")


def page(entries: dict[str, Entry]) -> str:
    """All entries in Markdown."""
    return "\n".join([HEAD, *(_section(name, entry) for name, entry in entries.items())])


def _section(name: str, entry: Entry) -> str:
    machine = ", ".join(f"{what} {value}" for what, value in entry["machine"].items())
    rows = [f"## {name}\n", f"{entry['date']}, commit {entry['commit']}; {machine}\n"]
    rows += ["| label | median | least | most | rounds | goal | |", "|---|---|---|---|---|---|---|"]
    for label, median in entry["values"].items():
        least, most = entry["spread"][label]
        goal = GOALS.get(name, {}).get(label)
        told = ("", "") if goal is None else (str(goal), "met" if goal.met(median) else "**missed**")
        cells = [
            f"`{label}`",
            *(f"{n:.4g}" for n in (median, least, most)),
            str(entry["rounds"][label]),
            *told,
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join([*rows, "", *(f"- {note}" for note in entry["notes"]), ""])


def _draw(entries: dict[str, Entry], target: Path) -> None:
    """Where nothing in the folder has a goal there is nothing to draw."""
    rows = [
        {
            "label": f"{name}: {label}",
            "median": entries[name]["values"][label],
            "spread": entries[name]["spread"][label],
            "goal": goal.most if goal.least is None else goal.least,
            "told": str(goal),
            "met": goal.met(entries[name]["values"][label]),
        }
        for name, goals in GOALS.items()
        for label, goal in goals.items()
        if goal.ratio and label in entries.get(name, {}).get("values", {})
    ]
    if rows:
        command = [str(environment("chart")), str(Path(__file__).with_name("chart.py")), str(target)]
        subprocess.run(command, input=json.dumps(rows), text=True, check=True)


def _commit() -> str:
    """The commit that was measured, with a + where there was more than was committed."""
    git = ["git", "-C", str(ROOT)]
    found = subprocess.run(
        [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    if found.returncode:
        return "unknown"
    changed = subprocess.run(
        [*git, "status", "--porcelain", "--untracked-files=no"], capture_output=True, check=False
    )
    return found.stdout.strip() + ("+" if changed.stdout else "")
