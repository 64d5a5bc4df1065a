"""TGI's API: `/`, `/generate`, `/generate_stream`, `/health`; `/info` is the herd's own, with TGI's fields beside.

Prompts are read as they are, without a chat template. In a stream every token is an event of its own; the last one is
an extra special token without text, which has the whole answer and its details.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from herder.api.callers import Caller
from herder.api.refusals import as_text
from herder.api.shapes import Result
from herder.api.state import herd_of
from herder.choices import TokenChances, told_of
from herder.dialects.asking import asked
from herder.dialects.attended import answered, bought, result_of, told
from herder.dialects.chunks import Chunks
from herder.dialects.spelling import spelled
from herder.dialects.tgi_asking import NAMES, Generate, fields_of, truncated
from herder.errors import HerderError
from herder.protocol import EventKind, FinishReason, JobRecord
from herder.records import KeyRecord

NO_TOKEN = 0  # the id of what is no token of the model's; theirs are never negative

router = APIRouter(include_in_schema=False)


@router.get("/health")
@router.get("/tgi/health")
async def health() -> Response:
    """The process answers."""
    return Response(status_code=200)


@router.post("/")
@router.post("/tgi")
async def compatible(request: Request, key: Caller) -> Response:
    """A list with one answer, or (`stream`) its tokens as they come."""
    body = await asked(request, Generate)
    if body.stream:
        return await _streamed(request, key, body)
    return JSONResponse(*await _generated(request, key, body, listed=True))


@router.post("/generate")
@router.post("/tgi/generate")
async def generate(request: Request, key: Caller) -> Response:
    """The answer."""
    return JSONResponse(*await _generated(request, key, await asked(request, Generate), listed=False))


@router.post("/generate_stream")
@router.post("/tgi/generate_stream")
async def generate_stream(request: Request, key: Caller) -> Response:
    """The answer's tokens as they come."""
    return await _streamed(request, key, await asked(request, Generate))


async def _generated(
    request: Request, key: KeyRecord, body: Generate, *, listed: bool
) -> tuple[Any, int, dict[str, str]]:
    """What is answered, its status and its headers."""
    fields = fields_of(body, told=bool(body.how.details or body.how.top_n_tokens))
    fields["prompt"] = await truncated(herd_of(request), body)
    sold = await answered(request, await bought(request, key, body, fields, NAMES))
    shown = _answer(body, result_of(sold.record))
    return [shown] if listed else shown, 200, sold.headers


async def _streamed(request: Request, key: KeyRecord, body: Generate) -> Response:
    herd = herd_of(request)
    fields = fields_of(body, told=True)
    with herd.streams.reserved():
        fields["prompt"] = await truncated(herd, body)
        return told(request, await bought(request, key, body, fields, NAMES), TokenByToken(body))


# --- answers -------------------------------------------------------------------------------------------------


def _answer(body: Generate, result: Result) -> dict[str, Any]:
    shown: dict[str, Any] = {"generated_text": _whole(body, result.text)}
    if result.logprobs is not None:
        tokens: list[TokenChances] = result.logprobs
        spans = spelled(result.text, tokens)
        if spans:
            spans[-1] = (spans[-1][0], len(result.text))
        shown["details"] = {
            **_ending(body, result),
            "prefill": [],
            "tokens": [
                _token(token, result.text[start:end])
                for token, (start, end) in zip(tokens, spans, strict=True)
            ],
        }
        if body.how.top_n_tokens:
            shown["details"]["top_tokens"] = [_likeliest(token) for token in tokens]
    return shown


def _whole(body: Generate, text: str) -> str:
    return body.inputs + text if body.how.return_full_text else text


def _ending(body: Generate, result: Result) -> dict[str, Any]:
    return {
        "finish_reason": _reason(result, body.how.stops),
        "generated_tokens": result.completion_tokens,
        "input_length": result.prompt_tokens,
        "seed": body.how.seed if body.how.samples else None,
    }


