"""The tree keeps its own rules: layers, owners, sizes, manners, the tour and the lifecycle.

Every check is a pure function of `tests/tidy/`; each is also run on a sample that must be flagged, so that a
check that stopped working does not pass for a clean tree.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from herder.lifecycle import OTHER_SCRIPTS, TABLE
from tests.tidy import layers, lifecycle, manners
from tests.tidy.tree import ROOT, Source, modules_of, project_files

Check = Callable[[Source], list[str]]

FILES = project_files()
PYTHON = [file for file in FILES if file.path.endswith(".py")]
PACKAGED = [file for file in PYTHON if file.path.startswith(("herder/", "worker/", "client/"))]
TESTS = [file for file in PYTHON if file.path.startswith("tests/")]
BY_PATH = {file.path: file for file in FILES}

CHECKS: list[tuple[Check, list[Source]]] = [
    (layers.layer_breaches, PACKAGED),
    (layers.foreign_libraries, PACKAGED),
    (manners.long_file, FILES),
    (manners.long_functions, PYTHON),
    (manners.missing_docstring, PYTHON),
    (manners.sleeps, TESTS),
    (manners.skips, TESTS),
    (manners.machine_paths, FILES),
    (manners.registries, FILES),
    (manners.avoided_names, FILES),
]

FLAGGED: list[tuple[Check, str, str]] = [
    (layers.layer_breaches, "herder/app.py", "def f():\n    import worker.main"),
    (layers.layer_breaches, "herder/app.py", "from llama_herder import Client"),
    (layers.layer_breaches, "worker/runner.py", "from herder import app"),
    (layers.layer_breaches, "worker/runner.py", "from herder.api.jobs import router"),
    (layers.layer_breaches, "worker/runner.py", "import herder"),
    (layers.layer_breaches, "client/llama_herder/core.py", "def f():\n    import redis.asyncio"),
    (layers.layer_breaches, "client/llama_herder/cli/main.py", "from herder.app import create_app"),
    (layers.foreign_libraries, "herder/api/jobs.py", "from redis.asyncio import Redis"),
    (layers.foreign_libraries, "herder/broker.py", "def f():\n    import arq.worker"),
    (layers.foreign_libraries, "worker/runner.py", "import llama_cpp"),
    (manners.long_file, "herder/lua/submit.lua", "-- x\n" * 301),
    (manners.long_functions, "herder/x.py", "async def f():\n" + "    pass\n" * 60),
    (manners.missing_docstring, "herder/x.py", "# a comment is no docstring\n"),
    (manners.sleeps, "tests/test_x.py", "async def test_x():\n    await asyncio.sleep(0.01)"),
    (manners.sleeps, "tests/test_x.py", "time.sleep(seconds)"),
    (manners.skips, "tests/test_x.py", "@pytest.mark.skipif(True, reason='')\ndef test_x(): ..."),
    (manners.skips, "tests/test_x.py", "def test_x():\n    pytest.importorskip('torch')"),
    (manners.skips, "tests/test_x.py", "from pytest import xfail"),
    (manners.machine_paths, "tests/test_x.py", f"SOCKET = '{'/'}tmp/redis.sock'"),
    (manners.machine_paths, "Makefile", f"\tcp {'/'}home/me/x ."),
    (manners.registries, "requirements.lock", f"--index-url https://{'py' + 'pi'}.org/simple"),
    (manners.avoided_names, "herder/job_helpers.py", ""),
    (manners.avoided_names, "tests/utils/x.py", ""),
]

PASSED: list[tuple[Check, str, str]] = [
    (layers.layer_breaches, "herder/app.py", "from herder.api import jobs"),
    (layers.layer_breaches, "worker/runner.py", "from herder import broker\nfrom herder.keys import Keys"),
    (
        layers.layer_breaches,
        "client/llama_herder/cli/main.py",
        "def f():\n    from herder.app import create_app",
    ),
    (layers.foreign_libraries, "herder/api/jobs.py", "import fastapi"),
    (layers.foreign_libraries, "tests/conftest.py", "import redis"),
    (manners.long_functions, "herder/x.py", "def f():\n" + "    pass\n" * 59),
    (manners.sleeps, "tests/test_x.py", "async def test_x():\n    await asyncio.sleep(0)"),
    (manners.skips, "tests/test_x.py", "rows.skip()"),
    (manners.machine_paths, "herder/x.py", "URL = 'https://example.org/home/a'; WORKERS = '/workers/x'"),
    (manners.avoided_names, "herder/database.py", ""),
]


@pytest.mark.parametrize(("check", "files"), CHECKS, ids=lambda value: getattr(value, "__name__", ""))
def test_the_tree_is_tidy(check: Check, files: list[Source]) -> None:
    assert files
    assert [fault for file in files for fault in check(file)] == []


@pytest.mark.parametrize(("check", "path", "text"), FLAGGED)
def test_a_bad_sample_is_flagged(check: Check, path: str, text: str) -> None:
    assert check(Source(path, text))


@pytest.mark.parametrize(("check", "path", "text"), PASSED)
def test_a_good_sample_is_not(check: Check, path: str, text: str) -> None:
    assert check(Source(path, text)) == []


def test_every_check_has_a_bad_sample() -> None:
    assert {check for check, _ in CHECKS} == {check for check, _, _ in FLAGGED}


def test_every_owner_still_imports_its_library() -> None:
    assert layers.idle_owners(PACKAGED) == []
    assert layers.idle_owners([Source("herder/courier.py", "import json")])


@pytest.mark.parametrize(
    ("folder", "foreign"),
    [
        ("herder", {"worker", "llama_herder", "tests"}),
        ("worker", {"llama_herder", "fastapi", "arq", "herder.app", "herder.api", "herder.courier"}),
        ("client/llama_herder", layers.NOT_FOR_CLIENTS),
    ],
)
def test_importing_a_layer_loads_no_other(folder: str, foreign: set[str]) -> None:
    """What `ast` cannot see: imports of imports. Every module of the layer is loaded in a fresh interpreter."""
    modules = modules_of(folder, FILES)
    assert modules
    code = (
        f"import sys, importlib\nfor name in {modules!r}: importlib.import_module(name)\nprint(*sys.modules)"
    )
    child = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(child.stdout.split())
    assert set(modules) <= loaded
    assert loaded & foreign == set()
    if folder == "worker":
        broker = {name.split(".")[1] for name in loaded if name.startswith("herder.")}
        assert broker <= layers.LEAVES


def test_the_tour_is_complete() -> None:
    assert manners.tour_faults(FILES) == []


def test_a_broken_tour_is_flagged() -> None:
    stops = "".join(f"# Tour {stop}/8: here\n" for stop in range(1, 9))
    assert manners.tour_faults([Source("herder/x.py", stops)]) == []
    assert manners.tour_faults([Source("herder/x.py", stops.replace("Tour 3/8", "Tour 4/8"))])
    assert manners.tour_faults([Source("herder/x.py", stops), Source("worker/y.py", "# Tour 8/8: again")])


def test_the_lifecycle_names_every_script() -> None:
    named = {row.script for row in TABLE} | set(OTHER_SCRIPTS)
    assert lifecycle.script_faults(FILES, named) == []


def test_a_stray_or_missing_script_is_flagged() -> None:
    files = [Source("herder/lua/submit.lua", ""), Source("herder/lua/_prelude.lua", "")]
    assert lifecycle.script_faults(files, {"submit"}) == []
    assert lifecycle.script_faults(files, {"submit", "lease"})
    assert lifecycle.script_faults(files, set())


def test_the_lifecycle_page_tells_the_table() -> None:
    assert lifecycle.page_faults(BY_PATH[lifecycle.PAGE].text, TABLE, OTHER_SCRIPTS) == []


def test_a_differing_page_is_flagged() -> None:
    cells = [
        (t.row, f"{t.source or '—'} → {t.target}", t.event, f"`{t.script}`", t.made_by, t.money)
        for t in TABLE
    ]
    lines = ["| row | … |", "|---|---|", *("| " + " | ".join(row) + " |" for row in cells)]
    assert lifecycle.page_faults("\n".join(lines), TABLE, {}) == []
    assert len(lifecycle.page_faults("\n".join(lines[:-1]), TABLE, {})) == 1
    assert len(lifecycle.page_faults("\n".join(lines), TABLE[1:], {})) == 1
    assert len(lifecycle.page_faults("\n".join(lines), TABLE, {"key": "store"})) == 1
