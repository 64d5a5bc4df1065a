"""`herder chat` against a real herder: turns from a pipe, words with a slash, a terminal, Ctrl-C; completion."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from herder.protocol import Outcome, RenewReply
from tests.integration.client_herd import FUNDS, Herd, Terminal
from tests.integration.ring import CARD, MODEL, STATS

COMMAND = [sys.executable, "-m", "llama_herder.cli.main"]
LIMIT_S = 60
TEMPLATE = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"


@pytest.fixture
async def terminal(
    herd: Herd, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Terminal:
    await herd.ring.broker.register_worker("w1", replace(CARD, template=TEMPLATE), STATS, None)
    return Terminal(herd, monkeypatch, capsys)


async def answers(herd: Herd, *counts: int) -> list[str]:
    """Play the worker for so many jobs, with so many x each; what the model was to read."""
    read = []
    for count in counts:
        lease = await herd.lease()
        await herd.ring.settle(lease, count)
        read.append(lease.brief.prompt)
    return read


async def test_a_pipe_is_a_chat_that_remembers(herd: Herd, terminal: Terminal, tmp_path: Path) -> None:
    saved = tmp_path / "talk.json"
    said = f"one\n\n/bid 2\n/tokens 5\n//two\n/save {saved}\n/save {saved}\n/clear\nthree\n/quit\nfour\n"
    talk = terminal("chat", "--tokens", "10", "--system", "Brief.", stdin=said.encode())
    shown, (first, second, third) = await asyncio.gather(talk, answers(herd, 1, 2, 3))
    assert (shown.code, shown.out) == (0, "x\nxx\nxxx\n")
    assert shown.err.splitlines() == [
        "fee 20 · captured 11 · refunded 9 · balance 4 989",
        "bid: ×2 of the base fee",
        "at most 5 tokens an answer",
        "fee 30 (×2) · captured 24 · refunded 6 · balance 4 965",
        f"5 messages saved; herder chat --messages {saved} goes on from there",
        f"5 messages saved; herder chat --messages {saved} goes on from there",
        "a new chat; the system prompt stays",
        "fee 30 (×2) · captured 26 · refunded 4 · balance 4 939",
    ]
    assert [turn["content"] for turn in json.loads(saved.read_text())] == ["Brief.", "one", "x", "/two", "xx"]
    assert ("Brief." in first, "one" in second, "/two" in second) == (True, True, True)
    assert ("Brief." in third, "one" in third, "two" in third) == (True, False, False)
    again = terminal("chat", "--messages", str(saved), "--tokens", "10", "--fee", "50", stdin=b"five\n")
    shown, (read,) = await asyncio.gather(again, answers(herd, 1))
    assert (shown.code, shown.out) == (0, "x\n")
    assert all(word in read for word in ("Brief.", "one", "/two", "xx", "five"))


@pytest.mark.parametrize(
    ("said", "ends"),
    [
        ("/nope", (2, "error: there is no /nope: /help lists what there is")),
        ("/bid much", (2, "error: 'much' is no bid: 1.5 is times the base fee")),
        ("/bid nan", (2, "error: 'nan' is no bid: 1.5 is times the base fee")),
        ("/bid x1e999", (2, "error: 'x1e999' is no bid: 1.5 is times the base fee")),
        ("/bid fee x", (2, "error: 'x' is no whole number")),
        ("/tokens 0", (2, "error: an answer has 1 token at the least")),
        ("/save", (2, "error: /save needs the name of a file")),
        ("/save there.json", (2, "error: there.json is there already: take another name")),
        ("/save no/such/folder", (2, "error: cannot write 'no/such/folder': no such file or directory")),
        ("/bid 99999\nhi", (2, "error: multiplier")),
        ("/bid fee 1\nhi", (4, "error: ")),
    ],
)
async def test_what_cannot_be_done_is_one_line(
    herd: Herd, terminal: Terminal, tmp_path: Path, said: str, ends: tuple[int, str]
) -> None:
    terminal.monkeypatch.chdir(tmp_path)
    Path("there.json").write_text("mine")  # noqa: ASYNC240
    shown = await terminal("chat", stdin=said.encode())
    assert (shown.code, shown.out) == (ends[0], "")
    assert shown.err.splitlines()[-1].startswith(ends[1]), shown.err
    assert Path("there.json").read_text() == "mine"  # noqa: ASYNC240
    assert await herd.balance() == (FUNDS, 0)


async def test_a_pipe_with_other_than_text_is_one_line(herd: Herd, terminal: Terminal) -> None:
    shown = await terminal("chat", stdin=b"a\xff\n")
    assert (shown.code, shown.out) == (2, "")
    assert shown.err == "error: standard input is not UTF-8 text (byte 1 of a line)\n"
    terminal.monkeypatch.setattr("llama_herder.cli.chat.PROMPT_BYTES_MAX", 10)
    shown = await terminal("chat", stdin=b"a" * 11)
    assert (shown.code, shown.err.startswith("error: a line is longer than 10 bytes")) == (2, True)
    for arguments, why in ((["-"], "has no place here"), (["nope.json"], "cannot read 'nope.json'")):
        shown = await terminal("chat", "--messages", *arguments)
        assert (shown.code, why in shown.err) == (2, True)


class Screen:
    """`herder chat` in a terminal of its own."""

    def __init__(self) -> None:
        self._master, self._slave = pty.openpty()
        self._text = ""
        self._child: asyncio.subprocess.Process | None = None

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        end = self._slave
        environment = os.environ | {"NO_COLOR": "1", "TERM": "dumb"}
        child = await asyncio.create_subprocess_exec(
            *COMMAND, *arguments, env=environment, stdin=end, stdout=end, stderr=end
        )
        os.close(end)
        self._child = child
        return child

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    async def until(self, text: str) -> str:
        """Everything up to this text. Where it does not come the program is ended, which ends the reading as well."""
        assert self._child is not None
        late = asyncio.get_running_loop().call_later(LIMIT_S, self._child.kill)
        try:
            while text not in self._text:
                self._text += (await asyncio.to_thread(os.read, self._master, 4096)).decode()
        except OSError as error:  # the other end is gone
            raise AssertionError(f"{text!r} did not come:\n{self._text}") from error
        finally:
            late.cancel()
        before, _, self._text = self._text.partition(text)
        return before + text

    def close(self) -> None:
        os.close(self._master)


def await_sleep(pid: int) -> None:
    """Until this process waits for something, as Linux tells; elsewhere at once. The test's own limit is the limit."""
    stat = Path(f"/proc/{pid}/stat")
    while stat.exists() and stat.read_text("ascii").rpartition(")")[2].split()[0] != "S":
        pass


