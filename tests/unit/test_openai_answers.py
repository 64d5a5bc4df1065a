"""OpenAI's answers, whole and in pieces."""

from __future__ import annotations

import json
from typing import Any

from herder.choices import Choice, TokenChances, logprobs_text
from herder.dialects.openai_answers import (
    ChatChunks,
    CompletionChunks,
    Manner,
    chat_answer,
    completion_answer,
)
from herder.errors import Overloaded
from herder.lifecycle import Status
from herder.protocol import Event, EventKind, FinishReason, JobRecord

NAMES = ("weather", "now")
CALL = '{"name": "weather", "arguments": {"city": "Rome"}}'


def _record(*texts: str, marks: str | None = None, reason: str = "stop", **more: Any) -> JobRecord:
    choices = tuple(Choice(text, reason, 3) for text in texts)
    return JobRecord(
        job_id="job_abc", account="alice", model="toy", status=Status.SUCCEEDED, tokens=9, base=9, fee=9,
        multiplier_milli=1000, attempt=1, submitted_ms=1_795_251_615_198, started_ms=1, ended_ms=2,
        cancel_requested=False, captured=9, refunded=0, text=texts[0], finish_reason=FinishReason(reason),
        prompt_tokens=5, completion_tokens=3 * len(texts), cached_tokens=2, error_code=None, error_message=None,
        metadata={}, n=len(texts), choices=choices, marks=marks, **more,
    )  # fmt: skip


def _told(chunks: CompletionChunks, record: JobRecord, pieces: list[tuple[int, str]]) -> list[Any]:
    """What a stream of these pieces says, event by event."""
    said = chunks.opening
    for choice, text in pieces:
        said += chunks.tokens("1-1", {"choice": str(choice), "text": text, "count": "1"})
    said += chunks.last(Event("2-1", EventKind.DONE, {}), record)
    lines = said.decode().split("\n\n")
    assert lines.pop() == ""
    assert all(line.startswith("data: ") for line in lines)
    return [json.loads(line[6:]) if line != "data: [DONE]" else None for line in lines]


def test_a_chat_whole_and_in_pieces() -> None:
    record = _record("Bl\u2028ue.", CALL, reason="length")
    manner = Manner("priority", NAMES, usage=True)
    whole = chat_answer(record, manner)
    assert (whole["object"], whole["created"], whole["service_tier"]) == (
        "chat.completion", 1_795_251_615, "priority",
    )  # fmt: skip
    assert whole["usage"] == {
        "prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11, "prompt_tokens_details": {"cached_tokens": 2},
    }  # fmt: skip
    first, second = whole["choices"]
    assert (first["message"]["content"], first["finish_reason"]) == ("Bl\u2028ue.", "length")
    assert "tool_calls" not in first["message"]
    assert (second["message"]["content"], second["finish_reason"]) == (None, "tool_calls")
    *events, done = _told(
        ChatChunks(record, manner), record, [(0, "Bl"), (1, CALL[:9]), (0, "\u2028ue."), (1, CALL[9:])]
    )
    assert done is None
    assert {event["id"] for event in events} == {whole["id"]}
    deltas = [(c["index"], c["delta"]) for event in events for c in event["choices"]]
    assert deltas[:2] == [(i, {"role": "assistant", "content": ""}) for i in (0, 1)]
    assert sum("role" in delta for _, delta in deltas) == 2
    assert "".join(delta.get("content", "") for i, delta in deltas if i == 0) == "Bl\u2028ue."
    (call,) = [delta["tool_calls"][0] for _, delta in deltas if "tool_calls" in delta]
    assert call == {"index": 0, **second["message"]["tool_calls"][0]}
    assert len(call["id"]) == 9
    ends = [c["finish_reason"] for event in events for c in event["choices"] if c["finish_reason"]]
    assert ends == ["length", "tool_calls"]
    assert (events[-1]["choices"], events[-1]["usage"]) == ([], whole["usage"])
    assert all(event["usage"] is None for event in events[:-1])


def test_reasoning_is_told_apart() -> None:
    record = _record("<think>hm</think>Blue.", marks="think")
    message = chat_answer(record, Manner())["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("Blue.", "hm")
    chunks = ChatChunks(record, Manner())
    said = chunks.piece(0, "", "hm", 1) + chunks.piece(0, "Blue.", "", 1)
    deltas = [json.loads(line[6:])["choices"][0]["delta"] for line in said.decode().split("\n\n")[:-1]]
    assert deltas == [{"reasoning_content": "hm"}, {"content": "Blue."}]


def test_log_probabilities_in_both_shapes() -> None:
    top: list[Any] = [
        {"token": 1, "text": "Bl", "logprob": -0.5},
        {"token": 2, "text": "\ufffd", "logprob": -2.0},
    ]
    entries: list[TokenChances] = [
        {"token": 1, "text": "Bl", "logprob": -0.5, "top": top},
        {"token": 3, "text": "ue", "logprob": -0.1, "top": []},
    ]
    record = _record("Blue", logprobs=logprobs_text([entries]))
    older = completion_answer([record], [Manner()])["choices"][0]["logprobs"]
    assert older == {
        "tokens": ["Bl", "ue"], "token_logprobs": [-0.5, -0.1], "text_offset": [0, 2],
        "top_logprobs": [{"Bl": -0.5, "\ufffd": -2.0}, {}],
    }  # fmt: skip
    newer = chat_answer(record, Manner())["choices"][0]["logprobs"]
    assert newer["content"][0]["bytes"] == [66, 108]
    assert newer["content"][0]["top_logprobs"][1] == {"token": "\ufffd", "logprob": -2.0, "bytes": None}
    *events, end, done = _told(ChatChunks(record, Manner()), record, [(0, "Blue")])
    assert (end["choices"][0]["logprobs"], done) == (newer, None)
    assert all(event["choices"][0]["logprobs"] is None for event in events)


def test_a_completion_repeats_its_prompt_only_where_that_was_asked_for() -> None:
    record = _record("ue.", "ack.")
    whole = completion_answer([record], [Manner(echo="Bl")])
    assert [choice["text"] for choice in whole["choices"]] == ["Blue.", "Black."]
    pieces = [(0, "ue"), (1, "ack."), (0, ".")]
    for echo in ("", "Bl"):
        *events, done = _told(CompletionChunks(record, Manner(echo=echo)), record, pieces)
        said = [""] * 2
        for event in events:
            for choice in event["choices"]:
                said[choice["index"]] += choice["text"]
        assert (said, done) == ([f"{echo}ue.", f"{echo}ack."], None)


def test_an_error_in_the_middle_is_one_that_their_client_raises() -> None:
    said = ChatChunks(_record("a"), Manner()).broken(Overloaded("gone"))
    assert json.loads(said[6:])["error"] == {
        "message": "gone", "type": "overloaded_error", "param": None, "code": "overloaded",
    }  # fmt: skip