def _reason(result: Result, stops: Sequence[str]) -> str:
    """Why the answer ends; by its tokens, since a stop string is no part of its text."""
    if result.finish_reason is FinishReason.LENGTH:
        return "length"
    tokens: list[TokenChances] = result.logprobs or []
    made = "".join(token["text"] for token in tokens)
    stopped = any(stop in made for stop in stops)
    if not all(stop.isascii() for stop in stops) and tokens and tokens[-1]["text"]:
        # A character of it may come in several tokens, each of them U+FFFD: then the last one brings no text.
        start, end = spelled(result.text, tokens)[-1]
        stopped = stopped or start == end
    return "stop_sequence" if stopped else "eos_token"


def _token(token: TokenChances, text: str) -> dict[str, Any]:
    return {"id": token["token"], "text": text, "logprob": token["logprob"], "special": False}


def _likeliest(token: TokenChances) -> list[dict[str, Any]]:
    return [{"id": top["token"], "text": top["text"], "logprob": top["logprob"], "special": False}
            for top in token["top"]]  # fmt: skip


# --- streams -------------------------------------------------------------------------------------------------


class TokenByToken(Chunks):
    """An event a token, and one more at the end."""

    def __init__(self, body: Generate) -> None:
        super().__init__()
        self._body = body
        self._index = 0
        self._told = 0  # characters
        self._restart()

    def _restart(self) -> None:
        """An attempt: its text from the character `_at` on, and how many of its tokens have been looked at."""
        self._text, self._at, self._seen = "", 0, 0

    def begun(self, kind: EventKind, attempt: int, event_id: str) -> bytes:
        """An attempt; all of it is said again."""
        self._restart()
        return super().begun(kind, attempt, event_id)

    def tokens(self, event_id: str, fields: dict[str, str], reasoning: str = "") -> bytes:
        """The tokens whose text ends here, less what has been said already."""
        said = super().tokens(event_id, fields, reasoning)
        if self.over:
            return said
        self._text += fields["text"]
        return self._spelled(told_of(fields.get("logprobs", "[]")))

    def piece(self, choice: int, text: str, reasoning: str, count: int) -> bytes:
        """Nothing: it is said by its tokens."""
        return b""

    def _spelled(self, tokens: Sequence[TokenChances]) -> bytes:
        """The events of tokens whose text begins where `_text` does; of one that was told only what is new of it."""
        said, used = [], 0
        for token, (start, end) in zip(tokens, spelled(self._text, tokens), strict=True):
            first = max(start, self._told - self._at)
            if end > first or (start == end == first and not self._again):
                said.append(self._event(_token(token, self._text[first:end]), token))
                self._told = self._at + max(first, end)
            used = end
        self._seen += len(tokens)
        self._text, self._at = self._text[used:], self._at + used
        return b"".join(said)

    def end(self, record: JobRecord) -> bytes:
        """What was held back, and the extra token."""
        result = result_of(record)
        rest = (result.logprobs or [])[self._seen :]
        self._text = result.text[self._at :]
        # Those of a stop string bring nothing, and are not told.
        spans = spelled(self._text, rest)
        said = self._spelled([t for t, (start, end) in zip(rest, spans, strict=True) if end > start])
        if self._told < len(result.text):  # no token is known for it
            text = result.text[self._told :]
            said += self._event({"id": NO_TOKEN, "text": text, "logprob": None, "special": False})
        last = {"id": NO_TOKEN, "text": "", "logprob": None, "special": True}
        return said + self._event(last, generated_text=_whole(self._body, result.text),
                                  details=_ending(self._body, result))  # fmt: skip

    def _event(
        self,
        shown: dict[str, Any],
        token: TokenChances | None = None,
        *,
        generated_text: str | None = None,
        details: dict[str, Any] | None = None,
    ) -> bytes:
        self._index += 1
        event: dict[str, Any] = {"index": self._index, "token": shown}
        if self._body.how.top_n_tokens:
            event["top_tokens"] = _likeliest(token) if token is not None else []
        return _said(event | {"generated_text": generated_text, "details": details})

    def broken(self, error: HerderError) -> bytes:
        """An event that is an error."""
        return _said(as_text(error))


def _said(shown: dict[str, Any]) -> bytes:
    return b"data:" + json.dumps(shown, separators=(",", ":")).encode() + b"\n\n"