async def test_a_terminal_streams_and_ctrl_c_stops_an_answer_not_the_chat(
    herd: Herd, terminal: Terminal
) -> None:
    screen = Screen()
    child = await screen.start("chat", "--tokens", "40")
    assert "toy at http://127.0.0.1:" in await screen.until("/help")
    await screen.until("> ")
    screen.type("/help\n")
    await screen.until("Ctrl-C stops an answer: what it has not used is refunded.")
    await screen.until("> ")
    screen.type("hello\n")
    lease = await herd.lease()
    await herd.ring.say(lease, "Hel", 0)
    await screen.until("Hel")
    child.send_signal(signal.SIGINT)
    held = [(lease.job_id, lease.attempt)]
    async with asyncio.timeout(LIMIT_S):
        while (await herd.ring.broker.renew("w1", MODEL, held, STATS))[lease.job_id] is not RenewReply.CANCEL:
            pass
    await herd.ring.settle(lease, 2, Outcome.CANCELLED)
    await screen.until("fee 50 · captured 12 · refunded 38")
    await screen.until("cancelled: that turn is not remembered")
    await screen.until("> ")
    screen.type("again \\\nand again\n")
    (read,) = await answers(herd, 1)
    assert "again \nand again" in read
    assert "hello" not in read
    await screen.until("captured 11")
    await screen.until("> ")
    screen.type("begun")
    await screen.until("begun")
    await_sleep(child.pid)  # a signal that comes just before readline waits is seen with the next key only
    child.send_signal(signal.SIGINT)
    await screen.until("Ctrl-D or /quit ends")
    await screen.until("> ")
    screen.type("\x04")
    async with asyncio.timeout(LIMIT_S):
        assert await child.wait() == 0
    screen.close()


async def test_an_error_ends_no_terminal(herd: Herd, terminal: Terminal) -> None:
    screen = Screen()
    child = await screen.start("chat", "--tokens", "9000")
    await screen.until("> ")
    screen.type("hello\n")
    await screen.until("error: ")
    await screen.until("> ")
    screen.type("/quit\n")
    async with asyncio.timeout(LIMIT_S):
        assert await child.wait() == 0
    screen.close()


async def test_the_shell_can_complete_commands_and_install_that(tmp_path: Path) -> None:
    # The shell is found out by the parents of a process, of which a test has others than a user.
    asis = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    environment = os.environ | {"HOME": str(tmp_path), "SHELL": "bash", "PYTHONPATH": "client"} | asis
    asked = {"COMP_WORDS": "herder ch", "COMP_CWORD": "1", "_HERDER_COMPLETE": "complete_bash"}
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(*COMMAND, env=environment | asked, stdout=pipe)
    assert (await child.communicate())[0].split() == [b"chat"]
    child = await asyncio.create_subprocess_exec(
        *COMMAND, "--install-completion", "bash", env=environment, stdout=pipe
    )
    assert b"completion installed" in (await child.communicate())[0]
    assert "_HERDER_COMPLETE" in (tmp_path / ".bash_completions" / "herder.sh").read_text()
