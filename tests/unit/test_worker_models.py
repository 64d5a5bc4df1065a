"""Model files: what can be typed, what is wrong with a file in one line, and downloads that can be cut off."""

from __future__ import annotations

import hashlib
import os
import signal
import struct
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import ClassVar

import pytest

from tests.e2e.herd import alive
from worker import models
from worker.engine import ModelUnusable
from worker.gguf import BadGguf, read_header
from worker.main import EXIT_BAD_MODEL, EXIT_USAGE, read_plan, run
from worker.models import ModelSpec, check, locate, parse_spec
from worker.tuning import Wanted

HERD_TINY = Path(str(files("herder") / "models" / "herd-tiny.gguf"))


@pytest.mark.parametrize(
    ("typed", "spec"),
    [
        ("herd-tiny", ModelSpec("herd-tiny", "herd-tiny")),
        ("/models/Qwen 7B.gguf", ModelSpec("Qwen-7B", "/models/Qwen 7B.gguf")),
        ("./a.gguf", ModelSpec("a", "./a.gguf")),
        ("hf:owner/repo/sub/m-q4.gguf", ModelSpec("m-q4", "hf:owner/repo/sub/m-q4.gguf")),
        ("chat=hf:owner/repo/m.gguf", ModelSpec("chat", "hf:owner/repo/m.gguf")),
        ("mine=herd-tiny", ModelSpec("mine", "herd-tiny")),
    ],
)
def test_what_can_be_typed(typed: str, spec: ModelSpec) -> None:
    assert parse_spec(typed) == spec


@pytest.mark.parametrize("typed", ["", "=x.gguf", "a b=x.gguf", "x=", "../=x"])
def test_what_cannot_be_a_model(typed: str) -> None:
    with pytest.raises(ValueError, match=r"model|name"):
        parse_spec(typed)


