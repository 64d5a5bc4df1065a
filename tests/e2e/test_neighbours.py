"""Two herds on one machine do not touch each other; two in one folder or on one port are not had."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from llama_herder import Herder, InvalidKey
from tests.e2e.books import FUNDS, closed_books
from tests.e2e.herd import DATA, Up, herd, run_command

QUESTION = "What is a chatbot?"


@pytest.fixture(scope="module")
def up() -> Iterator[Up]:
    with herd() as running:
        yield running
        running.stop()


def refused(up: Up, *options: str) -> str:
    """The one line with which another herd ends beside this one."""
    done = run_command("up", *options, folder=up.folder)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stdout
    return done.stderr


def test_two_herds_at_once(up: Up) -> None:
    with herd() as other:
        assert other.url != up.url
        with up.client() as ours, other.client() as theirs:
            job = ours.run(QUESTION, tokens=40, timeout=60)
            assert job.text
            assert theirs.account().available == FUNDS
            assert ours.account().available == FUNDS - (job.captured or 0) < FUNDS
            assert theirs.jobs().items == ()
        for herd_of, key in ((up, other.keys["demo"]), (other, up.keys["admin"])):
            with Herder(herd_of.url, api_key=key) as stranger, pytest.raises(InvalidKey):
                stranger.account()
        other.stop(signal.SIGINT)
        with up.client() as ours:
            assert ours.run(QUESTION, tokens=40, timeout=60).text == job.text
    closed_books(up, [job.id])


def test_a_second_herd_in_the_same_folder(up: Up) -> None:
    assert "a herd already runs in" in refused(up, "--data-dir", DATA, "--port", "0")
    with up.client() as herder:
        assert herder.run(QUESTION, tokens=40, timeout=60).text


def test_a_port_that_somebody_listens_on(up: Up) -> None:
    port = str(urlsplit(up.url).port)
    said = refused(up, "--data-dir", "other", "--port", port)
    assert f"127.0.0.1:{port}" in said
    assert "--port" in said
