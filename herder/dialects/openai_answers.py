"""Answers in the shapes of OpenAI's API, whole or piece by piece, from a job that has ended or is under way. Pure."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from herder.api.info import installed_version
from herder.api.refusals import as_openai
from herder.api.shapes import Choice, Result
from herder.dialects.attended import result_of
from herder.dialects.chunks import Chunks
from herder.dialects.openai_calls import CallsApart, calls_in
from herder.errors import HerderError
from herder.protocol import FinishReason, JobRecord

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Manner:
    """How an answer is to be told: the tier it names, the tools it may call, the prompt to repeat before it, and
    whether a stream ends with what was used."""

    tier: str = "default"
    names: tuple[str, ...] = ()
    echo: str = ""
    usage: bool = False


def as_json(shown: dict[str, Any]) -> bytes:
    """One line of ASCII, whatever a model has written."""
    return json.dumps(shown, separators=(",", ":")).encode()


def head_of(record: JobRecord, kind: str, manner: Manner) -> dict[str, Any]:
    """What every answer, and every piece of one, begins with."""
    prefix = "cmpl-" if kind == "text_completion" else "chatcmpl-"
    return {
        "id": prefix + record.job_id.removeprefix("job_"),
        "object": kind,
        "created": record.submitted_ms // 1000,
        "model": record.model,
        "service_tier": manner.tier,
        "system_fingerprint": fingerprint_of(record.model),
    }


@lru_cache(maxsize=256)
def fingerprint_of(model: str) -> str:
    """A text that is another one for another model, and for another version of the herd."""
    return "fp_" + hashlib.sha256(f"{installed_version()} {model}".encode()).hexdigest()[:12]


def usage_of(results: list[Result]) -> dict[str, Any]:
    """What was used."""
    prompt = sum(result.prompt_tokens for result in results)
    completion = sum(result.completion_tokens for result in results)
    cached = sum(result.cached_tokens for result in results)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def reason_of(choice: Choice) -> str:
    """Why an answer ended, in OpenAI's words."""
    return "length" if choice.finish_reason is FinishReason.LENGTH else "stop"


# --- completions -----------------------------------------------------------------------------------------------


def completion_answer(records: list[JobRecord], manners: list[Manner]) -> dict[str, Any]:
    """The answers to one request: of each of its prompts a job, in order."""
    results = [result_of(record) for record in records]
    choices: list[dict[str, Any]] = []
    for result, manner in zip(results, manners, strict=True):
        choices += completion_choices(result, manner, len(choices))
    return head_of(records[0], "text_completion", manners[0]) | {
        "choices": choices,
        "usage": usage_of(results),
    }


def completion_choices(result: Result, manner: Manner, first: int) -> list[dict[str, Any]]:
    """The answers to one prompt, the first of which has this index."""
    return [
        {
            "index": index,
            "text": manner.echo + choice.text,
            "logprobs": completion_logprobs(choice),
            "finish_reason": reason_of(choice),
        }
        for index, choice in enumerate(result.choices, first)
    ]


def completion_logprobs(choice: Choice) -> dict[str, Any] | None:
    """Log-probabilities as the older API shows them: lists side by side."""
    if choice.logprobs is None:
        return None
    offsets, at = [], 0
    for each in choice.logprobs:
        offsets.append(at)
        at += len(each["text"])
    likeliest = [{chance["text"]: chance["logprob"] for chance in each["top"]} for each in choice.logprobs]
    return {
        "tokens": [each["text"] for each in choice.logprobs],
        "token_logprobs": [each["logprob"] for each in choice.logprobs],
        "top_logprobs": likeliest if any(likeliest) else None,
        "text_offset": offsets,
    }


# --- chats -----------------------------------------------------------------------------------------------------


def chat_answer(record: JobRecord, manner: Manner) -> dict[str, Any]:
    """The answer to a chat."""
    result = result_of(record)
    return head_of(record, "chat.completion", manner) | {
        "choices": [
            _chat_choice(record.job_id, index, choice, manner) for index, choice in enumerate(result.choices)
        ],
        "usage": usage_of([result]),
    }


