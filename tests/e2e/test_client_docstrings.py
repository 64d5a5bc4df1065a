"""Every example in the docstrings of the client, run against a herd with the tiny model as it stands there.

What it prints has to be what stands below it; `await` at the top level is allowed, as in Python's asyncio prompt.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import doctest
import importlib
import inspect
import io
import pkgutil
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import llama_herder
from llama_herder import AsyncHerder, Herder
from tests.e2e.herd import DEMO, Up, herd

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
FEWEST = 25


def documented() -> list[doctest.DocTest]:
    """Every docstring with an example, of every module but those of the command line."""
    modules = [llama_herder] + [
        importlib.import_module(f"llama_herder.{found.name}")
        for found in pkgutil.iter_modules(llama_herder.__path__)
        if found.name != "cli"
    ]
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = {test.name: test for module in modules for test in finder.find(module) if test.examples}
    return [found[name] for name in sorted(found)]


@pytest.fixture(scope="module")
def up() -> Iterator[Up]:
    with herd(rate_limit_per_minute=1_000_000) as running:
        with running.client() as herder:
            herder.run("What is a chatbot?", tokens=40)
        yield running
        running.stop()


def ran(source: str, names: dict[str, Any], loop: asyncio.AbstractEventLoop) -> str:
    """What one example prints."""
    code = compile(source, "<docstring>", "single", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    printed = io.StringIO()

    async def evaluated() -> None:
        outcome = eval(code, names)
        if inspect.iscoroutine(outcome):
            await outcome

    with contextlib.redirect_stdout(printed):
        loop.run_until_complete(evaluated())
    return printed.getvalue()


def test_there_are_examples() -> None:
    named = {test.name for test in documented()}
    assert len(named) >= FEWEST
    assert {"llama_herder", "llama_herder._default.run", "llama_herder._sync_chat.Chat"} <= named


@pytest.mark.parametrize("test", documented(), ids=lambda test: test.name)
def test_it_is_as_it_says(test: doctest.DocTest, up: Up, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERDER_URL", up.url)
    monkeypatch.setenv("HERDER_API_KEY", up.keys["admin" if "dmin" in test.name else DEMO])
    monkeypatch.setattr(sys, "displayhook", sys.__displayhook__)
    loop = asyncio.new_event_loop()
    try:
        with Herder() as ordinary:
            other = AsyncHerder()
            herder = other if "._async" in test.name else ordinary
            names = {**vars(llama_herder), "llama_herder": llama_herder, "herder": herder}
            try:
                for example in test.examples:
                    got = ran(example.source, names, loop)
                    said = f"{test.name}: {example.source}gives {got!r}, not {example.want!r}"
                    assert doctest.OutputChecker().check_output(example.want, got, FLAGS), said
            finally:
                loop.run_until_complete(other.close())
    finally:
        llama_herder.set_default_herder(None)
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
