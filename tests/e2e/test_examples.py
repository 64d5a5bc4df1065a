"""Every example as it stands, in a process of its own, against a herd with the tiny model."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from llama_herder import Herder
from tests.e2e.herd import DEMO, ROOT, Up, clean_environment, herd

EXAMPLES = ROOT / "examples"
CHATBOT = "A chatbot is a computer program that talks with people in everyday language."
LLAMA = "A llama is a woolly animal from South America that carries loads and lives in herds."
LIMIT_S = 60
ALL = {
    "basics", "batch", "chatbot", "gradio_chat", "rag", "receive_webhooks", "room", "sentiment_agent", "stream",
}  # fmt: skip


@pytest.fixture(scope="module")
def hook_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def up(hook_port: int) -> Iterator[Up]:
    ports = f"80,443,{hook_port}"
    with herd(webhook_allow="127.0.0.0/8", webhook_ports=ports, rate_limit_per_minute=1_000_000) as running:
        yield running
        running.stop()


class Example:
    """One that runs, and the lines that it prints."""

    def __init__(self, up: Up, name: str, *arguments: str) -> None:
        environment = clean_environment() | {"HERDER_URL": up.url, "HERDER_API_KEY": up.keys[DEMO]}
        self._child = subprocess.Popen(
            [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments], env=environment, encoding="utf-8",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def line(self) -> str:
        """The next line of its standard output."""
        assert self._child.stdout is not None
        return self._child.stdout.readline().rstrip("\n")

    def complaint(self) -> str:
        """The next line of its standard error."""
        assert self._child.stderr is not None
        return self._child.stderr.readline().rstrip("\n")

    def type(self, text: str) -> None:
        """A line of its standard input."""
        assert self._child.stdin is not None
        self._child.stdin.write(text + "\n")
        self._child.stdin.flush()

    def stop(self) -> None:
        """Ctrl-C."""
        self._child.send_signal(signal.SIGINT)

    def ended(self) -> tuple[int, str, str]:
        """Its exit code, and the rest of what it printed."""
        out, err = self._child.communicate(timeout=LIMIT_S)
        return self._child.returncode, out, err

    def end(self) -> None:
        """By force, if need be."""
        if self._child.poll() is None:
            self._child.kill()
        self._child.communicate()


@contextmanager
def example(up: Up, name: str, *arguments: str) -> Iterator[Example]:
    running = Example(up, name, *arguments)
    try:
        yield running
    finally:
        running.end()


@contextmanager
def room(up: Up) -> Iterator[str]:
    with example(up, "room", "--port", "0") as running:
        yield running.line().removeprefix("the room is open: ")
        running.stop()
        assert running.ended() == (0, "", "")


def imported(name: str) -> Any:
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_no_example_is_left_out() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == ALL


def test_basics(up: Up) -> None:
    with example(up, "basics") as running:
        code, out, err = running.ended()
    assert (code, err) == (0, "[4 messages]\n")
    assert out.startswith("A chatbot is a computer program that")
    assert out.splitlines()[-4:] == [CHATBOT, LLAMA, CHATBOT, LLAMA]


def test_stream_and_batch(up: Up) -> None:
    with example(up, "stream", "What is a llama?") as running:
        code, out, err = running.ended()
    assert (code, out) == (0, LLAMA)
    assert err.splitlines()[-1].startswith("[succeeded, ")
    with example(up, "batch", "What is a chatbot?", "What is a llama?") as running:
        code, out, _ = running.ended()
    assert code == 0
    assert f"What is a chatbot?\n  {CHATBOT}\n" in out
    assert f"What is a llama?\n  {LLAMA}\n" in out


def test_a_bot_answers_in_a_room_until_it_is_sent_to_sleep(up: Up) -> None:
    with room(up) as url, example(up, "chatbot", url) as bot:
        port = url.rpartition(":")[2]
        with example(up, "room", "--join", "ann", "--port", port) as ann:
            assert ann.line().startswith("Llama: Hello! Say “Llama, …”")
            for said in ("this is not for the bot", "Llama, What is a chatbot?", "llama: go to sleep!"):
                ann.type(said)
            heard = [ann.line() for _ in range(5)]
            assert [line for line in heard if line.startswith("ann: ")] == [
                "ann: this is not for the bot", "ann: Llama, What is a chatbot?", "ann: llama: go to sleep!",
            ]  # fmt: skip
            answers = [line for line in heard if line.startswith("Llama: ")]
            assert len(answers) == 2
            assert len(answers[0]) > len("Llama: …")
            assert answers[1] == "Llama: Good night."
            assert bot.ended() == (0, "", "")


def test_a_bot_without_a_room_says_so_and_goes_on_looking(up: Up, hook_port: int) -> None:
    with example(up, "chatbot", f"ws://127.0.0.1:{hook_port}") as bot:
        assert bot.complaint().startswith("the room does not answer, trying again: ")
        with example(up, "room", "--port", str(hook_port)) as there:
            assert there.line() == f"the room is open: ws://127.0.0.1:{hook_port}"
            with example(up, "room", "--join", "ann", "--port", str(hook_port)) as ann:
                assert ann.line().startswith("Llama: Hello! ")


def test_an_agent_reads_a_room_and_trades_on_paper(up: Up, tmp_path: Path) -> None:
    book = tmp_path / "book.json"
    with room(up) as url, example(up, "room", "--join", "ann", "--port", url.rpartition(":")[2]) as ann:
        agent = ("sentiment_agent", url, "--book", str(book), "--every", "0", "--rounds")
        with example(up, *agent, "1") as running:
            assert running.ended() == (0, "nothing new · 0 tokens, 1000 cash, worth 1000, 0 trades\n", "")
        ann.type("I love this token, it is the best")
        assert ann.line() == "ann: I love this token, it is the best"
        with example(up, *agent, "2") as running:
            code, out, err = running.ended()
        assert (code, err) == (0, "")
        told, nothing = out.splitlines()
        assert nothing.startswith("nothing new · ")
        assert told.split(" ")[0] in {"positive", "neutral", "negative"}
        assert ann.line() == f"agent: {told}"
        kept = json.loads(book.read_text())
        assert kept["cash"] + 10 * kept["tokens"] == 1000
    with room(up) as url, example(up, "room", "--join", "ann", "--port", url.rpartition(":")[2]) as ann:
        ann.type("I hate this token")
        assert ann.line() == "ann: I hate this token"
        agent = ("sentiment_agent", url, "--book", str(book), "--every", "0", "--rounds")
        with example(up, *agent, "1") as running:
            assert not running.line().startswith("nothing new"), "of a room that was opened again"
        assert json.loads(book.read_text())["last_read"] > kept["last_read"]
        book.write_text("[]")
        with example(up, *agent, "1") as running:
            assert running.ended()[0] == 1


def test_the_agent_decides() -> None:
    sys.path.insert(0, str(EXAMPLES))
    try:
        agent = imported("sentiment_agent")
    finally:
        sys.path.remove(str(EXAMPLES))
    decided = [
        agent.decide({"sentiment": feeling, "confidence": sure})
        for feeling in ("positive", "neutral", "negative")
        for sure in ("low", "high")
    ]
    assert decided == ["hold", "buy", "hold", "hold", "hold", "sell"]
    book = agent.Book()
    assert book.after("sell") == book
    bought = book.after("buy")
    assert (bought.cash, bought.tokens, bought.worth()) == (950, 5, 1000)
    assert bought.after("sell").after("hold").cash == 1000
    assert agent.Book(cash=49).after("buy").tokens == 0


def test_questions_are_answered_from_cited_passages(up: Up, tmp_path: Path) -> None:
    with example(up, "rag", "How is a webhook signed, and what is its secret?") as running:
        code, out, err = running.ended()
    assert (code, err) == (0, "")
    answer, _, cited = out.partition("\n\n[1] ")
    assert answer.strip()
    assert (ROOT / "docs" / cited.partition(":")[0]).is_file()
    rag = imported("rag")
    best = rag.Search(rag.passages(ROOT / "docs")).best("How is a webhook signed?", 8)
    assert {"how-to/receive-webhooks.md", "reference/http-api.md"} & {found.path for found in best}
    (tmp_path / "meeting.md").write_text(
        "# Plans\n\nThe meeting is on Tuesday.\n\n# Food\n\nThere is soup.\n"
    )
    with example(up, "rag", "When is the meeting?", "--docs", str(tmp_path)) as running:
        code, out, _ = running.ended()
    assert (code, out.splitlines()[-1]) == (0, "[1] meeting.md:3 (Plans)")
    with example(up, "rag", "zzqq", "--docs", str(tmp_path)) as running:
        assert running.ended() == (
            1, "", "nothing there has a word of this question: nothing was asked, nothing was paid\n",
        )  # fmt: skip


def test_a_receiver_is_told_of_a_job(up: Up, hook_port: int) -> None:
    with up.client() as herder:
        url = f"http://127.0.0.1:{hook_port}/hook"
        secret = herder.webhooks.add(url).secret or ""
        with example(up, "receive_webhooks", "--port", str(hook_port), "--secret", secret) as running:
            assert running.line() == f"listening on http://127.0.0.1:{hook_port}"
            job = herder.submit("What is a llama?", tokens=40, webhook_url=url)
            assert running.line() == f"job.succeeded {job.id} {LLAMA[:60]!r}"
            running.stop()
            assert running.ended() == (0, "stopped\n", "")


def test_a_page_in_the_browser_streams_and_remembers(up: Up) -> None:
    page = imported("gradio_chat")
    with up.client() as herder:
        shown = list(page.respond(herder, "What is a chatbot?", [], temperature=0))
        assert shown[0] == ("", [turn("user", "What is a chatbot?"), turn("assistant", "")])
        assert len(shown) >= 3
        history = shown[-1][1]
        assert history == [turn("user", "What is a chatbot?"), turn("assistant", CHATBOT)]
        assert list(page.respond(herder, "  ", history)) == [("", history)]
        parts = [turn("user", [{"type": "text", "text": "What is a chatbot?"}]), history[1]]
        _, history = list(page.respond(herder, "What is a llama?", parts, "Be brief.", 0))[-1]
        assert [each["content"] for each in history[2:]] == ["What is a llama?", LLAMA]
        read = [m["content"] for m in page.turns(history)]
        assert read == ["What is a chatbot?", CHATBOT, "What is a llama?", LLAMA]
    with Herder(up.url, "hk_wrong") as stranger:
        _, history = list(page.respond(stranger, "hi", []))[-1]
    assert history[1]["metadata"] == {"title": "No answer"}
    assert "key" in history[1]["content"]
    assert page.turns(history) == []


def turn(role: str, content: object) -> dict[str, Any]:
    return {"role": role, "content": content}


def test_without_gradio_it_says_what_to_install(up: Up, tmp_path: Path) -> None:
    (tmp_path / "gradio.py").write_text("raise ModuleNotFoundError(name='gradio')\n")
    environment = clean_environment() | {"HERDER_URL": up.url, "HERDER_API_KEY": up.keys[DEMO]}
    environment["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{environment['PYTHONPATH']}"
    command = [sys.executable, str(EXAMPLES / "gradio_chat.py")]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert (done.returncode, done.stderr) == (1, "error: gradio is missing: pip install '.[ui]'\n")
