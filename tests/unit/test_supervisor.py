"""The supervisor over real, tiny child processes: lines, restarts, ends for good, stops, a parent that is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import worker.main
from herder import supervisor
from herder.supervisor import Child, oom_kills, prefixed_printer
from herder.turns import Turns
from tests.e2e.herd import alive, until
from worker.turn import Turn

WAIT_S = 60.0


class Said:
    """Lines as they are printed; `until` waits for one."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self._news = asyncio.Event()

    def __call__(self, name: str, line: str) -> None:
        self.lines.append((name, line))
        self._news.set()

    @property
    def own(self) -> list[str]:
        """What the child printed, without the supervisor's remarks."""
        return [
            line
            for _, line in self.lines
            if not line.startswith(("runs as", "ended with", "is started", "did not", "has left"))
        ]

    async def until(self, wanted: Callable[[list[str]], bool]) -> None:
        """Wait until the child's own lines are so."""
        async with asyncio.timeout(WAIT_S):
            while not wanted(self.own):
                self._news.clear()
                await self._news.wait()


def python(code: str) -> list[str]:
    """A command line that runs this."""
    return [sys.executable, "-c", code]


@asynccontextmanager
async def started(code: str, said: Said, **more: object) -> AsyncIterator[Child]:
    """A child that runs `code`; stopped at the end."""
    child = Child("c", lambda: python(code), {"PYTHONUNBUFFERED": "1"}, said, **more)  # type: ignore[arg-type]
    child.start()
    try:
        yield child
    finally:
        await child.stop(0.0)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back-off in tenths of a second; no life is long enough."""
    monkeypatch.setattr(supervisor, "BACKOFF_S_MIN", 0.1)
    monkeypatch.setattr(supervisor, "BACKOFF_S_MAX", 0.2)
    monkeypatch.setattr(supervisor, "HEALTHY_S", 1_000.0)


async def test_a_child_that_crashes_is_started_again_with_growing_pauses(quick: None) -> None:
    said, codes = Said(), []

    async def ended(code: int) -> bool:
        codes.append(code)
        return len(codes) == 3

    async with started("print('here'); raise SystemExit(1)", said, ended_by_itself=ended) as child:
        await said.until(lambda own: len(own) >= 5)
    pauses = [line.split()[-2] for _, line in said.lines if line.startswith("is started again")]
    assert pauses[:4] == ["0.1", "0.2", "0.1", "0.2"]  # it had been at work the third time
    assert ("c", "ended with exit code 1") in said.lines
    assert child.restarts >= 4
    assert set(codes) == {1}
    assert len({line for _, line in said.lines if line.startswith("runs as process")}) >= 5


async def test_a_child_that_leaves_for_a_fresh_process_is_started_again_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor, "BACKOFF_S_MIN", 1_000.0)
    said = Said()
    async with started(f"print('here'); raise SystemExit({supervisor.EXIT_FRESH})", said) as child:
        await said.until(lambda own: own.count("here") >= 3)
        assert child.restarts >= 2
    assert ("c", "has left for a fresh process") in said.lines
    assert not [line for _, line in said.lines if line.startswith(("ended with", "is started again"))]
    assert supervisor.EXIT_FRESH == worker.main.EXIT_FRESH


def test_pauses_double_up_to_their_limit_and_a_healthy_child_starts_from_the_least() -> None:
    pauses = [0.0]
    for _ in range(9):
        pauses.append(supervisor.backoff_s(pauses[-1], healthy=False))
    assert pauses[1:] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert supervisor.backoff_s(30.0, healthy=True) == 0.5


@pytest.mark.parametrize("code", [2, 3])
async def test_a_child_that_has_said_why_is_not_started_again(code: int) -> None:
    said = Said()
    async with started(f"print('no such model'); raise SystemExit({code})", said) as child:
        async with asyncio.timeout(WAIT_S):
            assert await child.ended() == code
        assert (child.done, child.restarts, child.last_line) == (True, 0, "no such model")


async def test_a_child_that_was_drained_by_hand_is_started_again(quick: None) -> None:
    said = Said()
    async with started("print('here')", said) as child:
        await said.until(lambda own: len(own) >= 2)
        assert child.restarts >= 1


async def test_a_program_that_is_not_there_is_a_crash_and_not_a_traceback(quick: None) -> None:
    said = Said()
    child = Child("c", lambda: ["no-such-program-of-a-herd"], {}, said)
    child.start()
    await said.until(lambda own: len(own) >= 2)
    await child.stop(1.0)
    assert set(said.own) == {"cannot be started: No such file or directory"}
    assert child.done


async def test_every_line_comes_with_its_name_however_long_or_unfinished() -> None:
    long = 3 * supervisor.LINE_BYTES_MAX + 17
    code = (
        f"import os, sys; print('one'); sys.stderr.write('two\\n'); os.write(1, b'x' * {long} + b'\\n'); "
        "os.write(1, b'\\xff bad\\n'); os.write(1, b'no end'); raise SystemExit(2)"
    )
    said = Said()
    async with started(code, said) as child:
        async with asyncio.timeout(WAIT_S):
            await child.ended()
    assert {name for name, _ in said.lines} == {"c"}
    assert said.own[:2] == ["one", "two"]
    assert "".join(said.own[2:-2]) == "x" * long
    assert max(map(len, said.own)) <= 2 * supervisor.LINE_BYTES_MAX
    assert said.own[-2:] == ["\ufffd bad", "no end"]


@pytest.mark.parametrize("detached", [False, True])
async def test_a_childs_own_children_do_not_hide_its_end(detached: bool) -> None:
    """They hold its output open; its end is seen nevertheless, and those of its session end with it."""
    code = (
        "import os, subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'], "
        f"start_new_session={detached}); print(p.pid, flush=True); os._exit(2)"
    )
    said = Said()
    async with started(code, said) as child:
        async with asyncio.timeout(WAIT_S):
            assert await child.ended() == 2
    left = int(said.own[0])
    if detached:
        os.kill(left, signal.SIGKILL)
    else:
        until(lambda: not alive(left), "the child's child has ended")


async def test_a_child_that_ignores_sigterm_is_killed_after_its_grace() -> None:
    said = Said()
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf')\nwhile True: signal.pause()"
    child = Child("c", lambda: python(code), {"PYTHONUNBUFFERED": "1"}, said)
    child.start()
    await said.until(lambda own: own == ["deaf"])
    await child.stop(0.1)
    assert await child.ended() == -signal.SIGKILL
    assert ("c", "did not stop within 0 s: killed") in said.lines


async def test_a_child_that_listens_ends_by_itself() -> None:
    said = Said()
    code = "import signal; signal.signal(signal.SIGTERM, lambda *_: exit(0)); print('here')\nwhile True: signal.pause()"
    child = Child("c", lambda: python(code), {"PYTHONUNBUFFERED": "1"}, said)
    child.start()
    await said.until(lambda own: own == ["here"])
    await child.stop(WAIT_S)
    assert (await child.ended(), child.restarts) == (0, 0)


async def test_a_child_asked_to_stop_in_a_pause_is_not_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "BACKOFF_S_MIN", 1_000.0)
    said = Said()
    child = Child("c", lambda: python("print('here'); raise SystemExit(7)"), {"PYTHONUNBUFFERED": "1"}, said)
    child.start()
    await said.until(lambda _: ("c", "is started again in 1000.0 s") in said.lines)
    async with asyncio.timeout(WAIT_S):
        await child.stop(WAIT_S)
    assert (child.done, said.own) == (True, ["here"])


def test_children_end_with_a_parent_that_is_killed() -> None:
    """By the kernel's hand, on Linux; the child says so itself on its way out, and its end closes the pipe."""
    child = (
        "import signal; signal.signal(signal.SIGTERM, lambda *_: exit(print(3))); print(2); signal.pause()"
    )
    parent = (
        "import subprocess, sys; from herder.supervisor import die_with_parent; print(1, flush=True); "
        f"subprocess.run([sys.executable, '-u', '-c', '{child}'], preexec_fn=die_with_parent)"
    )
    process = subprocess.Popen(python(parent), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        assert [process.stdout.readline() for _ in range(2)] == ["1\n", "2\n"]
        process.kill()
        process.wait(WAIT_S)
        if sys.platform == "linux":
            assert process.stdout.read() == "3\n"


def test_lines_are_prefixed_and_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    print_line = prefixed_printer(["herd", "worker-1"])
    print_line("herd", "ready")
    print_line("worker-1", "serving")
    assert capsys.readouterr().out == "herd     │ ready\nworker-1 │ serving\n"


def test_a_printer_whose_reader_is_gone_goes_on() -> None:
    code = (
        "import sys; from herder.supervisor import prefixed_printer; say = prefixed_printer(['c'])\n"
        "for i in range(9): say('c', sys.stdin.readline())"
    )
    process = subprocess.Popen(
        python(code), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.close()
    _, said = process.communicate("line\n" * 9, timeout=WAIT_S)
    assert (process.returncode, said) == (0, "")


def test_the_kernels_count_of_kills_for_want_of_memory() -> None:
    """Where the kernel counts them, a kill of our own does not raise the count; elsewhere there is nothing to say."""
    before = oom_kills()
    process = subprocess.Popen(python("input()"), stdin=subprocess.PIPE)
    process.kill()
    process.communicate(timeout=WAIT_S)
    assert oom_kills() == before
    counted = sys.platform == "linux" and "\noom_kill " in Path("/proc/vmstat").read_text("ascii")
    assert bool(before) == counted


async def test_a_turn_is_held_until_the_heir_of_who_took_it_is_at_work(tmp_path: Path) -> None:
    """Whatever becomes of the first, and of an heir that dies before it is."""
    turns, said, life = Turns(), Said(), tmp_path / "life"
    lock, other = turns.another(), Turn(turns.another())
    code = f"""
import os, pathlib, sys, threading
from worker.turn import Turn
turn, life, told = Turn({lock}), pathlib.Path({str(life)!r}), pathlib.Path({str(tmp_path / "told")!r})
lives = int(life.read_text()) if life.exists() else 0
life.write_text(str(lives + 1))
if lives == 0:
    sys.exit(6 if turn.take() else 1)
if lives == 1:
    os.kill(os.getpid(), 9)
os.mkfifo(told)
print("loading")
told.read_text()
turn.over()
print("at work")
threading.Event().wait()
"""
    try:
        async with started(code, said, descriptors=(lock,)) as child:
            await said.until(lambda lines: "loading" in lines)
            assert child.restarts == 2
            assert not other.take()
            (tmp_path / "told").write_text("go on")
            await said.until(lambda lines: "at work" in lines)
            assert other.take()
    finally:
        turns.close()
