"""The chats of TGI's clients: OpenAI's, but for what their reader insists on.

Every piece of a stream has a role and tool calls (one of them, not a list), a fingerprint is a text, and the
stream ends without a mark. Whoever can read OpenAI's own form is better served at `/v1/chat/completions`.
"""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter, Request, Response

from herder.api.callers import Caller
from herder.api.refusals import PLAIN, as_text
from herder.dialects.asking import asked
from herder.dialects.openai import chatted
from herder.dialects.openai_answers import ChatChunks, as_json
from herder.dialects.openai_bodies import ChatBody
from herder.errors import HerderError

FINGERPRINT = "llama-herder"

router = APIRouter(include_in_schema=False)


@router.post("/tgi/v1/chat/completions")
async def chat(request: Request, key: Caller) -> Response:
    """The answer to a chat, whole or as it comes."""
    body = await asked(request, ChatBody)
    answer = await chatted(request, key, body, EveryDelta)
    if body.stream:
        return answer
    shown = json.loads(bytes(answer.body)) | {"system_fingerprint": FINGERPRINT}
    headers = {name: value for name, value in answer.headers.items() if name.startswith("x-")}
    return Response(as_json(shown), 200, headers, PLAIN)


class EveryDelta(ChatChunks):
    """A chat as it comes."""

    final = b""

    def frame(self, choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> bytes:
        """One event."""
        self._head["system_fingerprint"] = FINGERPRINT
        return super().frame(choices, usage)

    def delta(
        self, choice: int, new: dict[str, Any], reason: str | None = None, logprobs: Any = None
    ) -> bytes:
        """A change of an answer, with all that a delta can have."""
        calls = new.get("tool_calls")
        whole = {"role": "assistant", "content": None, **new, "tool_calls": calls[0] if calls else None}
        return super().delta(choice, whole, reason, logprobs)

    def broken(self, error: HerderError) -> bytes:
        """An error as TGI tells one."""
        return b"data: " + as_json(as_text(error)) + b"\n\n"
