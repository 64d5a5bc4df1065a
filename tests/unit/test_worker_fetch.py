"""A download that fails: its end in one line that names the reason, and nothing besides but that it was begun."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from worker.main import EXIT_BAD_MODEL

SOURCE = "hf:owner/repo/model.gguf"


class Hub(BaseHTTPRequestHandler):
    """A hub that is busy at first, so that it is asked again after a second, and then gives nothing."""

    asked: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self.asked.append(self.path)
        self.send_response(503 if len(self.asked) <= 2 else 501)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Not to stderr."""


@pytest.fixture
def hub() -> Iterator[str]:
    Hub.asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("sandbox", ["false", "true"])
def test_a_download_that_fails_is_said_once(hub: str, tmp_path: Path, sandbox: str) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HERDER_"))}
    env |= {"HF_ENDPOINT": hub, "HERDER_SANDBOX": sandbox}
    command = [sys.executable, "-m", "worker.main", "--redis-url", "redis://127.0.0.1:1", "--model", SOURCE]
    done = subprocess.run(
        [*command, "--data-dir", str(tmp_path)],
        capture_output=True, text=True, timeout=60, check=False, env=env,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (EXIT_BAD_MODEL, "")
    assert len(Hub.asked) == 3  # the control: a try that its library would tell of
    assert done.stderr.count("\n") == 2, done.stderr
    begun, ended = done.stderr.splitlines()
    assert "fetching the model" in begun
    assert SOURCE in begun
    assert ended.startswith(f"herder-worker: {SOURCE}: cannot be downloaded from {hub} just now (")
    assert "501" in ended
    assert ended.endswith("); try again later, or name a .gguf file that is here")
    assert done.stderr.count("again") == 1
