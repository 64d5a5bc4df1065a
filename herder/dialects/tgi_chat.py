"""The chats of TGI's clients: OpenAI's, but for what their reader insists on.

Every piece of a stream has a role and tool calls (one of them, not a list), and the stream ends without a mark. Whoever
can read OpenAI's own form is better served at `/v1/chat/completions`.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from herder.api.callers import Caller
from herder.api.refusals import as_text
from herder.dialects.asking import asked
from herder.dialects.openai import chatted
from herder.dialects.openai_answers import ChatChunks, as_json
from herder.dialects.openai_bodies import ChatBody
from herder.errors import HerderError

router = APIRouter(include_in_schema=False)


@router.post("/tgi/v1/chat/completions")
async def chat(request: Request, key: Caller) -> Response:
    """The answer to a chat, whole or as it comes."""
    return await chatted(request, key, await asked(request, ChatBody), EveryDelta)


class EveryDelta(ChatChunks):
    """A chat as it comes."""

    final = b""

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