def broken_files() -> dict[str, bytes]:
    """Files that are no models, each with its own trouble."""
    whole = HERD_TINY.read_bytes()
    key = b"llama.attention.layer_norm_rms_epsilon"
    at = whole.index(key) + len(key) + 4
    return {
        "empty": b"",
        "text": b"I am a text file that somebody has renamed.\n" * 100,
        "magic only": b"GGUF",
        "random after the magic": b"GGUF" + hashlib.shake_256(b"x").digest(5_000),
        "random after the version": b"GGUF" + struct.pack("<I", 3) + hashlib.shake_256(b"y").digest(5_000),
        "a version of tomorrow": b"GGUF" + struct.pack("<IQQ", 99, 0, 0),
        "no tensors": b"GGUF" + struct.pack("<IQQ", 3, 0, 0),
        "a huge count": b"GGUF" + struct.pack("<IQQ", 3, 2**60, 2**60) + bytes(100),
        "a huge string": b"GGUF" + struct.pack("<IQQQ", 3, 1, 1, 2**62) + bytes(100),
        "cut in the header": whole[:1_000],
        "cut in the tensors": whole[: len(whole) // 2],
        "one byte short": whole[:-1],
        "another architecture": whole.replace(b"llama", b"lemma"),
        # Several threads abort at once: see GGML_NO_BACKTRACE.
        "a norm that is no number": whole[:at] + b"\xff\xff\xff\x7f" + whole[at + 4 :],
        "a damaged entry": whole.replace(b"llama.block_count", b"llama.block_cnt!!"),
    }


@pytest.mark.parametrize("trouble", list(broken_files()))
def test_a_broken_file_is_one_clear_line(trouble: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(broken_files()[trouble])
    with pytest.raises(ModelUnusable) as caught:
        check(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message


def test_a_sound_file_passes() -> None:
    assert check(HERD_TINY).tensors > 0


def test_a_header_is_never_read_past_its_end(tmp_path: Path) -> None:
    whole = HERD_TINY.read_bytes()
    ends_at = read_header(HERD_TINY).ends_at
    assert ends_at <= len(whole)
    path = tmp_path / "cut.gguf"
    for size in [*range(5, 400), *range(400, ends_at, 40_001)]:
        path.write_bytes(whole[:size])
        with pytest.raises(BadGguf):
            read_header(path)


def test_a_missing_file_and_a_missing_redis_are_told_apart_by_exit_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HERDER_REDIS_URL", raising=False)
    assert run(["--model", "nowhere.gguf", "--redis-url", "redis://127.0.0.1:1"]) == EXIT_BAD_MODEL
    said = capsys.readouterr().err
    assert "nowhere.gguf" in said
    assert "no such file" in said
    assert run(["--model", "nowhere.gguf"]) == EXIT_USAGE
    assert "--redis-url" in capsys.readouterr().err
    assert run(["--slots", "0", "--redis-url", "redis://127.0.0.1:1"]) == EXIT_USAGE
    assert "slots" in capsys.readouterr().err
    text = tmp_path / "text.gguf"
    text.write_text("hello")
    assert run(["--model", str(text), "--redis-url", "redis://127.0.0.1:1"]) == EXIT_BAD_MODEL
    assert "not a GGUF file" in capsys.readouterr().err


def test_the_data_directory_is_a_flag(tmp_path: Path) -> None:
    plan = read_plan(["--redis-url", "redis://127.0.0.1:1", "--data-dir", str(tmp_path / "kept")])
    assert plan.settings.data_dir == tmp_path / "kept"


class Hub(BaseHTTPRequestHandler):
    """As much of a model hub as a download needs: HEAD with an ETag, GET with ranges."""

    content = b"GGUF" + hashlib.shake_256(b"model").digest(200_000)
    ranges: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        if not self.path.endswith("/owner/repo/resolve/main/model.gguf"):
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        asked = self.headers.get("Range", "")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if body and asked else 0
        if body:
            self.ranges.append(asked)
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hashlib.sha256(self.content).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Accept-Ranges", "bytes")
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        self.send_header("Content-Length", str(len(self.content) - start))
        self.end_headers()
        if body:
            self.wfile.write(self.content[start:])

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Not to stderr."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A hub on this machine, named by HF_ENDPOINT."""
    Hub.ranges.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("HF_ENDPOINT", url)
    yield url
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_model_is_fetched_once_from_the_hub_that_is_named(hub: str, tmp_path: Path) -> None:
    spec = parse_spec("hf:owner/repo/model.gguf")
    path = locate(spec, tmp_path)
    assert path == tmp_path / "models" / "owner" / "repo" / "model.gguf"
    assert path.read_bytes() == Hub.content
    assert locate(spec, tmp_path) == path
    assert len(Hub.ranges) == 1


def test_what_the_hub_does_not_have_is_said(hub: str, tmp_path: Path) -> None:
    with pytest.raises(ModelUnusable, match="cannot be downloaded"):
        locate(parse_spec("hf:owner/repo/other.gguf"), tmp_path)
    with pytest.raises(ModelUnusable, match="write it as"):
        locate(ModelSpec("x", "hf:owner/model.gguf"), tmp_path)


def test_a_probe_that_crashes_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    crash = tmp_path / "crash"
    crash.write_text("#!/bin/sh\nkill -SEGV $$\n")
    crash.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(crash))
    with pytest.raises(ModelUnusable, match="crashed on it \\(signal 11\\)"):
        check(HERD_TINY)


def test_a_probe_that_hangs_is_one_line_though_its_own_child_holds_its_output(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hang = tmp_path / "hang"
    hang.write_text(f"#!/bin/sh\ncd {tmp_path}\nmkfifo pipe\ncat pipe &\necho $! > pid\nwait\n")
    hang.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(hang))
    monkeypatch.setattr(models, "PROBE_S", 1.0)
    with pytest.raises(ModelUnusable, match="has not loaded it within 1 s"):
        check(HERD_TINY)
    left = int((tmp_path / "pid").read_text())
    assert alive(left), "nothing held the output open"
    os.kill(left, signal.SIGKILL)


@pytest.mark.parametrize(("threads", "said"), [(1, "lower --slots or --ctx"), (500, "or change --threads")])
def test_threads_beyond_the_cores_are_named_where_settings_make_it_crash(
    monkeypatch: pytest.MonkeyPatch, threads: int, said: str
) -> None:
    monkeypatch.setattr(models, "_loaded_apart", lambda path, wanted: (-11 if wanted.threads else 0, ""))
    monkeypatch.setattr(models, "cores", lambda: 2)
    with pytest.raises(ModelUnusable) as caught:
        check(HERD_TINY, wanted=Wanted(threads=threads))
    assert str(caught.value).endswith(said)


def test_a_llama_cpp_without_its_driver_is_one_line_that_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = "Failed to load shared library 'libllama.so': libcuda.so.1: cannot open shared object file"
    said = f"Traceback (most recent call last):\n  …\nRuntimeError: {missing}\n"
    monkeypatch.setattr(models, "_loaded_apart", lambda path, wanted: (1, said))
    assert run(["--gpu-layers", "-1", "--redis-url", "redis://127.0.0.1:1"]) == EXIT_BAD_MODEL
    heard = capsys.readouterr().err
    assert missing in heard
    assert "install the driver" in heard
    assert heard.count("\n") == 1
