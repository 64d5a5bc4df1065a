"""Answers in the shapes of Ollama's API: one object, or a line of JSON for each piece. Pure."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from herder.api.frames import place_of
from herder.api.shapes import Result
from herder.choices import told_of
from herder.dialects.attended import result_of
from herder.dialects.chunks import Chunks
from herder.dialects.ollama_asking import Asked
from herder.dialects.openai_calls import Call, CallsApart, calls_in
from herder.errors import HerderError
from herder.protocol import Event, EventKind, FinishReason, JobRecord

NS_PER_MS = 1_000_000


def at(ms: int) -> str:
    """A moment, as their clients read it."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def line(shown: dict[str, Any]) -> bytes:
    """One line of ASCII."""
    return json.dumps(shown, separators=(",", ":")).encode() + b"\n"


class Manner:
    """How an answer is told on one of the two routes: `chat` or not, and with which tools. It names the model as it was
    asked for; `model` is what it has here."""

    def __init__(self, body: Asked, model: str, *, chat: bool, names: tuple[str, ...] = ()) -> None:
        self.body, self.chat, self.names = body, chat, names
        self.model, self.named = model, body.model or model

    def said(self, text: str, thinking: str = "", calls: list[Call] | None = None) -> dict[str, Any]:
        """Some of the answer, or all."""
        thought = {"thinking": thinking} if thinking and self.body.think is not False else {}
        if not self.chat:
            return {"response": text, **thought}
        message: dict[str, Any] = {"role": "assistant", "content": text, **thought}
        if calls:
            message["tool_calls"] = [
                {"function": {"name": call.name, "arguments": json.loads(call.arguments)}} for call in calls
            ]
        return {"message": message}

    def head(self, ms: int) -> dict[str, Any]:
        """What every line begins with."""
        return {"model": self.named, "created_at": at(ms)}


def loaded(now_ms: int, manner: Manner) -> dict[str, Any]:
    """What a request without a prompt is answered, which is there to have a model loaded."""
    return manner.head(now_ms) | manner.said("") | {"done": True, "done_reason": "load"}


def answer(record: JobRecord, first_ms: int | None, manner: Manner) -> dict[str, Any]:
    """The whole answer, whose first token came at `first_ms`."""
    result = result_of(record)
    text, calls = calls_in(result.text, manner.names)
    shown = manner.head(record.ended_ms or 0) | manner.said(text, result.reasoning or "", calls)
    if result.logprobs is not None:
        shown["logprobs"] = [_chances(token) for token in result.logprobs]
    return shown | _ending(record, result, first_ms)


def _ending(record: JobRecord, result: Result, first_ms: int | None) -> dict[str, Any]:
    submitted, ended = record.submitted_ms, record.ended_ms or record.submitted_ms
    started = record.started_ms or submitted
    first = first_ms or started
    spans = {
        "total_duration": ended - submitted,
        "load_duration": started - submitted,  # waiting for its turn, where there a model is loaded
        "prompt_eval_duration": first - started,
        "eval_duration": ended - first,
    }
    return {
        "done": True,
        "done_reason": "length" if result.finish_reason is FinishReason.LENGTH else "stop",
        "prompt_eval_count": result.prompt_tokens,
        "eval_count": result.completion_tokens,
    } | {name: max(ms, 0) * NS_PER_MS for name, ms in spans.items()}


def _chances(token: Any) -> dict[str, Any]:
    return {
        "token": token["text"],
        "logprob": token["logprob"],
        "top_logprobs": [{"token": top["text"], "logprob": top["logprob"]} for top in token["top"]],
    }


def first_token_ms(events: list[Event], attempt: int) -> int | None:
    """When the first piece of this attempt's answer came, if that is among these events."""
    for event in events:
        if event.kind is EventKind.TOKENS and int(event.fields["attempt"]) == attempt:
            return place_of(event.event_id)[0]
    return None


class Lines(Chunks):
    """An answer, a line a piece; nothing is sent in between. Calls of tools are told whole."""

    ping = b""

    def __init__(self, record: JobRecord, manner: Manner) -> None:
        super().__init__()
        self._manner = manner
        self._apart = CallsApart(manner.names)
        self._now_ms = record.submitted_ms
        self._first_ms: int | None = None
        self._chances: list[dict[str, Any]] = []

    def begun(self, kind: EventKind, attempt: int, event_id: str) -> bytes:
        """An attempt."""
        self._first_ms = None
        return super().begun(kind, attempt, event_id)

    def tokens(self, event_id: str, fields: dict[str, str], reasoning: str = "") -> bytes:
        """A piece."""
        self._now_ms = place_of(event_id)[0]
        self._first_ms = self._first_ms or self._now_ms
        if not self._again:
            self._chances += [_chances(token) for token in told_of(fields.get("logprobs", "[]"))]
        return super().tokens(event_id, fields, reasoning)

    def piece(self, choice: int, text: str, reasoning: str, count: int) -> bytes:
        """New text, or new thoughts."""
        told = self._apart.feed(text) if text else ""
        return (
            self._line(told, reasoning)
            if told or (reasoning and self._manner.body.think is not False)
            else b""
        )

    def _line(self, text: str, thinking: str = "", calls: list[Call] | None = None) -> bytes:
        shown = self._manner.head(self._now_ms) | self._manner.said(text, thinking, calls)
        if self._chances:
            shown["logprobs"], self._chances = self._chances, []
        return line(shown | {"done": False})

    def end(self, record: JobRecord) -> bytes:
        """What was held back, the calls, and what it took."""
        text, calls = self._apart.end()
        said = self._line(text, calls=calls) if text or calls else b""
        self._now_ms = record.ended_ms or self._now_ms
        shown = self._manner.head(self._now_ms) | self._manner.said("")
        return said + line(shown | _ending(record, result_of(record), self._first_ms))

    def broken(self, error: HerderError) -> bytes:
        """A line that is an error."""
        return line({"error": error.detail})
