"""A command while nothing listens at the herd's URL: it waits as long as a restart takes, and no longer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from llama_herder import CannotConnect, Herder, _sync
from llama_herder._patience import FIRST_REFUSED_S
from llama_herder.cli import app, session
from llama_herder.cli.output import Exit


class Answer(BaseHTTPRequestHandler):
    """An empty object for whoever asks."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Standard error is the command's."""


@pytest.fixture
def closed() -> Iterator[HTTPServer]:
    """A port of our own that refuses."""
    with HTTPServer(("127.0.0.1", 0), Answer, bind_and_activate=False) as server:
        server.server_bind()
        yield server


def client_of(server: HTTPServer) -> Herder:
    return session.client(f"http://127.0.0.1:{server.server_port}", "hk_x")


def test_a_wrong_url_is_given_up_after_six_seconds(
    closed: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(_sync, "_sleep", slept.append)
    with client_of(closed) as herder, pytest.raises(CannotConnect, match="connection refused"):
        herder.info()
    assert sum(slept) == pytest.approx(FIRST_REFUSED_S)
    assert len(slept) < 10


def test_a_restart_is_sat_out_and_told_once(
    closed: HTTPServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answering = threading.Thread(target=closed.handle_request)
    slept: list[float] = []

    def lets_pass(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == session.TRIES:
            closed.server_activate()
            answering.start()

    monkeypatch.setattr(_sync, "_sleep", lets_pass)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    with client_of(closed) as herder:
        herder.info()
    answering.join()
    assert len(slept) == session.TRIES
    assert capsys.readouterr().err == f"waiting for http://127.0.0.1:{closed.server_port} …\n"


@pytest.mark.parametrize(
    "command", [["run", "hi", "--tokens", "4"], ["module", "run", "fastchat:v0.0.1", "{}"]]
)
def test_no_try_is_made_after_the_timeout(
    closed: HTTPServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
) -> None:
    slept: list[float] = []
    herder = client_of(closed)
    herder._patience = replace(herder._patience, clock=lambda: sum(slept))
    monkeypatch.setattr(_sync, "_sleep", slept.append)
    monkeypatch.setattr(session, "client", lambda url, key: herder)
    assert app.execute([*command, "--timeout", "1.5"]) == Exit.UNAVAILABLE
    assert sum(slept) == 1.5
    assert capsys.readouterr().err.endswith("; nothing was sent, and nothing is charged\n")
