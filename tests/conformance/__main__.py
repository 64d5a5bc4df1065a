"""`python -m tests.conformance`: every client against a herd with the built-in model; writes what passes as a table.

Needs a package index for the clients, once; they are kept in the cache. Nothing else leaves this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from llama_herder import Herder
from tests.conformance.environments import ENVIRONMENTS, HERE, Environment, python_of, version_in
from tests.conformance.table import PAGE, Row, written
from tests.e2e.herd import Up

CLIENT_S = 600.0
CREDITS = 100_000_000


@dataclass(frozen=True)
class Herds:
    """One that answers, with a key of an account with credits and one of an account without; one that is too busy."""

    url: str
    key: str
    poor_key: str
    busy_url: str
    busy_key: str


def main() -> int:
    """The command line; 1 where something fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("names", nargs="*", help="only clients whose name begins like this; writes no table")
    given = parser.parse_args()
    chosen = [e for e in ENVIRONMENTS if not given.names or e.name.startswith(tuple(given.names))]
    with ExitStack() as stack:
        herds = _herds(stack)
        rows = [_tried(environment, herds) for environment in chosen]
    failed = [(row.client, name, result) for row in rows for name, result in row.results.items() if result]
    for client, name, why in failed:
        print(f"{client}: {name} fails: {why}")
    if not given.names:
        PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), rows), encoding="utf-8")
    passed = sum(len(row.results) for row in rows) - len(failed)
    print(f"{passed} checks of {len(rows)} clients pass, {len(failed)} fail")
    return 1 if failed else 0


def _herds(stack: ExitStack) -> Herds:
    """Two herds in folders of their own."""
    folders = [Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="conf"))) for _ in range(2)]
    herd = Up(folders[0], demo_credits=CREDITS)
    busy = Up(folders[1], rate_limit_per_minute=1, workers=0)
    for each in (herd, busy):
        stack.callback(each.end)
        each.start()
    with Herder(herd.url, herd.keys["admin"]) as admin:
        admin.admin.create("poor")
        poor = admin.admin.create_key("poor").key
    return Herds(herd.url, herd.keys["demo"], poor, busy.url, busy.keys["demo"])


def _tried(environment: Environment, herds: Herds) -> Row:
    """What one client can do."""
    print(f"{environment.name}: …", flush=True)
    python = python_of(environment)
    package = environment.requirements[0]
    for cut in "=><":
        package = package.partition(cut)[0]
    version = version_in(python, package)
    ended = subprocess.run(
        [python, HERE / "clients" / environment.script],
        env=os.environ
        | {
            "CONFORMANCE_URL": herds.url,
            "CONFORMANCE_BUSY_URL": herds.busy_url,
            "CONFORMANCE_BUSY_KEY": herds.busy_key,
            "CONFORMANCE_KEY": herds.key,
            "CONFORMANCE_POOR_KEY": herds.poor_key,
            "CONFORMANCE_VERSION": version,
        },
        capture_output=True,  # some clients say everything they do
        text=True,
        timeout=CLIENT_S,
        check=False,
    )
    if ended.returncode:
        return Row(
            environment.name, version, {"completion": f"it does not run: {ended.stderr.strip()[-400:]}"}
        )
    results = {}
    for line in ended.stdout.splitlines():
        if line.startswith('{"check"'):
            told = json.loads(line)
            results[told["check"]] = told["detail"] if told["outcome"] == "fails" else ""
            print(f"  {told['outcome']:6} {told['check']}  {told['detail']}", flush=True)
    return Row(environment.name, version, results)


if __name__ == "__main__":
    sys.exit(main())
