"""A chat becomes the text that the model reads: its template, rendered within limits; and whether that text can fit.

A template comes with a model file from anywhere, so it is a stranger's program: `rendering` runs it in a child process
with a time and a memory limit. Knows no Redis and no HTTP, and not how a text is tokenised.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from herder import templates
from herder.child import Child, ChildFailed
from herder.errors import InvalidRequest, Overloaded
from herder.protocol import ModelCard

TEMPLATE_CHARS_MAX = 200_000
RENDER_S_MAX = 3.0
MANY_S_EACH = 0.02  # more time for each chat of a question that has many
MANY_MAX = 200  # chats of one question; between two questions others have their turn
MANY_CHARS_MAX = 2_000_000
_BAD_S = 60.0
_BAD_MAX = 64
_TOKENS_GUESS_BYTES = 3
_TOKENS_GUESS_MARGIN = 8

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Chat:
    """Turns as templates expect them, the tools that the model may call, and the template where it is not its own."""

    messages: list[Message]
    tools: list[dict[str, Any]] | None = None
    template: templates.Name | None = None

    def template_of(self, card: ModelCard) -> str | None:
        """The text of the template that it is rendered with."""
        return card.template if self.template is None else templates.text_of(self.template)

    def asked(self) -> dict[str, Any]:
        """What the child needs to know of it."""
        return {"messages": self.messages, "tools": self.tools}


def without_doubled_bos(text: str, card: ModelCard) -> str:
    """The text without the start token that the model will put in front of it anyway."""
    if card.adds_bos and card.bos_token and text.startswith(card.bos_token):
        return text[len(card.bos_token) :]
    return text


# --- rendering: from the herder --------------------------------------------------------------------------------


class Renderer:
    """Renders in a child. A template that once went past its limits is refused for a minute without being tried, for
    chats that are no smaller: what a large one takes says nothing of the others.
    """

    def __init__(self) -> None:
        self._child = Child("herder.prompts_child", limit_s=RENDER_S_MAX)
        self._bad: OrderedDict[str, tuple[float, int]] = OrderedDict()

    async def text(self, card: ModelCard, chat: Chat) -> str:
        """What the model reads for this chat. Raises InvalidRequest, or Overloaded when there was no turn."""
        question = {"op": "render", **chat.asked()}
        answer = await self._asked(card, chat, question, RENDER_S_MAX, _size([chat]))
        return _text_in(card, chat, answer)

    async def texts(self, card: ModelCard, chats: Sequence[Chat]) -> AsyncIterator[str | InvalidRequest]:
        """The same for many chats with one template, in order; a chat that the template refused is the refusal.

        Raises InvalidRequest (no chat can be rendered), Overloaded.
        """
        done = 0
        while done < len(chats):
            some = _within_a_question(chats, done)
            limit_s = RENDER_S_MAX + MANY_S_EACH * len(some)
            asked = [chat.asked() for chat in some]
            question = {"op": "render_many", "chats": asked}
            answer = await self._asked(card, some[0], question, limit_s, _size(some))
            if "error" in answer:
                raise _refusal(card, some[0], answer)
            for chat, each in zip(
                some, answer["chats"], strict=False
            ):  # the child may leave off the last ones
                try:
                    yield _text_in(card, chat, each)
                except InvalidRequest as refusal:
                    yield refusal
            done += len(answer["chats"])

    async def _asked(
        self, card: ModelCard, chat: Chat, question: dict[str, Any], limit_s: float, size: int
    ) -> dict[str, Any]:
        """The child's answer to a question about this chat's template. Raises InvalidRequest, Overloaded."""
        template = chat.template_of(card)
        if template is None:
            known = " or ".join(templates.NAMES)
            raise InvalidRequest(
                f"{card.model} has no chat template: name one (`template`: {known}), or send a raw prompt"
            )
        if len(template) > TEMPLATE_CHARS_MAX:
            raise InvalidRequest(
                f"the chat template of {card.model} is larger than {TEMPLATE_CHARS_MAX} characters"
            )
        name = hashlib.sha256(template.encode("utf-8", "surrogatepass")).hexdigest()
        until, least = self._bad.get(name, (0.0, 0))
        if until > time.monotonic() and size >= least:
            raise InvalidRequest(f"the chat template of {card.model} went past its limits: send raw prompts")
        question |= {"template": template, "bos_token": card.bos_token, "eos_token": card.eos_token}
        try:
            return await self._child.ask(question, limit_s=limit_s)
        except ChildFailed as error:
            if isinstance(error.__cause__, TimeoutError | EOFError):
                self._mark(name, size)
                raise InvalidRequest(f"the chat template of {card.model} took too long") from error
            raise Overloaded("chats cannot be rendered just now; try again", retry_after=2) from error

    async def close(self) -> None:
        """End the child."""
        await self._child.close()

    def _mark(self, name: str, size: int) -> None:
        until, least = self._bad.get(name, (0.0, size))
        least = min(least, size) if until > time.monotonic() else size
        self._bad[name] = time.monotonic() + _BAD_S, least
        while len(self._bad) > _BAD_MAX:
            self._bad.popitem(last=False)


def _text_in(card: ModelCard, chat: Chat, answer: dict[str, Any]) -> str:
    if "error" in answer:
        raise _refusal(card, chat, answer)
    return without_doubled_bos(str(answer["text"]), card)


def _refusal(card: ModelCard, chat: Chat, answer: dict[str, Any]) -> InvalidRequest:
    return InvalidRequest(f"{chat.template or card.model}: {answer['error']}")


def _within_a_question(chats: Sequence[Chat], first: int) -> list[Chat]:
    """The next chats, as many as go into one question: at least one."""
    some: list[Chat] = []
    length = 0
    for chat in chats[first : first + MANY_MAX]:
        length += sum(_length(message) for message in chat.messages)
        length += len(json.dumps(chat.tools)) if chat.tools else 0
        if some and length > MANY_CHARS_MAX:
            break
        some.append(chat)
    return some


def _size(chats: Sequence[Chat]) -> int:
    """About how much a template has to do for these."""
    turns = [message for chat in chats for message in chat.messages]
    tools = sum(len(json.dumps(chat.tools)) for chat in chats if chat.tools)
    return len(turns) + sum(map(_length, turns)) + tools


def _length(message: Message) -> int:
    """About how many characters a turn has."""
    calls = message.get("tool_calls")
    return len(message.get("content") or "") + (len(json.dumps(calls)) if calls else 0)


# --- fitting ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bounds:
    """How many tokens a text is, without tokenising it: never less than `least`, never more than `most`."""

    least: int
    most: int


def bounds(text_bytes: int, card: ModelCard) -> Bounds:
    """Certain bounds: a token is at least one byte and at most the vocabulary's longest piece."""
    longest = max(card.max_piece_bytes, 1)
    return Bounds(-(-text_bytes // longest), text_bytes + card.special_margin)


def kv_estimate(text_bytes: int, counted: int | None, tokens: int, context: int) -> int:
    """The KV cells that a job will probably occupy, from an exact count where there is one."""
    prompt = counted if counted is not None else -(-text_bytes // _TOKENS_GUESS_BYTES) + _TOKENS_GUESS_MARGIN
    return min(prompt + tokens, context)
