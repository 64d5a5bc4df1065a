"""`herder run --reasoning`: what the model thinks goes to standard error, and the answer alone to standard output."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from llama_herder import Herder, Job, Restarted, Tokens
from llama_herder.answers import Choice, Result
from llama_herder.cli import app, session, stream

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


@pytest.mark.parametrize(
    ("result", "shown", "said"),
    [
        (
            {"finish_reason": "length"},
            False,
            "all 10 tokens were reasoning: more --tokens or --reasoning to see it",
        ),
        ({"finish_reason": "length"}, True, "all 10 tokens were reasoning: more --tokens"),
        (
            {"finish_reason": "stop", "text": "\n"},
            False,
            "all 10 tokens were reasoning: --reasoning to see it",
        ),
        ({"finish_reason": "stop"}, True, "all 10 tokens were reasoning"),
        ({"text": "4"}, False, ""),
        ({"choices": (Choice(), Choice(text="4"))}, False, ""),
        ({"reasoning": None}, False, ""),
    ],
)
def test_who_pays_for_thoughts_alone_is_told(result: dict[str, Any], shown: bool, said: str) -> None:
    made = Result(**{"reasoning": "hm", "completion_tokens": 10, **result})
    assert stream.without_answer(Job(id="job_x", status="succeeded", result=made), shown) == said
    assert not stream.without_answer(Job(id="job_x", status="failed", result=made), shown)


@pytest.mark.parametrize("flags", [[], ["--stream"], ["--json"]])
def test_it_is_a_line_on_standard_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    job = {"id": "job_x", "status": "succeeded", "fee": 10, "captured": 10, "refunded": 0}
    job |= {"result": {"text": "", "reasoning": "hm", "finish_reason": "length", "completion_tokens": 10}}

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/account":
            return httpx.Response(200, json={"id": "ann", "available": 7})
        if request.url.path.endswith("/events"):
            frame = f"id: 1-0\nevent: done\ndata: {json.dumps(job)}\n\n"
            return httpx.Response(200, text=frame, headers={"Content-Type": "text/event-stream"})
        return httpx.Response(202, json=job)

    transport = httpx.MockTransport(answer)
    monkeypatch.setattr(session, "client", lambda url, key: Herder(transport=transport, tries=1))
    assert app.execute(["run", "hi", "--tokens", "10", *flags]) == 0
    hint = "all 10 tokens were reasoning: more --tokens or --reasoning to see it"
    assert (hint in capsys.readouterr().err.splitlines()) is ("--json" not in flags)


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
