"""Whether answers can be made to fit what a caller wants: its schema is tried in a child, and the budget is enough.

What llguidance compiles is native code fed by strangers, so it is compiled in a child first, with a time and a memory
limit, and remembered. Knows no Redis, no HTTP, and of models their cards and
how many tokens a text is.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

from herder.child import Child, ChildFailed
from herder.counting import Counter
from herder.errors import InvalidRequest, Overloaded
from herder.protocol import ModelCard
from herder.schema_tree import Node, as_text, least_bytes, shortest
from herder.schema_words import SchemaRefused

COMPILE_S_MAX = 3.0
REMEMBERED_MAX = 512


@dataclass(frozen=True)
class Form:
    """What an answer is to fit: the tree, where in the request it stands, and its name in errors."""

    tree: Node
    where: str


class Schemas:
    """The forms that were tried, and what came of it; the child that tries the others."""

    def __init__(self) -> None:
        self._child = Child("herder.schemas_child", limit_s=COMPILE_S_MAX)
        self._tried: OrderedDict[bytes, str | None] = OrderedDict()
        self._counts: OrderedDict[tuple[bytes, str, int], int] = OrderedDict()

    async def text(self, form: Form, card: ModelCard, tokens: int, counter: Counter) -> str:
        """The schema as the worker reads it. Raises InvalidRequest (no answer of so many tokens can fit it, or it
        cannot be compiled), Overloaded (there was no turn to try it)."""
        least = least_bytes(form.tree)
        text = as_text(form.tree)
        name = hashlib.sha256(text.encode()).digest()
        # Enough however short the model's tokens are, or counted. Where nobody here can, it may be too few however long
        # they are; else the worker counts, and all is refunded.
        if tokens < least:
            counted = await self._counted(name, form, card, counter)
            needed = counted or -(-least // max(card.max_piece_bytes, 1))
            if tokens < needed:
                raise _too_few(form, card, needed, "" if counted else "at least ")
        if name not in self._tried:
            self._remember(name, await self._why_not(text, form.where))
        why = self._tried[name]
        if why is not None:
            raise refused(SchemaRefused(form.where, why))
        return text

    async def _counted(self, name: bytes, form: Form, card: ModelCard, counter: Counter) -> int | None:
        """The tokens of the shortest answer as a worker would write it; None where nobody here knows."""
        key = name, card.model, card.vocab_size
        if key not in self._counts:
            counted = await counter.cut(card.model, shortest(form.tree).decode())
            if counted is None:
                return None  # not remembered: the vocabulary may come
            self._counts[key] = counted
            while len(self._counts) > REMEMBERED_MAX:
                self._counts.popitem(last=False)
        return self._counts[key]

    async def _why_not(self, text: str, where: str) -> str | None:
        try:
            answer = await self._child.ask({"op": "compile", "schema": text})
        except ChildFailed as error:
            if error.begun and isinstance(error.__cause__, TimeoutError | EOFError):
                # Not remembered: it may have been the machine.
                why = "this schema took too long, or too much memory, to compile; make it simpler"
                raise refused(SchemaRefused(where, why)) from error
            raise Overloaded("schemas cannot be compiled just now; try again", retry_after=2) from error
        return f"this schema cannot be compiled: {answer['error']}" if "error" in answer else None

    def _remember(self, name: bytes, why: str | None) -> None:
        self._tried[name] = why
        while len(self._tried) > REMEMBERED_MAX:
            self._tried.popitem(last=False)

    async def close(self) -> None:
        """End the child."""
        await self._child.close()


def _too_few(form: Form, card: ModelCard, needed: int, about: str) -> InvalidRequest:
    return InvalidRequest(
        f"tokens: the shortest answer that fits {form.where} has {about}{needed} tokens of {card.model}",
        limit=needed,
        errors=[{"field": "tokens", "message": f"{about}{needed} are needed for this schema"}],
    )


def refused(error: SchemaRefused) -> InvalidRequest:
    """The refusal as callers get it: the path in `field`."""
    return InvalidRequest(str(error), errors=[{"field": error.path, "message": error.why}])
