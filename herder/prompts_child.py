"""The process in which chat templates are rendered. Run as `python -m herder.prompts_child`; it speaks frames only."""

from __future__ import annotations

from typing import Any

from herder.child import answer
from herder.rendering import TemplateError, render, render_many

MEMORY_BYTES_MAX = 512 * 2**20


def handle(question: dict[str, Any]) -> dict[str, Any]:
    """`{op: render, template, messages, tools, bos_token, eos_token}` → `{text}`, or `{error}` in the template's words.

    `{op: render_many, chats: [{messages, tools}, …]}` → `{chats: [{text} or {error}, …]}`, perhaps not all of them.
    """
    template, bos, eos = question["template"], question["bos_token"], question["eos_token"]
    if question["op"] == "render_many":
        return {"chats": render_many(template, question["chats"], bos_token=bos, eos_token=eos)}
    try:
        text = render(template, question["messages"], question["tools"], bos_token=bos, eos_token=eos)
    except TemplateError as error:
        return {"error": str(error)}
    return {"text": text}


if __name__ == "__main__":
    answer(handle, memory_bytes=MEMORY_BYTES_MAX)
