"""Child processes: started, their lines prefixed, restarted with back-off when they crash, stopped in order.

Knows nothing of Redis or of what the children do; whoever makes a `Child` says what a crash of it means.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

BACKOFF_S_MIN = 0.5
BACKOFF_S_MAX = 30.0
HEALTHY_S = 3.0  # a child that ran this long starts from the least back-off again: what killed it was no wrong setting
LAST_LINES_S = 1.0  # how long an ended child's output is read, which its own children may hold open
LINE_BYTES_MAX = 64 * 1024
# A child that ends so has said why, and would say the same again: a wrong setting, a model that is not one.
EXITS_FOR_GOOD = frozenset({2, 3})
# A child that ends so has left in good order and wants a fresh process in its place.
EXIT_FRESH = 6
NOT_STARTED = 127
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None

Print = Callable[[str, str], None]


@dataclass
class Child:
    """One supervised process, in a session of its own.

    `command` makes its arguments anew for each start (so that each has an identity of its own); `ended_by_itself` is
    awaited with the exit code after each end that nobody asked for, before the restart, and says whether the process
    had been at work: then it starts from the least back-off again, however short its life. `descriptors` are passed on.
    """

    name: str
    command: Callable[[], Sequence[str]]
    env: Mapping[str, str]
    print_line: Print
    ended_by_itself: Callable[[int], Awaitable[bool]] | None = None
    descriptors: tuple[int, ...] = ()
    restarts: int = 0
    last_line: str = ""
    process: asyncio.subprocess.Process | None = None
    _stopping: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    _task: asyncio.Task[int] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Start it, and start it again whenever it ends, unless it has ended for good."""
        self._task = asyncio.create_task(self._supervise(), name=self.name)

    async def ended(self) -> int:
        """Wait until it has ended for good; its last exit code."""
        assert self._task is not None
        return await asyncio.shield(self._task)

    @property
    def done(self) -> bool:
        """Whether it has ended for good."""
        return self._task is not None and self._task.done()

    def signal(self, number: int) -> None:
        """Ask it to stop, this way; it is not started again."""
        self._stopping.set()
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)

    async def stop(self, grace_s: float) -> None:
        """SIGTERM, unless it has had one, and SIGKILL after `grace_s` seconds, for its own children too."""
        if self._task is None:
            return
        if not self._stopping.is_set():
            self.signal(signal.SIGTERM)
        done, _ = await asyncio.wait([self._task], timeout=grace_s)
        if not done and self.process is not None:
            self.print_line(self.name, f"did not stop within {grace_s:.0f} s: killed")
            _kill_session(self.process.pid)
        await self._task

    async def _supervise(self) -> int:
        pause_s = 0.0
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            code = await self._run_once()
            if self._stopping.is_set() or code in EXITS_FOR_GOOD:
                return code
            healthy = loop.time() - started >= HEALTHY_S
            self.restarts += 1
            fresh = code == EXIT_FRESH
            self.print_line(
                self.name, "has left for a fresh process" if fresh else f"ended with {_told(code)}"
            )
            if self.ended_by_itself is not None and await self.ended_by_itself(code):
                healthy = True
            pause_s = 0.0 if fresh else backoff_s(pause_s, healthy)
            if not fresh:
                self.print_line(self.name, f"is started again in {pause_s:.1f} s")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._stopping.wait()
            if self._stopping.is_set():
                return code

    async def _run_once(self) -> int:
        # A pipe of ours: with one of asyncio's, a child has not ended before its own children have let go of it.
        reading, writing = os.pipe()
        try:
            self.process = await asyncio.create_subprocess_exec(
                *self.command(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                env=dict(self.env),
                start_new_session=True,  # Ctrl-C is the supervisor's; it stops its children in order
                preexec_fn=die_with_parent,
                pass_fds=self.descriptors,
                umask=0o077,  # what the herd writes is its owner's business alone
            )
        except OSError as error:
            os.close(reading)
            self.last_line = f"cannot be started: {error.strerror}"
            self.print_line(self.name, self.last_line)
            return NOT_STARTED
        finally:
            os.close(writing)
        self.print_line(self.name, f"runs as process {self.process.pid}")
        if self._stopping.is_set():  # asked to stop while it was being started
            self.process.terminate()
        printing = asyncio.create_task(self._print_lines(reading))
        code = await self.process.wait()
        _kill_session(self.process.pid)  # what it has left behind, if anything
        await asyncio.wait([printing], timeout=LAST_LINES_S)
        printing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await printing
        return code

    async def _print_lines(self, reading: int) -> None:
        stream = asyncio.StreamReader(limit=LINE_BYTES_MAX)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(reading, "rb", buffering=0)
        )
        try:
            while line := await _next_line(stream):
                self.last_line = line.decode(errors="replace").rstrip()
                self.print_line(self.name, self.last_line)
        finally:
            transport.close()


def _kill_session(pid: int) -> None:
    """Kill a child, if it still runs, and its own children."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def backoff_s(last_s: float, healthy: bool) -> float:
    """The pause before a restart: the least after a healthy run, else twice the last one."""
    if healthy or not last_s:
        return BACKOFF_S_MIN
    return min(2 * last_s, BACKOFF_S_MAX)


async def _next_line(stream: asyncio.StreamReader) -> bytes:
    """The next line, or a piece of one that is longer than the limit; empty at the end."""
    try:
        return await stream.readuntil(b"\n")
    except asyncio.IncompleteReadError as end:
        return end.partial
    except asyncio.LimitOverrunError:
        return await stream.read(LINE_BYTES_MAX)


def die_with_parent() -> None:
    """On Linux, have the kernel end this process when its parent is killed; elsewhere it outlives it."""
    if _LIBC is not None:
        with contextlib.suppress(OSError, AttributeError):
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def prefixed_printer(names: Sequence[str], *, as_json: bool = False) -> Print:
    """Prints `name │ line`, each name in a colour of its own on a terminal; or JSON lines and nothing else."""
    width = max((len(name) for name in names), default=0)
    coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    colours = {name: 36 - i % 6 for i, name in enumerate(names)}

    def print_line(name: str, line: str) -> None:
        label = f"{name:<{width}} │"
        if coloured:
            label = f"\x1b[{colours.get(name, 37)}m{label}\x1b[0m"
        said = f"{label} {line}"
        if as_json:
            said = (
                line
                if line.startswith("{")
                else json.dumps({"logger": name, "event": line}, ensure_ascii=False)
            )
        try:
            print(said, flush=True)
        except OSError:  # nobody reads any more; the herd goes on
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    return print_line


def _told(code: int) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"


def oom_kills() -> str:
    """How many processes the kernel has killed for want of memory; empty where it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text("ascii").splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith("oom_kill ")), "")
