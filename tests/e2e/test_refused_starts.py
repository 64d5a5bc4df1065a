"""Starts that cannot be: which of them are for good, and which are worth another try; each said in a line."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import httpx
import pytest
import redis

from herder.embedded import server_command, socket_path, socket_url
from herder.keys import Keys
from herder.settings import Settings
from tests.e2e.herd import DATA, Up, herd, run_command, short_folder, until

SECRET = "a secret for the tests only"
AGAIN_S = 60.0


class Redis:
    """A redis-server that somebody else runs, and which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "r"
        self.data.mkdir()
        self.url = socket_url(self.data)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it listens."""
        socket_path(self.data).unlink(missing_ok=True)
        self._process = subprocess.Popen(server_command(self.data), stdout=subprocess.DEVNULL)
        until(lambda: socket_path(self.data).exists(), "redis-server listens")

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)
            self._process = None


@contextlib.contextmanager
def own_redis(folder: Path) -> Iterator[Redis]:
    """One that runs."""
    server = Redis(folder)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def one_line(done: CompletedProcess[str], code: int) -> str:
    """What a command said on its way out: one line, no traceback, and this exit code."""
    assert "Traceback" not in done.stdout + done.stderr
    assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr
    return done.stderr


def test_an_api_that_starts_while_redis_is_away_is_started_again() -> None:
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(short_folder())
        server = stack.enter_context(own_redis(folder))
        up = stack.enter_context(
            herd("--workers", "0", folder=folder, redis_url=server.url, key_secret=SECRET)
        )
        server.kill()
        up.kill("api")
        up.line(r"^api +│ ended with exit code 1$")
        up.line(r"^api +│ .*the API did not start.*Redis cannot be reached")
        server.start()
        until(lambda: _answers(up), "the API answers again", AGAIN_S)
        assert "Traceback" not in up.told()
        assert "has ended; stopping the herd" not in up.told()
        up.stop()


def _answers(up: Up) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"{up.url}/healthz").status_code == 200
    return False


def test_serve_alone_ends_with_1_where_another_start_may_do_better() -> None:
    with short_folder() as folder:
        done = run_command("serve", "--port", "0", "--redis-url", f"unix://{folder}/nobody", folder=folder)
    assert "Redis cannot be reached" in one_line(done, 1)


@pytest.mark.parametrize("command", ["up", "serve"])
def test_a_redis_that_another_version_has_written_is_refused_for_good(command: str) -> None:
    with short_folder() as folder, own_redis(folder) as server:
        with redis.Redis.from_url(server.url) as client:
            client.set(Keys(Settings.model_fields["redis_prefix"].default)("schema"), "99")
        done = run_command(command, "--port", "0", "--redis-url", server.url, folder=folder)
    assert "schema version 99" in one_line(done, 2)


def test_a_herd_whose_key_secret_is_lost_does_not_start() -> None:
    with short_folder() as folder:
        data, kept = folder / DATA, folder / "kept"
        with herd("--workers", "0", folder=folder) as up:
            keys = up.keys
            up.stop()
        (data / "key-secret").rename(kept)
        done = run_command("up", "--port", "0", "--data-dir", DATA, folder=folder)
        said = one_line(done, 2)
        assert "the key secret of this herd is not in" in said
        assert "put key-secret back" in said
        assert not (data / "key-secret").exists()
        kept.rename(data / "key-secret")
        up = Up(folder, "--workers", "0")
        up.keys = keys
        try:
            with up.start().client() as client:
                assert client.account().available == 100_000
            up.stop()
        finally:
            up.end()


def test_serve_alone_does_not_start_without_the_secret_of_its_herd() -> None:
    with short_folder() as folder, own_redis(folder) as server:
        made = run_command("admin-key", "--redis-url", server.url, "--data-dir", DATA, folder=folder)
        assert made.returncode == 0, made.stderr
        other = ("--redis-url", server.url, "--data-dir", "other")
        done = run_command("serve", "--port", "0", *other, folder=folder)
        assert "put key-secret back" in one_line(done, 2)
        assert not (folder / "other").exists()


def test_a_second_herd_in_a_data_directory_is_told_so_though_the_port_is_taken_too() -> None:
    with short_folder() as folder, herd("--workers", "0", folder=folder) as up:
        port = up.url.rpartition(":")[2]
        second = run_command("up", "--port", port, "--data-dir", DATA, folder=folder)
        assert "a herd already runs in" in one_line(second, 2)
        elsewhere = run_command("up", "--port", port, "--data-dir", "e", folder=folder)
        assert "choose another with --port" in one_line(elsewhere, 2)
        loose = [path.name for path in (folder / DATA).iterdir() if path.stat().st_mode & 0o077]
        assert loose == []
        up.stop(signal.SIGINT)
