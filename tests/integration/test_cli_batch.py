"""`herder batch` against a real herder: its files, its bill, and real commands that are killed and run again."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Any

import pytest

from tests.integration.client_herd import FUNDS, Herd, Terminal

PROMPTS = [f"prompt {n}" for n in range(12)]
CAPTURED = 13
IN = Path("in.txt")
EXAMPLE = Path(__file__).parents[2] / "examples/batch.py"
RUN = ["batch", "in.txt", "--text", "--tokens", "40", "-o", "out.jsonl"]
OUT, STATE = Path("out.jsonl"), Path("out.jsonl.herder-batch")


@pytest.fixture
def terminal(
    herd: Herd, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Terminal:
    desk = tmp_path / "desk"
    desk.mkdir()
    monkeypatch.chdir(desk)
    IN.write_text("\n".join(PROMPTS))
    return Terminal(herd, monkeypatch, capsys)


async def work(herd: Herd, count: int) -> None:
    """End so many jobs."""
    for _ in range(count):
        await herd.work(3)


def answers() -> list[dict[str, Any]]:
    """Every whole line; one that is being written is not there yet."""
    whole, _, _ = (OUT.read_bytes() if OUT.exists() else b"").rpartition(b"\n")
    return [json.loads(line) for line in whole.split(b"\n") if line]


def write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def spoil() -> None:
    """Half a line, as a kill leaves it."""
    write(OUT, OUT.read_bytes() + b'{"cursor":6,"index"')


def forget_the_batch() -> None:
    """As if the command had been killed a little earlier."""
    write(STATE, json.dumps(state() | {"batch_id": None, "total": 0}).encode())
    OUT.unlink(missing_ok=True)


def state() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(STATE.read_bytes())
    return found


def left() -> list[str]:
    """What the command has left in the folder."""
    return sorted(path.name for path in Path().iterdir() if path.name != "in.txt")


async def started() -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "llama_herder.cli.main", *RUN, stdin=PIPE, stdout=PIPE, stderr=PIPE
    )


async def until_answered(herd: Herd, count: int) -> None:
    async with asyncio.timeout(30):
        while len(answers()) < count:
            await herd.ring.broker.ping()


async def test_a_file_of_prompts_and_its_bill(herd: Herd, terminal: Terminal) -> None:
    shown, _ = await asyncio.gather(terminal(*RUN), work(herd, 12))
    assert (shown.code, shown.out) == (0, "")
    assert shown.err.endswith("succeeded 12 · captured 156 · refunded 444\n")
    assert sorted(answer["index"] for answer in answers()) == list(range(12))
    assert [answer["cursor"] for answer in answers()] == list(range(1, 13))
    assert left() == ["out.jsonl"]
    assert "ended" in (await terminal("batches")).out


async def test_the_example(herd: Herd, terminal: Terminal) -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, EXAMPLE, "one", "two", "three", stdout=PIPE, stderr=PIPE
    )
    (out, err), _ = await asyncio.gather(child.communicate(), work(herd, 3))
    assert (child.returncode, out.count(b"\n  xxx\n")) == (0, 3)
    assert b": 39 of 210 credits]" in err


async def test_the_example_interrupted_cancels_the_rest(herd: Herd, terminal: Terminal) -> None:
    child = await asyncio.create_subprocess_exec(sys.executable, EXAMPLE, stdout=PIPE, stderr=PIPE)
    await work(herd, 1)
    assert child.stdout is not None
    async with asyncio.timeout(30):
        await child.stdout.readline()
    child.send_signal(signal.SIGINT)
    _, err = await child.communicate()
    assert (child.returncode, err) == (1, b"interrupted: the rest was cancelled\n")
    assert await herd.balance() == (FUNDS - CAPTURED, 0)


async def test_a_line_that_the_herder_refuses_is_named(herd: Herd, terminal: Terminal) -> None:
    write(IN, b'{"prompt": "a"}\n\n{"prompt": "b", "temperature": 9}\n')
    shown = await terminal("batch", "in.txt", "--tokens", "40", "-o", "out.jsonl")
    assert shown.code == 2
    assert shown.err.startswith("error: nothing was charged: in.txt, line 3: temperature")
    assert left() == []
    write(IN, b'{"prompt": "a", "temperature": 9}\n' * 6)
    shown = await terminal("batch", "in.txt", "--tokens", "40", "-o", "out.jsonl")
    assert all(f"line {number}: temperature" in shown.err for number in range(1, 7))
    assert shown.err.count("\n") == 1
    write(IN, b'{"prompt": "a", "temperature": 9}\n' * 60)
    shown = await terminal("batch", "in.txt", "--tokens", "40", "-o", "out.jsonl")
    assert "line 20: temperature" in shown.err
    write(IN, b'{"prompt": "a"}\n\n{"prompt": "b", "temperature": 9}\n')
    poor = await terminal(
        "batch", "in.txt", "--tokens", "400", "--multiplier", "50", "--text", "-o", "out.jsonl"
    )
    assert poor.code == 4
    assert await herd.balance() == (FUNDS, 0)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
async def test_a_command_that_is_killed_in_the_middle_goes_on(
    herd: Herd, terminal: Terminal, how: signal.Signals
) -> None:
    child = await started()
    await work(herd, 5)
    await until_answered(herd, 5)
    child.send_signal(how)
    _, err = await child.communicate()
    if how == signal.SIGINT:
        assert child.returncode == 130
        assert b"goes on: the same command goes on with it" in err
    before = state()
    spoil()
    await work(herd, 2)
    shown, _ = await asyncio.gather(terminal(*RUN), work(herd, 5))
    assert shown.code == 0
    assert sorted(answer["index"] for answer in answers()) == list(range(12))
    assert [answer["cursor"] for answer in answers()] == list(range(1, 13))
    (batch,) = json.loads((await terminal("batches", "--json")).out)["batches"]
    assert (batch["id"], batch["status"]) == (before["batch_id"], "ended")
    assert await herd.balance() == (FUNDS - 12 * CAPTURED, 0)


async def test_a_command_that_is_killed_before_it_knows_its_batch_pays_once(
    herd: Herd, terminal: Terminal
) -> None:
    """Killed while the reply is under way: the batch is there, and only the key on disk tells which it is."""
    child = await started()
    async with asyncio.timeout(30):
        while not (await herd.balance())[1]:
            await herd.ring.broker.ping()
    child.kill()
    await child.communicate()
    forget_the_batch()
    shown, _ = await asyncio.gather(terminal(*RUN), work(herd, 12))
    assert shown.code == 0
    assert len(answers()) == 12
    assert len(json.loads((await terminal("batches", "--json")).out)["batches"]) == 1
    assert await herd.balance() == (FUNDS - 12 * CAPTURED, 0)


async def test_a_cancelled_batch_is_written_down_too(herd: Herd, terminal: Terminal) -> None:
    child = await started()
    await work(herd, 2)
    await until_answered(herd, 2)
    batch_id = state()["batch_id"]
    assert "batch_" in (await terminal("cancel", batch_id)).out
    _, err = await child.communicate()
    assert child.returncode == 1
    assert "succeeded 2 · cancelled 10 · captured 26 · refunded 574" in err.decode()
    assert await herd.balance() == (FUNDS - 2 * CAPTURED, 0)
