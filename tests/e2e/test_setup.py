"""What a herd will not start with, said in one line; what it warns of; and the demo."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import pytest

from herder.embedded import server_command, socket_path, socket_url
from llama_herder import Herder
from tests.e2e.herd import DATA, herd, run_command, short_folder, until

REFUSED_S = 60.0


@contextmanager
def own_redis(folder: Path, *options: str) -> Iterator[str]:
    """A redis-server that somebody else runs."""
    data = folder / "r"
    data.mkdir()
    process = subprocess.Popen([*server_command(data), *options], stdout=subprocess.DEVNULL)
    try:
        until(lambda: socket_path(data).exists(), "redis-server listens")
        yield socket_url(data)
    finally:
        process.terminate()
        process.wait(20)


def test_a_redis_that_may_evict_is_refused() -> None:
    with short_folder() as folder, own_redis(folder, "--maxmemory-policy", "allkeys-lru") as url:
        done = run_command("up", "--port", "0", "--redis-url", url, folder=folder)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "allkeys-lru" in done.stderr
    assert "noeviction" in done.stderr


def test_a_redis_that_is_not_there_is_refused() -> None:
    with short_folder() as folder:
        done = run_command("up", "--port", "0", "--redis-url", "redis://127.0.0.1:9/0", folder=folder)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "cannot be reached" in done.stderr


def test_a_redis_without_a_log_is_warned_of_and_outlives_the_herd() -> None:
    with short_folder() as folder, own_redis(folder, "--appendonly", "no") as url:
        with herd(folder=folder, redis_url=url) as up:
            assert up.line(r"herd +│ WARNING: APPENDONLY IS OFF")
            assert up.keys == {}  # an external Redis gets no demo account
            key = run_command(
                "admin-key", "--data-dir", DATA, folder=folder, environment=up.settings
            ).stdout.strip()
            lost = run_command("admin-key", "--redis-url", url, folder=folder)
            assert (lost.returncode, lost.stdout, lost.stderr.count("\n")) == (2, "", 1)
            assert "key secret" in lost.stderr
            with Herder(up.url, api_key=key) as admin:
                admin.admin.create("ann", credits=100)
                ann = admin.admin.create_key("ann").key
            with Herder(up.url, api_key=ann) as herder:
                assert herder.run("What is a chatbot?", tokens=40, timeout=60).text
            up.stop(signal.SIGHUP)  # as when its terminal is closed
        audited = run_command("audit", "--redis-url", url, folder=folder)
        assert (audited.returncode, "clean" in audited.stdout) == (0, True)


@pytest.mark.parametrize("fault", ["missing", "cut short", "not a model"])
def test_a_bad_model_ends_the_herd_with_its_name(fault: str) -> None:
    with short_folder() as folder:
        model = folder / "bad.gguf"
        if fault == "cut short":
            whole = Path(str(files("herder") / "models" / "herd-tiny.gguf")).read_bytes()
            model.write_bytes(whole[: len(whole) // 2])
        elif fault == "not a model":
            model.write_bytes(b"GIF89a" * 100)
        began = time.monotonic()
        done = run_command("up", "--port", "0", "--model", str(model), folder=folder)
        assert time.monotonic() - began < REFUSED_S
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert str(model) in done.stderr
    assert "is started again" not in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_a_first_start_that_fails_makes_no_keys_and_the_next_one_shows_them() -> None:
    with short_folder() as folder:
        failed = run_command("up", "--port", "0", "--model", "nope.gguf", folder=folder)
        assert (failed.returncode, "admin key" in failed.stdout) == (2, False)
        with herd(folder=folder) as up, up.client() as client:
            assert client.account().available == 100_000


def test_a_data_directory_whose_path_is_too_long() -> None:
    with short_folder() as folder:
        done = run_command("up", "--port", "0", "--data-dir", "x" * 120, folder=folder)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "too long for a unix socket" in done.stderr


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--data-dir", "a-file"], "a-file"),
        (["--data-dir", "a-file/below"], "below"),
        (["--redis-url", "foo"], "HERDER_REDIS_URL"),
        (["--model", "a=x.gguf", "--model", "a=y.gguf"], "two models are called a"),
        (["--template", "other=chatml"], "no model here is called other; there are: herd-tiny"),
    ],
)
def test_what_cannot_work_is_one_line(options: list[str], word: str) -> None:
    with short_folder() as folder:
        (folder / "a-file").touch()
        done = run_command("up", "--port", "0", *options, folder=folder)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert word in done.stderr


@pytest.mark.parametrize("given", ["in the environment", "in its file"])
def test_a_key_secret_that_is_none_is_one_line(given: str) -> None:
    with short_folder() as folder:
        environment = {"HERDER_KEY_SECRET": "short"} if given == "in the environment" else {}
        if not environment:
            (folder / DATA).mkdir()
            (folder / DATA / "key-secret").write_text("short", "ascii")
        done = run_command("up", "--port", "0", "--data-dir", DATA, folder=folder, environment=environment)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert (
        "HERDER_KEY_SECRET is shorter than 16 bytes" if environment else "key-secret holds no key"
    ) in done.stderr
    assert "Traceback" not in done.stdout


def test_the_demo() -> None:
    with short_folder() as folder:
        done = run_command("demo", folder=folder, environment={"TMPDIR": str(folder)})
        assert (done.returncode, done.stderr) == (0, "")
        with contextlib.suppress(StopIteration):
            raise AssertionError(f"the demo left {next(folder.glob('herd-demo-*'))}")
    for words in ("chatbot is", "credits captured", "toy model"):
        assert words in done.stdout
    numbers = {name: int(re.findall(rf"^{name} +(\d+) credits", done.stdout, re.MULTILINE)[0])
               for name in ("fee", "refund", "balance")}  # fmt: skip
    held = int(re.findall(r": (\d+) credits held", done.stdout)[0])
    assert numbers["fee"] + numbers["refund"] == held
    assert numbers["balance"] == 100_000 - numbers["fee"]
