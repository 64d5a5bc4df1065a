"""`herder run --stream` over a herder in memory: what stands on standard output in the end, pipe or terminal."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_herder import Event, Herder, Job, Restarted, Result, Tokens, _sync
from llama_herder.cli import app, output, session, stream
from tests.unit.stream_script import DONE, FAILED, JOB, LOG, Frame, Script, problem

ANSWER = DONE["result"]["text"]  # type: ignore[index]
COMMAND = ["run", "hi", "--tokens", "40", "--stream"]


@dataclass
class Ran:
    """What a command left."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


class Glass(io.StringIO):
    """A terminal, as far as a command can tell."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command over a log, in a pipe or on a terminal."""

    def answer(script: Script, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/account":
            return httpx.Response(200, json={"id": "ann", "available": 7})
        if request.method == "DELETE":
            return httpx.Response(200, json={"id": JOB, "status": "cancelled", "fee": 50, "refunded": 50})
        if request.method == "POST":
            warned = {"id": JOB, "status": "queued", "fee": 50, "warning": "mind the gap"}
            return httpx.Response(202, json=warned)
        return script(request)

    def ran(log: list[Frame], *more: str, terminal: bool = False, script: Script | None = None) -> Ran:
        script = script or Script(log=log)
        transport = httpx.MockTransport(lambda request: answer(script, request))
        monkeypatch.setattr(session, "client", lambda url, key: Herder(transport=transport, tries=3))
        monkeypatch.setattr(_sync, "_sleep", lambda seconds: None)
        glass = Glass()
        with monkeypatch.context() as patch:
            if terminal:
                patch.setattr(sys, "stdout", glass)
            code = app.execute([*COMMAND, *more])
        shown = capsys.readouterr()
        return Ran(code, glass.getvalue() if terminal else shown.out, shown.err)

    return ran


def tokens(*texts: str) -> list[Frame]:
    return [(f"{50 + n}-0", "tokens", {"attempt": 1, "text": text}) for n, text in enumerate(texts)]


def ends(text: str, **more: Any) -> Frame:
    return ("90-0", "done", {"id": JOB, "status": "succeeded", "fee": 50, "result": {"text": text}, **more})


AGAIN: Frame = ("59-0", "restarted", {"attempt": 2})


def later(frames: list[Frame]) -> list[Frame]:
    return [(f"6{(event_id or '')[1:]}", event, found) for event_id, event, found in frames]


def test_an_answer_as_it_comes(run: Run) -> None:
    ran = run([*LOG[:2], *tokens("What ♥", " is\n", "this"), ends(ANSWER)])
    assert (ran.code, ran.out) == (0, f"{ANSWER}\n")
    assert ran.err == "warning: mind the gap\nfee 50 · balance 7\n"


def test_an_answer_with_a_line_end_has_one(run: Run) -> None:
    assert run([*tokens("a\n"), ends("a\n")]).out == "a\n"
    assert run([ends("")]).out == "\n"


def test_what_the_events_left_out_is_added(run: Run) -> None:
    assert run([*tokens("ab"), ends("abc")]).out == "abc\n"


def test_each_piece_is_out_before_the_next_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(raw), "utf-8"))
    shown = stream.shown_as(False)
    shown.event(Tokens("a"))
    assert raw.getvalue() == b"a"
    shown.event(Tokens("♥"))
    assert raw.getvalue() == "a♥".encode()


def test_in_a_pipe_an_answer_that_starts_again_goes_on_where_it_says_the_same(run: Run) -> None:
    ran = run([*tokens("What", " is"), AGAIN, *later(tokens("W", "hat is", " it")), ends("What is it")])
    assert (ran.code, ran.out) == (0, "What is it\n")
    assert "a worker died; the answer starts again" in ran.err


@pytest.mark.parametrize("second", [["Who"], ["Wha"], ["What a day"]])
def test_in_a_pipe_an_answer_that_turns_out_otherwise_fails(run: Run, second: list[str]) -> None:
    ran = run([*tokens("What", " is"), AGAIN, *later(tokens(*second)), ends("".join(second))])
    assert (ran.code, ran.out) == (1, "What is")
    assert ran.err.splitlines()[-1] == (
        "error: a worker died, and the answer that was begun here ended differently; it is paid for, and "
        f"`herder jobs {JOB}` reads it"
    )


def test_on_a_terminal_an_answer_that_starts_again_is_shown_again(run: Run) -> None:
    ran = run([*tokens("What", " is"), AGAIN, *later(tokens("Wh", "o")), ends("Who")], terminal=True)
    assert (ran.code, ran.out) == (0, "What is\nWho\n")
    assert "a worker died; the answer starts again" in ran.err
    assert "starts again" not in run([AGAIN, *later(tokens("Who")), ends("Who")]).err


