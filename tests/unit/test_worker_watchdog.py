"""The watchdog: what is a wedge and what is not; and that a process ends when even Python stands still."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from worker.progress import Progress
from worker.watchdog import EXIT_WEDGED, Watchdog

LIMIT_MS = 30_000


class Bench:
    """A watchdog over hands that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.busy = False
        self.ends = 0
        self.progress = Progress(lambda: self.now)
        self.watchdog = Watchdog(self.progress, lambda: self.busy, LIMIT_MS, self._end)

    def _end(self) -> None:
        self.ends += 1

    def after(self, seconds: float) -> int:
        """Let time pass and look; how often it has ended."""
        self.now += seconds
        self.watchdog.look()
        return self.ends


def test_idleness_is_no_wedge_and_a_job_begins_with_all_its_time() -> None:
    bench = Bench()
    assert bench.after(10_000) == 0
    bench.busy = True
    assert bench.after(29) == 0
    assert bench.after(2) == 1


def test_a_step_that_ends_is_progress_and_one_that_does_not_is_none() -> None:
    bench = Bench()
    bench.busy = True
    for _ in range(10):
        bench.progress.began()
        assert bench.after(20) == 0
        assert bench.progress.ended() == 20_000
    bench.progress.began()
    assert bench.progress.mid_step
    assert bench.after(29) == 0
    assert bench.progress.step_s == 29
    assert bench.after(1) == 1


def test_work_that_never_reaches_the_engine_is_a_wedge_too() -> None:
    bench = Bench()
    bench.busy = True
    assert not bench.progress.mid_step
    assert bench.after(30) == 1


async def test_without_a_limit_nothing_is_watched() -> None:
    async with asyncio.timeout(5):
        await Watchdog(Progress(lambda: 0.0), lambda: True, 0).watching()


WEDGES = {
    "the engine": (EXIT_WEDGED, "progress.began(); await asyncio.Event().wait()"),
    "the event loop": (1, "threading.Event().wait()"),
    "the GIL": (1, "await asyncio.to_thread(ctypes.PyDLL(None).pause)"),
}
SCRIPT = """
import asyncio, ctypes, threading, time
from worker.progress import Progress
from worker.watchdog import Watchdog

async def main():
    progress = Progress(time.monotonic)
    watching = asyncio.create_task(Watchdog(progress, lambda: True, 1_500).watching())
    for _ in range(6):  # longer than the limit, with progress
        await asyncio.wait([watching], timeout=0.3)
        progress.moved()
    print("alive", flush=True)
    {wedge}

asyncio.run(main())
"""


@pytest.mark.parametrize("wedged", list(WEDGES))
def test_a_wedged_process_says_where_it_stands_and_ends(wedged: str) -> None:
    code, wedge = WEDGES[wedged]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(wedge=wedge)], capture_output=True, text=True, timeout=60, check=False
    )  # fmt: skip
    assert (done.returncode, done.stdout.splitlines()[:1]) == (code, ["alive"]), done.stderr
    assert "most recent call first" in done.stderr


IDLE = """
import asyncio, threading, time
from worker.progress import Progress
from worker.watchdog import Watchdog

async def main():
    work = []
    watchdog = Watchdog(Progress(time.monotonic), lambda: bool(work), 500)
    watching = asyncio.create_task(watchdog.watching())
    await asyncio.wait([watching], timeout=0.1)
    threading.Event().wait(1.5)
    print("alive", flush=True)
    {then}

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("then", "code"),
    [("pass", 0), ("watchdog.look(); work.append(1); watchdog.look(); threading.Event().wait()", 1)],
)
def test_a_worker_without_work_may_be_paused_and_one_that_has_just_got_some_may_not(
    then: str, code: int
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IDLE.format(then=then)], capture_output=True, text=True, timeout=60, check=False
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (code, "alive\n"), done.stderr


def test_a_watchdog_that_is_called_off_does_not_bite() -> None:
    wedge = "watching.cancel(); await asyncio.wait([watching]); threading.Event().wait(2.0)"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(wedge=wedge)], capture_output=True, text=True, timeout=60, check=False
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "alive\n", "")