def _chat_choice(job_id: str, index: int, choice: Choice, manner: Manner) -> dict[str, Any]:
    text, calls = calls_in(choice.text, manner.names)
    message: dict[str, Any] = {
        "role": "assistant",
        "content": text or None if calls else text,
        "refusal": None,
    }
    if calls:
        message["tool_calls"] = [call.shown(job_id, index, i) for i, call in enumerate(calls)]
    if choice.reasoning:
        message["reasoning_content"] = choice.reasoning
    return {
        "index": index,
        "message": message,
        "logprobs": chat_logprobs(choice),
        "finish_reason": "tool_calls" if calls else reason_of(choice),
    }


def chat_logprobs(choice: Choice) -> dict[str, Any] | None:
    """Log-probabilities as chats show them."""
    if choice.logprobs is None:
        return None
    content = [
        {**_chance(each), "top_logprobs": [_chance(chance) for chance in each["top"]]}
        for each in choice.logprobs
    ]
    return {"content": content, "refusal": None}


def _chance(chance: dict[str, Any]) -> dict[str, Any]:
    text = chance["text"]
    known = None if "�" in text else list(text.encode("utf-8", "replace"))
    return {"token": text, "logprob": chance["logprob"], "bytes": known}


# --- piece by piece --------------------------------------------------------------------------------------------


class CompletionChunks(Chunks):
    """A completion as it comes."""

    kind = "text_completion"
    final = DONE

    def __init__(self, record: JobRecord, manner: Manner) -> None:
        super().__init__()
        self.manner = manner
        self._head = head_of(record, self.kind, manner)
        self._job_id, self._n = record.job_id, record.n
        self.opening = self.begin()

    def begin(self) -> bytes:
        """Before the first piece."""
        if not self.manner.echo:
            return b""
        return b"".join(self.say(i, self.manner.echo) for i in range(self._n))

    def say(self, choice: int, text: str, reason: str | None = None, logprobs: Any = None) -> bytes:
        """Text of an answer."""
        return self.frame([{"index": choice, "text": text, "logprobs": logprobs, "finish_reason": reason}])

    def frame(self, choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> bytes:
        """One event."""
        shown = self._head | {"choices": choices} | ({"usage": usage} if self.manner.usage else {})
        return b"data: " + as_json(shown) + b"\n\n"

    def piece(self, choice: int, text: str, reasoning: str, count: int) -> bytes:
        """New text."""
        return self.say(choice, text) if text else b""

    def end(self, record: JobRecord) -> bytes:
        """The ends of all answers, and what was used."""
        result = result_of(record)
        told = [self.finish(i, choice) for i, choice in enumerate(result.choices)]
        if self.manner.usage:
            told.append(self.frame([], usage_of([result])))
        return b"".join(told) + self.final

    def finish(self, index: int, choice: Choice) -> bytes:
        """The end of one answer."""
        return self.say(index, "", reason_of(choice), completion_logprobs(choice))

    def broken(self, error: HerderError) -> bytes:
        """An error, which the client raises."""
        return b"data: " + as_json({"error": as_openai(error)}) + b"\n\n"


class ChatChunks(CompletionChunks):
    """A chat's answer as it comes. Calls of tools are told whole, since only their end says whether they are any."""

    kind = "chat.completion.chunk"

    def __init__(self, record: JobRecord, manner: Manner) -> None:
        self._apart = [CallsApart(manner.names) for _ in range(record.n)]
        super().__init__(record, manner)

    def begin(self) -> bytes:
        """Who speaks; said once."""
        return b"".join(self.delta(i, {"role": "assistant", "content": ""}) for i in range(self._n))

    def delta(
        self, choice: int, new: dict[str, Any], reason: str | None = None, logprobs: Any = None
    ) -> bytes:
        """A change of an answer."""
        return self.frame([{"index": choice, "delta": new, "logprobs": logprobs, "finish_reason": reason}])

    def piece(self, choice: int, text: str, reasoning: str, count: int) -> bytes:
        """New text, or reasoning."""
        told = b""
        if reasoning:
            told += self.delta(choice, {"reasoning_content": reasoning})
        if text and (text := self._apart[choice].feed(text)):
            told += self.delta(choice, {"content": text})
        return told

    def finish(self, index: int, choice: Choice) -> bytes:
        """What was held back, the calls, and why it ended."""
        rest, calls = self._apart[index].end()
        told = self.delta(index, {"content": rest}) if rest else b""
        for i, call in enumerate(calls):
            told += self.delta(index, {"tool_calls": [{"index": i, **call.shown(self._job_id, index, i)}]})
        reason = "tool_calls" if calls else reason_of(choice)
        return told + self.delta(index, {}, reason, chat_logprobs(choice))
