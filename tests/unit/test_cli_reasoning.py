"""`herder run --reasoning`: what the model thinks goes to standard error, and the answer alone to standard output."""

from __future__ import annotations

import pytest

from llama_herder import Job, Restarted, Tokens
from llama_herder.answers import Result
from llama_herder.cli import stream

JOB = Job(id="job_x", status="succeeded", result=Result(text="4\n", reasoning="two\nand two"))
EVENTS = [Tokens(reasoning="two\nan"), Tokens(reasoning="d two", text="4"), Tokens(text="\n")]


@pytest.mark.parametrize(("reasoning", "told"), [(True, "two\nand two\n"), (False, "")])
def test_thoughts_are_beside_the_answer(
    capsys: pytest.CaptureFixture[str], reasoning: bool, told: str
) -> None:
    shown = stream.shown_as(False, reasoning)
    for event in EVENTS:
        shown.event(event)
    shown.ended(JOB, None)
    assert tuple(capsys.readouterr()) == ("4\n", told)


def test_an_answer_of_thoughts_alone_is_told_to_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    shown = stream.shown_as(False, True)
    shown.event(Tokens(reasoning="hm"))
    shown.event(Restarted())
    shown.event(Tokens(reasoning="hm\x1b[2J"))
    shown.ended(Job(id="job_x", status="succeeded", result=Result(reasoning="hm")), None)
    out, err = capsys.readouterr()
    assert out == "\n"
    assert "\x1b" not in err
    assert err.count("hm") == 2
