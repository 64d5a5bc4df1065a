"""`herder run --stream` against a real herder: the answer while it is made, each event as JSON, and Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from herder.protocol import Outcome, RenewReply
from tests.integration.client_herd import FUNDS, Herd, Terminal
from tests.integration.ring import MODEL, STATS

EXAMPLE = Path(__file__).parents[2] / "examples/stream.py"
RUN = ["run", "What is a chatbot?", "--tokens", "40", "--stream"]


@pytest.fixture
def terminal(herd: Herd, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(herd, monkeypatch, capsys)


async def answer(herd: Herd) -> None:
    """Play the worker: four tokens, and the end."""
    lease = await herd.lease()
    for index in range(4):
        await herd.ring.say(lease, "x", index)
    await herd.ring.settle(lease, 4)


async def test_the_command_prints_the_answer(herd: Herd, terminal: Terminal) -> None:
    shown, _ = await asyncio.gather(terminal(*RUN), answer(herd))
    assert (shown.code, shown.out) == (0, "xxxx\n")
    assert shown.err == "fee 50 · captured 14 · refunded 36 · balance 4 986\n"
    shown, _ = await asyncio.gather(terminal(*RUN, "--json"), answer(herd))
    lines = [json.loads(line) for line in shown.out.splitlines()]
    assert (shown.code, shown.err) == (0, "")
    assert {line["event"] for line in lines} == {"queued", "started", "tokens", "done"}
    assert "".join(line["text"] for line in lines if line["event"] == "tokens") == "xxxx"
    assert (lines[-1]["job"]["status"], lines[-1]["job"]["balance"]) == ("succeeded", FUNDS - 28)


async def test_the_example_interrupted_is_one_line(herd: Herd, terminal: Terminal) -> None:
    child = await asyncio.create_subprocess_exec(sys.executable, EXAMPLE, stdout=PIPE, stderr=PIPE)
    lease = await herd.lease()
    await herd.ring.say(lease, "x", 0)
    assert child.stdout is not None
    async with asyncio.timeout(30):
        assert await child.stdout.readexactly(1) == b"x"
    child.send_signal(signal.SIGINT)
    _, err = await child.communicate()
    assert child.returncode == 1
    assert err.endswith(b"\ninterrupted: a job that was accepted goes on\n")
    assert b"Traceback" not in err


async def test_the_command_prints_while_it_is_made_and_ctrl_c_cancels(herd: Herd, terminal: Terminal) -> None:
    command = [sys.executable, "-m", "llama_herder.cli.main", *RUN]
    child = await asyncio.create_subprocess_exec(
        *command, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=dict(os.environ)
    )
    assert child.stdout is not None
    async with asyncio.timeout(60):
        lease = await herd.lease()
        await herd.ring.say(lease, "Hel", 0)
        assert await child.stdout.readexactly(3) == b"Hel"
        await herd.ring.say(lease, "lo", 1)
        assert await child.stdout.readexactly(2) == b"lo"
        child.send_signal(signal.SIGINT)
        held = [(lease.job_id, lease.attempt)]
        while (await herd.ring.broker.renew("w1", MODEL, held, STATS))[lease.job_id] is not RenewReply.CANCEL:
            pass
        await herd.ring.settle(lease, 2, Outcome.CANCELLED)
        out, err = await child.communicate()
    assert (child.returncode, out) == (130, b"")
    assert err.decode().splitlines()[-1].endswith("fee 50 · captured 12 · refunded 38 · balance 4 988")


async def test_the_example_prints_an_answer(herd: Herd, terminal: Terminal) -> None:
    example = Path(__file__).parents[2] / "examples" / "stream.py"
    child = await asyncio.create_subprocess_exec(sys.executable, str(example), "hi", stdout=PIPE, stderr=PIPE)
    (out, err), _ = await asyncio.gather(child.communicate(), answer(herd))
    assert (child.returncode, out) == (0, b"xxxx")
    assert err.decode().endswith("\n[succeeded, 14 credits]\n")
