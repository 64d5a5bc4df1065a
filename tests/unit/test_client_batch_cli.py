"""`herder batch` over a herder in memory: what it asks, what it writes, what it refuses before anything is sent."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import httpx
import pytest

from llama_herder.cli import batch_progress
from llama_herder.cli.batch_files import Answers, Tally
from llama_herder.cli.batch_progress import Pace
from tests.unit.batch_desk import ITEMS, OUT, RUN, STATE, Desk, seated, whole
from tests.unit.stream_script import problem


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    return seated(tmp_path, monkeypatch, capsys)


# --- all goes well ---------------------------------------------------------------------------------------


def test_a_file_of_prompts_becomes_a_file_of_answers(desk: Desk) -> None:
    desk.script.order = [2, 0, 1]
    assert desk(*RUN, "--multiplier", "1.5", "--stop", "a", "--as-many-as-affordable") == (
        0,
        "",
        "batch_1 · prompts 3 · fee 30\nsucceeded 3 · captured 18 · refunded 12\n",
    )
    assert OUT.read_bytes() == whole(desk.script)
    assert sorted(path.name for path in Path().iterdir()) == ["in.jsonl", "out.jsonl"]
    assert desk.script.items[1] == {"prompt": "zwei ♥", "custom_id": "b"}
    assert desk.script.options == {
        "tokens": "40",
        "multiplier": "1.5",
        "stop": "a",
        "charge": "as_many_as_affordable",
    }
    (request,) = [request for request in desk.script.seen if request.method == "POST"]
    assert request.content.split(b"\n")[2] == '{"prompt": "zwei ♥", "custom_id": "b"}'.encode()


@pytest.mark.parametrize("content", [b"one\n\ntwo  \r\n", b"\xef\xbb\xbfone\n\ntwo  ", b"one\r\n\r\ntwo  "])
def test_plain_text_is_one_prompt_a_line(desk: Desk, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert desk("batch", "-", "--text", "--tokens", "4", "-o", "out.jsonl", "--quiet") == (0, "", "")
    assert desk.script.items == [{"prompt": "one"}, {"prompt": "two  "}]
    assert next(iter(desk.script.paid.values())).split(b"\n")[1] == b""


def test_items_without_an_answer_are_an_exit_code(desk: Desk) -> None:
    desk.script.statuses = {1: "failed", 2: "cancelled"}
    code, out, err = desk()
    assert (code, out) == (1, "")
    assert err.endswith("succeeded 1 · failed 1 · cancelled 1 · captured 6 · refunded 24\n")
    assert json.loads(OUT.read_bytes().splitlines()[1])["error"] == {
        "code": "engine_error",
        "message": "it broke",
    }


def test_refused_items_are_one_too(desk: Desk) -> None:
    desk.script.refused = 1
    code, _, err = desk(*RUN, "--as-many-as-affordable")
    assert code == 1
    assert "prompts 2 · refused 1 · fee 20" in err
    assert "succeeded 2 · refused 1" in err


def test_json_for_scripts(desk: Desk) -> None:
    code, out, err = desk(*RUN, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["counts"]["succeeded"] == 3


# --- what is wrong before anything is sent ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "in.jsonl has no prompts"),
        (b"\n \n", "in.jsonl has no prompts"),
        (b'{"prompt": "x"}\n{"prompt"', "in.jsonl, line 2: this is not JSON (is it plain text? --text"),
        (b"\n[]", "line 2: not a JSON object"),
        (b'{"promt": "x"}', "line 1: prompt or messages is missing"),
        (b'{"prompt": "x", "tokens": 0}', "line 1: tokens must be a whole number"),
        (b'{"prompt": "x", "tokens": true}', "line 1: tokens must be a whole number"),
        (
            b'{"prompt": "x", "custom_id": "a"}\n\n{"prompt": "y", "custom_id": "a"}',
            "line 3: custom_id is the same as in line 1",
        ),
        (
            b"x\ny\nz\nu\nv",
            "line 3: this is not JSON (is it plain text? --text takes a prompt a line) (and 2 more)",
        ),
        (b'{"prompt": "x"}\n\xff', "line 2: this is not UTF-8 text"),
        (b"[" * 100_000, "line 1: this is not JSON"),
        (b'{"prompt": "x", "multiplier": NaN}', "line 1: multiplier must be a finite number, not nan"),
    ],
)
def test_an_input_that_cannot_be_right_names_its_lines(desk: Desk, content: bytes, words: str) -> None:
    Path("in.jsonl").write_bytes(content)
    code, _, err = desk()
    assert code == 2
    assert words in err
    assert err.count("\n") == 1
    assert (desk.script.seen, OUT.exists(), STATE.exists()) == ([], False, False)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["batch", "in.jsonl", "-o", "out.jsonl"],
            "line 1: it has no tokens of its own, so --tokens is needed",
        ),
        (["batch", "in.jsonl", "--text", "-o", "out.jsonl"], "--tokens is needed"),
        (
            ["batch", "in.jsonl", "--tokens", "4", "--multiplier", "inf", "-o", "out"],
            "error: multiplier must be a finite number, not inf; nothing was sent",
        ),
        (["batch", "in.jsonl", "--tokens", "4", "-o", "-"], "-o needs a file of its own"),
        (["batch", "in.jsonl", "--tokens", "4", "-o", "./in.jsonl", "--force"], "-o needs a file of its own"),
        (["batch", "in.jsonl", "--tokens", "4", "-o", "."], "is not a file"),
        (["batch", "in.jsonl", "--tokens", "4", "-o", "no/out"], "cannot write 'no/out': no such file"),
        (["batch", "nowhere", "--tokens", "4", "-o", "out"], "cannot read 'nowhere': no such file"),
    ],
)
def test_a_wrong_command_costs_nothing(desk: Desk, arguments: list[str], words: str) -> None:
    code, _, err = desk(*arguments)
    assert code == 2
    assert words in err
    assert desk.script.seen == []
    assert Path("in.jsonl").read_bytes() == ITEMS


def test_answers_of_something_else_are_not_lost(desk: Desk) -> None:
    OUT.write_text("mine\n")
    code, _, err = desk()
    assert code == 2
    assert "belongs to no unfinished batch" in err
    assert OUT.read_text() == "mine\n"
    assert desk.script.paid == {}
    desk.script.faults = [desk.script.whole, problem(402, "insufficient_funds")]
    assert desk(*RUN, "--force")[0] == 4
    assert OUT.read_text() == "mine\n"
    assert desk(*RUN, "--force")[0] == 0
    assert OUT.read_bytes() == whole(desk.script)


def test_a_file_that_another_command_writes_is_left_alone(desk: Desk) -> None:
    held = Answers(OUT)
    try:
        assert "another herder batch is writing out.jsonl" in desk()[2]
    finally:
        held.close()
    assert desk()[0] == 0


# --- how far it is ---------------------------------------------------------------------------------------


def test_how_far_it_is_in_a_line() -> None:
    now = 0.0
    before = Tally(done=1, tokens=10, captured=6)
    pace = Pace(1200, before, lambda: now)
    assert pace.line(before) == "1/1 200 · 0 tokens/s · spent 6"
    now = 10.0
    assert pace.line(Tally(done=3, tokens=50, captured=20)) == "3/1 200 · 4 tokens/s · spent 20"
    assert pace.line(Tally(done=11, tokens=50, captured=20)) == "11/1 200 · 4 tokens/s · spent 20 · ETA 19:49"
    assert pace.line(Tally(done=1200, tokens=50, captured=20)) == "1 200/1 200 · 4 tokens/s · spent 20"


def test_the_first_to_end_say_nothing_of_the_rest() -> None:
    now = 0.0
    pace = Pace(1000, Tally(), lambda: now, eta_ms=60_000)
    few = Pace(4, Tally(), lambda: now)
    assert pace.line(Tally()).endswith("ETA 1:00")
    now = 4.0
    assert pace.line(Tally(done=20)).endswith("ETA 0:56")
    assert few.line(Tally(done=2)).endswith("spent 0")
    now = 6.0
    assert pace.line(Tally(done=9)).endswith("ETA 0:54")
    assert few.line(Tally(done=1)).endswith("ETA 0:18")
    now = 61.0
    assert pace.line(Tally(done=9)).endswith("spent 0")


def test_a_terminal_gets_a_bar_and_a_script_a_line_now_and_then(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    with monkeypatch.context() as patch:
        screen = Screen()
        patch.setattr(sys, "stderr", screen)
        desk()
    assert "3/3 · " in screen.getvalue()
    assert "━" in screen.getvalue()
    monkeypatch.setattr(batch_progress, "LINE_EVERY_S", 0.0)
    _, _, err = desk(*RUN, "--force")
    lines = err.splitlines()
    assert [row.split()[0] for row in lines] == ["batch_1", "1/3", "2/3", "3/3", "succeeded"]
    assert desk(*RUN, "--force", "--quiet") == (0, "", "")


# --- batches, and the rest -------------------------------------------------------------------------------


def test_looking_at_batches_and_cancelling_one(desk: Desk) -> None:
    desk()
    one = json.loads(desk("batches", "batch_1", "--json")[1])
    assert one["id"] == "batch_1"
    code, out, _ = desk("batches", "batch_1")
    assert code == 0
    assert "succeeded    3" in out
    listed = {"batches": [one, one], "next": "7"}
    desk.script.faults = [lambda request: httpx.Response(200, json=listed)] * 2
    code, out, err = desk("batches", "--limit", "2")
    assert (code, out.count("batch_1")) == (0, 2)
    assert err == "more: herder batches --limit 2 --cursor 7\n"
    assert json.loads(desk("batches", "--json")[1]) == listed
    assert not desk.script.cancelled
    assert desk("cancel", "batch_1")[0] == 0
    assert desk.script.cancelled
