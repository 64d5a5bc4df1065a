"""What a benchmark's run leaves in a folder: its own entry is replaced, the others stay, and what is missed says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import results
from benchmarks.goals import GOALS, Goal
from benchmarks.report import Report


def _report(name: str, **samples: list[float]) -> Report:
    report = Report(name)
    for label, values in samples.items():
        for value in values:
            report.add(label.replace("_at_", "@"), value)
    report.note("as told")
    return report


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many entries each chart was drawn of; what draws has an environment of its own, which tests do not make."""
    found: list[int] = []
    monkeypatch.setattr(results, "_draw", lambda entries, target: found.append(len(entries)))
    return found


def test_a_run_replaces_its_own_entry_and_says_what_is_missed(tmp_path: Path, drawn: list[int]) -> None:
    results.record(tmp_path, _report("stall", worst_gap=[0.9, 0.6, 0.7], wall=[1.0, 1.05, 1.2]))
    results.record(tmp_path, _report("depth", lease_p99=[1.5], lease_p99_ms=[0.31]))
    results.record(tmp_path, _report("depth", lease_p99=[1.25], lease_p99_ms=[0.32]))
    assert drawn == [1, 2, 2]
    kept = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert (list(kept), kept["depth"]["values"]["lease_p99"]) == (["depth", "stall"], 1.25)
    page = (tmp_path / "README.md").read_text("utf-8")
    assert page.index("## depth") < page.index("## stall")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert rows == [
        "| `lease_p99` | 1.25 | 1.25 | 1.25 | 1 | ≤ 1.3 | met |",
        "| `lease_p99_ms` | 0.32 | 0.32 | 0.32 | 1 |  |  |",
        "| `worst_gap` | 0.7 | 0.6 | 0.9 | 3 | ≤ 0.5 | **missed** |",
        "| `wall` | 1.05 | 1 | 1.2 | 3 | ≤ 1.1 | met |",
    ]
    assert page.count("- as told\n") == 2


def test_a_bound_is_met_at_the_bound_itself() -> None:
    assert [Goal(least=2.0).met(value) for value in (1.99, 2.0, 3.0)] == [False, True, True]
    assert [Goal(most=0).met(value) for value in (0, 1)] == [True, False]
    assert {str(goal)[0] for goals in GOALS.values() for goal in goals.values()} == {"≥", "≤"}
