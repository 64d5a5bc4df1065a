"""`herder up` in a process of its own, started, watched by its lines, used, killed in parts, stopped.

Knows the herd by what it prints, by HTTP and by its Redis; kills no process but those that this herd has started.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from herder.broker import Broker, connect
from herder.embedded import socket_url
from herder.settings import Settings
from llama_herder import Herder

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]
DATA = "d"  # short: a unix socket lies in it
DEMO = "demo"
READY_S = 90.0
WAIT_S = 60.0
STOP_S = 60.0
TICK_S = 0.05

_RUNS_AS = re.compile(r"^(\S+) +│ runs as process (\d+)$")
_KEY = re.compile(r"│ +(admin|demo) key +(hk_\w+)")


def until(condition: Callable[[], T], what: str, limit_s: float = WAIT_S) -> T:
    """Look until the condition is true; returns what it returned."""
    deadline = time.monotonic() + limit_s
    tick = threading.Event()
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {limit_s:.0f} s"
        tick.wait(TICK_S)
    return found


class Up:
    """One herd in a folder. `start` may be called again after `stop`: the data directory stays."""

    def __init__(self, folder: Path, *options: str, **settings: object) -> None:
        self.folder = folder
        self.options = options
        self.settings = {f"HERDER_{name.upper()}": str(value) for name, value in settings.items()}
        self.lines: list[str] = []
        self.keys: dict[str, str] = {}
        self.url = ""
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    # --- its life ----------------------------------------------------------------------------------------

    def launch(self) -> None:
        """Start it, without waiting for anything."""
        self.lines = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "llama_herder.cli.main", "up", "--data-dir", DATA, "--port", "0", *self.options],
            cwd=self.folder, env=clean_environment() | self.settings, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8", errors="replace",
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()

    def start(self) -> Up:
        """Start it and wait until it is ready."""
        self.launch()
        line = self.line(r"│ ready: \S+", limit_s=READY_S)
        self.url = line.split("ready: ")[1].split()[0]
        if "HERDER_REDIS_URL" not in self.settings:  # shown at the first start of an embedded herd
            until(lambda: len(self.keys) == 2, "its first keys")
        return self

    @property
    def pid(self) -> int:
        """The supervisor's."""
        assert self._process is not None
        return self._process.pid

    def tell(self, number: int = signal.SIGTERM) -> None:
        """Send the supervisor a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def ended(self, limit_s: float = STOP_S) -> int:
        """Wait until it has ended, all its lines read; the exit code."""
        assert self._process is not None
        assert self._reader is not None
        code = self._process.wait(limit_s)
        self._reader.join(limit_s)
        assert self._process.stdout is not None
        self._process.stdout.close()
        return code

    def stop(self, number: int = signal.SIGTERM) -> None:
        """SIGTERM, or another signal to stop; it ends with 0 and leaves no process behind."""
        self.tell(number)
        assert self.ended() == 0, self.told()
        assert [pid for _, pid in self.processes() if alive(pid)] == []

    def end(self) -> None:
        """Whatever happened: nothing of it is left."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.kill()
        for _, pid in self.processes():
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        self.ended()

    # --- its parts ---------------------------------------------------------------------------------------

    def processes(self) -> list[tuple[str, int]]:
        """Every process that it has started since its own start: (name, pid), oldest first."""
        found = [_RUNS_AS.match(line) for line in list(self.lines)]
        return [(match[1], int(match[2])) for match in found if match]

    def pid_of(self, name: str) -> int:
        """The newest process of this name."""
        return [pid for found, pid in self.processes() if found == name][-1]

    def kill(self, name: str, number: int = signal.SIGKILL) -> int:
        """Send a signal to a part; returns the pid that it had."""
        pid = self.pid_of(name)
        os.kill(pid, number)
        return pid

    def until_restarted(self, name: str, pid: int) -> None:
        """Wait until a part that was killed is there again."""
        until(lambda: self.pid_of(name) != pid, f"{name} runs again")

    # --- its words ---------------------------------------------------------------------------------------

    def line(self, pattern: str, limit_s: float = WAIT_S) -> str:
        """The first line that matches, as soon as there is one; an herd that ended first is a failure."""

        def found() -> str | None:
            ended = self._process is not None and self._process.poll() is not None
            matching = [line for line in list(self.lines) if re.search(pattern, line)]
            assert matching or not ended, f"it ended without {pattern!r}:\n{self.told()}"
            return matching[0] if matching else None

        return until(found, f"{pattern!r} in\n{self.told()}", limit_s) or ""

    def told(self) -> str:
        """Everything that it printed."""
        return "\n".join(self.lines)

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            key = _KEY.search(line)
            if key:
                self.keys[key[1]] = key[2]
            self.lines.append(line.rstrip("\n"))

    # --- its doors ---------------------------------------------------------------------------------------

    @contextmanager
    def client(self, key: str = DEMO) -> Iterator[Herder]:
        """A client with the demo account's key or the admin's."""
        with Herder(self.url, api_key=self.keys[key]) as herder:
            yield herder

    def ask(self, question: Callable[[Broker], Awaitable[T]]) -> T:
        """Ask its Redis."""
        url = self.settings.get("HERDER_REDIS_URL") or socket_url(self.folder / DATA)

        async def asked() -> T:
            broker = await connect(Settings(redis_url=url, _env_file=None))  # type: ignore[call-arg]
            try:
                return await question(broker)
            finally:
                await broker.close()

        return asyncio.run(asked())


def clean_environment() -> dict[str, str]:
    """This process's environment without the herd of whoever runs the tests."""
    return {k: v for k, v in os.environ.items() if not k.startswith("HERDER_")} | {"PYTHONPATH": str(ROOT)}


def alive(pid: int) -> bool:
    """Whether the process is there; one that only waits to be reaped is not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return not stat.parent.parent.exists()


@contextmanager
def herd(*options: str, folder: Path | None = None, **settings: object) -> Iterator[Up]:
    """A herd that is ready, in a folder of its own (or this one); ended, by force if need be, on the way out."""
    with short_folder() as own:
        running = Up(folder or own, *options, **settings)
        try:
            yield running.start()
        except BaseException:
            print(running.told())  # shown by pytest beside the failure
            raise
        finally:
            running.end()


@contextmanager
def short_folder() -> Iterator[Path]:
    """A temporary folder whose path leaves room for a unix socket's."""
    with tempfile.TemporaryDirectory(prefix="e2e-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def run_command(
    *arguments: str, folder: Path, environment: Mapping[str, str] | None = None, limit_s: float = READY_S
) -> subprocess.CompletedProcess[str]:
    """A `herder` command that ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "llama_herder.cli.main", *arguments],
        cwd=folder, env=clean_environment() | dict(environment or {}), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, encoding="utf-8", timeout=limit_s, check=False,
    )  # fmt: skip
