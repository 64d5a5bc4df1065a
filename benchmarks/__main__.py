"""`python -m benchmarks [NAME …] [--json]`: run one benchmark, or all of them; a table, or JSON as the last line."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
from pathlib import Path

from benchmarks.report import Report
from benchmarks.results import record

# Modules with `run(report, rounds)`; each is imported when it is run, since some need what others do not.
ALL = (
    "throughput",
    "shared_prefix",
    "stall",
    "sampling",
    "overhead",
    "depth",
    "leasing",
    "bids",
    "fairness",
    "streams",
    "batch10k",
    "webhooks",
)


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(ALL))
    parser.add_argument(
        "--json", action="store_true", help="one JSON object for each benchmark, the last lines"
    )
    parser.add_argument(
        "--results", type=Path, metavar="FOLDER", help="keep them there too: JSON, a page and a chart"
    )
    parser.add_argument("--rounds", type=int, default=3, help="A/B rounds (at least 3)")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in ALL]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are: {', '.join(ALL)}")
    if arguments.rounds < 3:
        parser.error("fewer than 3 rounds say nothing on a noisy machine")
    for name in arguments.names or ALL:
        report = Report(name)
        asyncio.run(importlib.import_module(f"benchmarks.{name}").run(report, arguments.rounds))
        print(json.dumps(report.as_json()) if arguments.json else report.as_table(), flush=True)
        if arguments.results:
            record(arguments.results, report)


main()
