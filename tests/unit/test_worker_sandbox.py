"""The sandbox, in processes of their own, since nobody leaves it: what goes on inside, what does not.

Where the kernel cannot do it, these tests hold it to an error instead: there is no sandbox that is none.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from worker import sandbox
from worker.engine import ModelUnusable
from worker.models import ModelSpec, locate_apart
from worker.sandbox import ABI_LEAST, landlock_abi, tcp_port

LIMIT_S = 60.0

SCRIPT = """
import os, signal, socket, subprocess, sys, threading
from pathlib import Path
from worker import sandbox

ours, other, folder, parent = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])

def attempt(name, action):
    try:
        action()
        print(name, "yes")
    except PermissionError:
        print(name, "no")

def reach(port):
    socket.create_connection(("127.0.0.1", port), 5).close()

def listen():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))

def child():
    code = f"open({str(folder / 'by-child')!r}, 'w')"
    done = subprocess.run([sys.executable, "-c", code], stdin=subprocess.DEVNULL, capture_output=True)
    if done.returncode:
        raise PermissionError

def by_thread():
    failed = []
    def write():
        try:
            (folder / "by-thread").write_text("x")
        except PermissionError as error:
            failed.append(error)
    thread = threading.Thread(target=write)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]

def everything():
    attempt("ours", lambda: reach(ours))
    attempt("other", lambda: reach(other))
    attempt("listen", listen)
    attempt("read", (folder / "model").read_bytes)
    attempt("write", lambda: (folder / "new").write_text("x"))
    attempt("truncate", lambda: os.truncate(folder / "model", 1))
    attempt("remove", (folder / "spare").unlink)
    attempt("thread", by_thread)
    attempt("child", child)
    attempt("signal", lambda: os.kill(parent, 0))
    attempt("null", lambda: Path(os.devnull).write_text("x"))

if sys.argv[5] == "inside":
    try:
        sandbox.enter(ours)
    except sandbox.SandboxError as error:
        print("refused", "sandbox" in str(error))
        sys.exit()
everything()
"""

OUTSIDE = {
    "ours": "yes", "other": "yes", "listen": "yes", "read": "yes", "write": "yes", "truncate": "yes",
    "remove": "yes", "thread": "yes", "child": "yes", "signal": "yes", "null": "yes",
}  # fmt: skip
INSIDE = OUTSIDE | dict.fromkeys(("other", "listen", "write", "truncate", "remove", "thread", "child"), "no")
SIGNALS = {"signal": "no" if landlock_abi() >= sandbox.ABI_SCOPES else "yes"}
REFUSED = {"refused": "True"}


@pytest.fixture
def ports() -> Iterator[tuple[int, int]]:
    """Two ports of this machine that somebody listens on."""
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as ours,
        closing(socket.create_server(("127.0.0.1", 0))) as o,
    ):
        yield ours.getsockname()[1], o.getsockname()[1]


def attempts(where: str, ports: tuple[int, int], folder: Path) -> dict[str, str]:
    """What went well, there."""
    folder.mkdir()
    (folder / "model").write_bytes(b"GGUF")
    (folder / "spare").touch()
    sleeper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    arguments = [str(ports[0]), str(ports[1]), str(folder), str(sleeper.pid), where]
    try:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, timeout=LIMIT_S, check=True
        )  # fmt: skip
    finally:
        sleeper.communicate(b"\n", LIMIT_S)
    return dict(line.split() for line in done.stdout.splitlines())


def test_what_goes_on_inside(ports: tuple[int, int], tmp_path: Path) -> None:
    assert attempts("outside", ports, tmp_path / "a") == OUTSIDE
    expected = INSIDE | SIGNALS if landlock_abi() >= ABI_LEAST else REFUSED
    assert attempts("inside", ports, tmp_path / "b") == expected
    assert (tmp_path / "b" / "model").read_bytes() == b"GGUF"


@pytest.mark.parametrize(("abi", "why"), [(0, "no Landlock"), (3, "Landlock version 3")])
def test_a_system_that_cannot_do_it_says_so(monkeypatch: pytest.MonkeyPatch, abi: int, why: str) -> None:
    monkeypatch.setattr(sandbox, "landlock_abi", lambda: abi)
    with pytest.raises(sandbox.SandboxError, match=rf"Linux 6\.7.*{why}"):
        sandbox.enter(6379)


def test_a_thread_that_would_stay_outside_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "landlock_abi", lambda: ABI_LEAST)
    monkeypatch.setattr(Path, "iterdir", lambda _: iter([Path("1"), Path("2")]))
    with pytest.raises(sandbox.SandboxError, match="2 threads"):
        sandbox.enter(6379)


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("redis://h", 6379),
        ("redis://u:p@h:7000/0", 7000),
        ("rediss://[::1]:7001", 7001),
        ("unix:///a/redis.sock", None),
    ],
)
def test_the_port_of_redis(url: str, port: int | None) -> None:
    assert tcp_port(url) == port


def test_an_address_that_is_none_is_said() -> None:
    with pytest.raises(sandbox.SandboxError, match="HERDER_REDIS_URL"):
        tcp_port("redis://h:port")


def test_a_model_is_found_before_the_doors_close(tmp_path: Path) -> None:
    assert locate_apart(ModelSpec("m", "herd-tiny"), tmp_path).name == "herd-tiny.gguf"
    with pytest.raises(ModelUnusable, match="write it as"):
        locate_apart(ModelSpec("m", "hf:owner/model.gguf"), tmp_path)