def test_a_terminal_gets_no_control_characters(run: Run) -> None:
    assert run([*tokens("a\x1b", "[31m"), ends("a\x1b[31m")], terminal=True).out == "a[31m\n"
    assert run([*tokens("a\x1b", "[31m"), ends("a\x1b[31m")]).out == "a\x1b[31m\n"


PIECES = st.lists(st.text("ab\n", max_size=3), max_size=6)


@given(PIECES, PIECES)
def test_a_pipe_holds_the_answer_or_the_command_fails(first: list[str], second: list[str]) -> None:
    written, text = io.StringIO(), "".join(second)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", written)
        shown = stream.Text()
        events: list[Event] = [*map(Tokens, first), Restarted(2), *map(Tokens, second)]
        for event in events:
            shown.event(event)
        try:
            shown.ended(Job(JOB, "succeeded", result=Result(text)), None)
        except output.CannotWrite:
            assert not text.startswith("".join(first))
            return
    assert written.getvalue() == (text if text.endswith("\n") else text + "\n")


def test_a_job_that_fails(run: Run) -> None:
    ran = run([*tokens("What"), ("90-0", "error", FAILED)])
    assert (ran.code, ran.out) == (1, "What\n")
    assert ran.err.splitlines()[-1] == "error: job_1 failed: it broke; 50 credits were refunded"
    assert run([*tokens("What"), ("90-0", "error", FAILED)], terminal=True).out == "What\n"


def test_a_job_that_was_cancelled_shows_what_there_was(run: Run) -> None:
    ran = run([*tokens("What"), ends("What i", status="cancelled")])
    assert (ran.code, ran.out) == (1, "What i\n")
    assert ran.err.splitlines()[-1].startswith("error: job_1 was cancelled")


def test_each_event_is_a_line_of_json(run: Run) -> None:
    for terminal in (False, True):
        ran = run(LOG, "--json", terminal=terminal)
        assert ran.code == 0
        lines = [json.loads(line) for line in ran.out.splitlines()]
        told = [{"event": kind, "id": event_id, **found} for event_id, kind, found in LOG[:-1]]
        assert lines == [*told, {"event": "done", "job": {**DONE, "balance": 7}}]
    ran = run([("90-0", "error", FAILED)], "--json")
    assert ran.code == 1
    assert json.loads(ran.out) == {
        "event": "error",
        "error": FAILED["error"],
        "job": {**FAILED, "balance": 7},
    }


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("text", ["What", "What\n"])
def test_what_is_said_of_an_answer_that_broke_off_has_a_line_of_its_own(
    run: Run, terminal: bool, text: str
) -> None:
    script = Script(log=[*LOG[:2], *tokens(text)])
    script.faults = [script.whole, problem(404, "not_found")]
    ran = run([], terminal=terminal, script=script)
    assert (ran.code, ran.out) == (5, "What\n")
    assert ran.err.splitlines()[-1].startswith("error: it is not_found")


def test_a_time_that_is_over_leaves_the_job_alive(run: Run) -> None:
    ran = run(LOG, "--timeout", "0", "--json")
    assert ran.code == 6
    assert json.loads(ran.out)["error"]["code"] == "wait_timeout"
    late = "job_1 has not ended after 0 s; it lives on: `herder jobs job_1` fetches it, `herder cancel job_1` ends it"
    assert ran.err.splitlines()[-1] == f"error: {late}"


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_ctrl_c_cancels(run: Run, more: list[str]) -> None:
    def interrupt(request: httpx.Request) -> httpx.Response:
        raise KeyboardInterrupt

    script = Script()
    script.faults = [script.cut(250), interrupt]
    ran = run([], *more, script=script)
    assert ran.code == 130
    assert ran.err.splitlines()[-1] == "cancelled job_1 · fee 50 · refunded 50 · balance 7"
    if more:
        last = json.loads(ran.out.splitlines()[-1])
        assert (last["event"], last["job"]["status"]) == ("done", "cancelled")


def test_the_place_in_line_is_told_on_a_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    places: list[str] = []

    @contextmanager
    def progress() -> Iterator[Callable[[Job], None]]:
        yield lambda job: places.append(output.state_of(job))
        places.append("gone")

    monkeypatch.setattr(output, "progress", progress)
    monkeypatch.setattr(output, "print_piece", places.append)
    assert run([*LOG[:2], *tokens("What"), ends("What")]).code == 0
    assert places == ["queued, 1 ahead", "running", "gone", "What", "\n"]
