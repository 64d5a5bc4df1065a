"""`python -m tests.simulation --seeds 200`: many seeds on all cores, each process with a redis-server of its own.

Prints what happened how often. Exits 1 when a seed found something, or when over CONTROL_SEEDS or more seeds some kind
of event never happened: a simulation that does nothing finds nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise

from tests.simulation.mutants import MUTANTS, Mutant, broken
from tests.simulation.seeds import EXPECTED, WORDS, Finding, play, seeds_of
from tests.simulation.server import IN_MEMORY, private_redis

CONTROL_SEEDS = 50
MUTANT_SEEDS = 40
PORTIONS = 8  # of the seeds a process: so many times the processes ask for more work


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many seeds")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--steps", type=int, default=1_000, help="steps of each seed")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--mutant", choices=[m.name for m in MUTANTS], help="break the scripts on purpose")
    parser.add_argument(
        "--mutants", action="store_true", help="try every mutant; report which seed caught it"
    )
    given = parser.parse_args()
    if given.mutants:
        return hunt(given.first, given.steps)
    mutant = next((m for m in MUTANTS if m.name == given.mutant), None)
    return run(range(given.first, given.first + given.seeds), given.steps, given.processes, mutant)


def run(seeds: range, steps: int, processes: int, mutant: Mutant | None) -> int:
    """Play all seeds; the first finding ends it."""
    started = time.monotonic()
    counts: Counter[str] = Counter()
    done = 0
    for finding in _findings(seeds, steps, processes, mutant):
        counts += finding.counts
        if finding.problem is not None:
            print(_told(finding, steps, mutant))
            return 1
        done += 1
        if done % 20 == 0:
            print(f"{done} of {len(seeds)} seeds, {time.monotonic() - started:.0f} s", flush=True)
    print(_summary(done, steps, counts, time.monotonic() - started))
    missing = [event for event in EXPECTED if not counts[event]]
    if missing and done >= CONTROL_SEEDS:
        print(f"never happened, so this run proves nothing about it: {', '.join(missing)}")
        return 1
    return 0


def _findings(seeds: range, steps: int, processes: int, mutant: Mutant | None) -> Iterator[Finding]:
    """The findings of all seeds, in order."""
    share = max(1, len(seeds) // (processes * PORTIONS))
    cuts = [*range(0, len(seeds), share), len(seeds)]
    pool = ProcessPoolExecutor(processes)
    try:
        portions = [pool.submit(_portion, seeds[a:b], steps, mutant) for a, b in pairwise(cuts)]
        for portion in portions:
            yield from portion.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _portion(seeds: Sequence[int], steps: int, mutant: Mutant | None) -> list[Finding]:
    """Some seeds one after another, up to the first that finds something."""
    findings: list[Finding] = []
    with private_redis(*IN_MEMORY) as url, broken(mutant):
        for seed in seeds:
            findings.append(asyncio.run(play(url, seed, steps)))
            if findings[-1].problem is not None:
                break
    return findings


def hunt(first: int, steps: int) -> int:
    """Which seed and step catches each mutant; 1 if one gets away."""
    escaped = 0
    with private_redis(*IN_MEMORY) as url:
        for mutant in MUTANTS:
            finding = caught(url, mutant, seeds_of(mutant.mood, first, MUTANT_SEEDS), steps)
            if finding is None:
                escaped += 1
                print(f"{mutant.name:30} NOT CAUGHT by {MUTANT_SEEDS} seeds")
            else:
                print(f"{mutant.name:30} seed {finding.seed} step {finding.steps}: {finding.problem}")
    return 1 if escaped else 0


def caught(url: str, mutant: Mutant, seeds: Sequence[int], steps: int) -> Finding | None:
    """The first finding on a broken herd, None where it got away."""
    with broken(mutant):
        for seed in seeds:
            finding = asyncio.run(play(url, seed, steps))
            if finding.problem is not None:
                return finding
    return None


def _told(finding: Finding, steps: int, mutant: Mutant | None) -> str:
    more = f" --mutant {mutant.name}" if mutant else ""
    return "\n".join(
        [
            f"seed {finding.seed}, step {finding.steps}: {finding.problem}",
            "the last operations:",
            *finding.log,
            f"again: .venv/bin/python -m tests.simulation --first {finding.seed} --seeds 1 --steps {steps}{more}",
        ]
    )


def _summary(seeds: int, steps: int, counts: Counter[str], seconds: float) -> str:
    groups: dict[str, list[str]] = {}
    for what, times in sorted(counts.items()):
        group, _, word = what.partition(" ")
        known = group in ("row", "operation", *WORDS)
        groups.setdefault(group if known else "events", []).append(f"{word if known else what} {times}")
    lines = [f"{group:10} {', '.join(words)}" for group, words in groups.items()]
    lines.append(
        f"{seeds} seeds of {steps} steps, {seeds * steps} checked, in {seconds:.0f} s: nothing found"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
