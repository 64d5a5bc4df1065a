"""The process in which chat templates are rendered. Run as `python -m herder.prompts_child`; it speaks frames only."""

from __future__ import annotations

from typing import Any

from herder.child import answer
from herder.prompts import TemplateError, render, render_many

MEMORY_BYTES_MAX = 512 * 2**20


def handle(question: dict[str, Any]) -> dict[str, Any]:
    """`{op: render, template, messages, bos_token, eos_token}` → `{text}`, or `{error}` in the template's words.

    `{op: render_many, chats: […]}` → `{chats: [{text} or {error}, …]}`, perhaps not all of them.
    """
    if question["op"] == "render_many":
        rendered = render_many(
            question["template"],
            question["chats"],
            bos_token=question["bos_token"],
            eos_token=question["eos_token"],
        )
        return {"chats": rendered}
    try:
        text = render(
            question["template"],
            question["messages"],
            bos_token=question["bos_token"],
            eos_token=question["eos_token"],
        )
    except TemplateError as error:
        return {"error": str(error)}
    return {"text": text}


if __name__ == "__main__":
    answer(handle, memory_bytes=MEMORY_BYTES_MAX)
