"""`/inf`, where Lamini's clients have OpenAI's: the same chat under another address."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from herder.api.callers import Caller
from herder.dialects.asking import asked
from herder.dialects.openai import chatted
from herder.dialects.openai_bodies import ChatBody

router = APIRouter(prefix="/inf", include_in_schema=False)


@router.post("/chat/completions")
async def chat(request: Request, key: Caller) -> Response:
    """The answer to a chat, whole or as it comes."""
    return await chatted(request, key, await asked(request, ChatBody))
