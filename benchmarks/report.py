"""What a benchmark found: samples by label, their median and spread, and the machine."""

from __future__ import annotations

import os
import platform
import statistics
from typing import Any


class Report:
    """Samples of one benchmark. A ratio is ours ÷ peer's of the same round."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.samples: dict[str, list[float]] = {}
        self.notes: list[str] = []

    def add(self, label: str, value: float) -> None:
        """One sample of one label."""
        self.samples.setdefault(label, []).append(value)

    def note(self, text: str) -> None:
        """A line under the table: what was run, with which settings."""
        self.notes.append(text)

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        return {
            "benchmark": self.name,
            "values": {label: statistics.median(values) for label, values in self.samples.items()},
            "spread": {label: [min(values), max(values)] for label, values in self.samples.items()},
            "machine": machine(),
        }

    def as_table(self) -> str:
        """The table that a person reads."""
        rows = [f"{self.name}  ({', '.join(f'{k} {v}' for k, v in machine().items())})"]
        rows.append(f"  {'label':<24}{'median':>12}{'min':>12}{'max':>12}   rounds")
        for label, values in self.samples.items():
            numbers = (statistics.median(values), min(values), max(values))
            rows.append(f"  {label:<24}" + "".join(f"{n:>12.3f}" for n in numbers) + f"   {len(values)}")
        return "\n".join([*rows, *(f"  {note}" for note in self.notes)]) + "\n"


def machine() -> dict[str, Any]:
    """Enough to know two runs of one machine from those of two."""
    return {
        "cores": os.cpu_count(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
    }


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
