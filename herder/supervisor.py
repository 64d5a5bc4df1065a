"""Child processes: started, their lines prefixed, restarted with back-off when they crash, stopped in order.

Knows nothing of Redis or of what the children do; whoever makes a `Child` says what a crash of it means.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

BACKOFF_S_MIN = 0.5
BACKOFF_S_MAX = 30.0
HEALTHY_S = 30.0  # a child that ran this long starts from the least back-off again
LINE_BYTES_MAX = 64 * 1024
# A child that ends so has said why, and would say the same again: a wrong setting, a model that is not one.
EXITS_FOR_GOOD = frozenset({2, 3})
_PR_SET_PDEATHSIG = 1

Print = Callable[[str, str], None]


@dataclass
class Child:
    """One supervised process.

    `command` makes its arguments anew for each start (so that each has an identity of its own); `crashed` is awaited
    with the exit code after each end that nobody asked for, before the restart.
    """

    name: str
    command: Callable[[], Sequence[str]]
    env: Mapping[str, str]
    print_line: Print
    crashed: Callable[[int], Awaitable[None]] | None = None
    restarts: int = 0
    process: asyncio.subprocess.Process | None = None
    _stopping: bool = False
    _task: asyncio.Task[int] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Start it, and start it again whenever it crashes."""
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
        self._stopping = True
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)

    async def stop(self, grace_s: float) -> None:
        """SIGTERM, unless it has had one, and SIGKILL after `grace_s` seconds."""
        if self._task is None:
            return
        if not self._stopping:
            self.signal(signal.SIGTERM)
        if self.process is None or self.process.returncode is not None:
            self._task.cancel()
        done, _ = await asyncio.wait([self._task], timeout=grace_s)
        if not done and self.process is not None:
            self.print_line(self.name, f"did not stop within {grace_s:.0f} s: killed")
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _supervise(self) -> int:
        backoff = BACKOFF_S_MIN
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            code = await self._run_once()
            if self._stopping or code in EXITS_FOR_GOOD or code == 0:
                return code
            if self.crashed is not None:
                await self.crashed(code)
            if loop.time() - started > HEALTHY_S:
                backoff = BACKOFF_S_MIN
            self.restarts += 1
            self.print_line(self.name, f"ended with {_told(code)}; starting it again in {backoff:.1f} s")
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, BACKOFF_S_MAX)

    async def _run_once(self) -> int:
        self.process = await asyncio.create_subprocess_exec(
            *self.command(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=dict(self.env),
            limit=LINE_BYTES_MAX,
            start_new_session=True,  # Ctrl-C is the supervisor's; it stops its children in order
            preexec_fn=die_with_parent,
        )
        if self._stopping:  # asked to stop while it was being started
            self.process.terminate()
        assert self.process.stdout is not None
        while line := await _next_line(self.process.stdout):
            self.print_line(self.name, line.decode(errors="replace").rstrip())
        return await self.process.wait()


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
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def prefixed_printer(names: Sequence[str]) -> Print:
    """Prints `name │ line`, each name in a colour of its own on a terminal."""
    width = max((len(name) for name in names), default=0)
    coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    colours = {name: 36 - i % 6 for i, name in enumerate(names)}

    def print_line(name: str, line: str) -> None:
        label = f"{name:<{width}} │"
        if coloured:
            label = f"\x1b[{colours.get(name, 37)}m{label}\x1b[0m"
        print(f"{label} {line}", flush=True)

    return print_line


def _told(code: int) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"
