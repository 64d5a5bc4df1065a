"""A chat becomes the text that the model reads: its template, rendered within limits; and whether that text can fit.

A template comes with a model file from anywhere, so it is a stranger's program: it is rendered by a sandboxed Jinja in
a child process with a time and a memory limit. Knows no Redis and no HTTP, and not how a text is tokenised.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NoReturn

from herder.child import Child, ChildFailed
from herder.errors import InvalidRequest, Overloaded
from herder.protocol import ModelCard

OUTPUT_CHARS_MAX = 4_000_000
TEMPLATE_CHARS_MAX = 200_000
RENDER_S_MAX = 3.0
MANY_S_EACH = 0.02  # more time for each chat of a question that has many
MANY_MAX = 200  # chats of one question; between two questions others have their turn
MANY_CHARS_MAX = 2_000_000
_BAD_S = 60.0
_BAD_MAX = 64
_TOKENS_GUESS_BYTES = 3
_TOKENS_GUESS_MARGIN = 8

Message = dict[str, str]


class TemplateError(Exception):
    """The template refused the chat (in its own words), or is broken, or went past a limit."""


# --- rendering: pure, and only ever called in the child ----------------------------------------------------


def render(
    template: str,
    messages: Sequence[Message],
    *,
    bos_token: str,
    eos_token: str,
    date: datetime | None = None,
) -> str:
    """The rendered chat, ready for the answer to follow. Raises TemplateError.

    Follows the conventions of Hugging Face's templates: `raise_exception`, `strftime_now`, trimmed blocks.
    """
    from jinja2.exceptions import TemplateError as JinjaError

    now = date or datetime.now(UTC)

    def strftime_now(form: str) -> str:
        return now.strftime(form)

    try:
        pieces, length = [], 0
        for piece in _compiled(template).generate(
            messages=[dict(message) for message in messages],
            bos_token=bos_token,
            eos_token=eos_token,
            add_generation_prompt=True,
            tools=None,
            documents=None,
            strftime_now=strftime_now,
            raise_exception=_refuse,
        ):
            length += len(piece)
            if length > OUTPUT_CHARS_MAX:
                raise TemplateError(f"the chat template writes more than {OUTPUT_CHARS_MAX} characters")
            pieces.append(piece)
        return "".join(pieces)
    except JinjaError as error:
        raise TemplateError(f"the chat template refused: {error.message or type(error).__name__}") from error
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise TemplateError(f"the chat template failed: {type(error).__name__}: {error}"[:300]) from error


def render_many(
    template: str, chats: Sequence[Sequence[Message]], *, bos_token: str, eos_token: str
) -> list[dict[str, str]]:
    """`{text}` or `{error}` for each chat, in order, as far as they fit one answer: at least the first."""
    found: list[dict[str, str]] = []
    length = 0
    for chat in chats:
        try:
            rendered = {"text": render(template, chat, bos_token=bos_token, eos_token=eos_token)}
        except TemplateError as error:
            rendered = {"error": str(error)}
        length += len(rendered.get("text", ""))
        if found and length > OUTPUT_CHARS_MAX:
            break
        found.append(rendered)
    return found


def _refuse(message: str) -> NoReturn:
    from jinja2.exceptions import TemplateError as JinjaError

    raise JinjaError(str(message)[:300])


@lru_cache(maxsize=32)
def _compiled(template: str) -> Any:
    import json

    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )

    def tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, **_: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)

    # Jinja's own escapes HTML, which a model was not trained on.
    environment.filters["tojson"] = tojson
    return environment.from_string(template)


def without_doubled_bos(text: str, card: ModelCard) -> str:
    """The text without the start token that the model will put in front of it anyway."""
    if card.adds_bos and card.bos_token and text.startswith(card.bos_token):
        return text[len(card.bos_token) :]
    return text


# --- rendering: from the herder --------------------------------------------------------------------------------


class Renderer:
    """Renders in a child. A template that once went past its limits is refused for a minute without being tried."""

    def __init__(self) -> None:
        self._child = Child("herder.prompts_child", limit_s=RENDER_S_MAX)
        self._bad: OrderedDict[str, float] = OrderedDict()

    async def text(self, card: ModelCard, messages: Sequence[Message]) -> str:
        """What the model reads for this chat. Raises InvalidRequest, or Overloaded when there was no turn."""
        answer = await self._asked(card, {"op": "render", "messages": list(messages)}, RENDER_S_MAX)
        return _text_in(card, answer)

    async def texts(
        self, card: ModelCard, chats: Sequence[Sequence[Message]]
    ) -> AsyncIterator[str | InvalidRequest]:
        """The same for many chats, in order; a chat that the template refused is the refusal.

        Raises InvalidRequest (no chat can be rendered), Overloaded.
        """
        done = 0
        while done < len(chats):
            some = _within_a_question(chats, done)
            limit_s = RENDER_S_MAX + MANY_S_EACH * len(some)
            answer = await self._asked(card, {"op": "render_many", "chats": some}, limit_s)
            if "error" in answer:
                raise InvalidRequest(f"{card.model}: {answer['error']}")
            for each in answer["chats"]:
                try:
                    yield _text_in(card, each)
                except InvalidRequest as refusal:
                    yield refusal
            done += len(answer["chats"])

    async def _asked(self, card: ModelCard, question: dict[str, Any], limit_s: float) -> dict[str, Any]:
        """The child's answer to a question about this model's template. Raises InvalidRequest, Overloaded."""
        if card.template is None:
            raise InvalidRequest(f"{card.model} has no chat template: send a prompt instead of messages")
        if len(card.template) > TEMPLATE_CHARS_MAX:
            raise InvalidRequest(
                f"the chat template of {card.model} is larger than {TEMPLATE_CHARS_MAX} characters"
            )
        name = hashlib.sha256(card.template.encode("utf-8", "surrogatepass")).hexdigest()
        if self._bad.get(name, 0.0) > time.monotonic():
            raise InvalidRequest(f"the chat template of {card.model} went past its limits: send raw prompts")
        question |= {"template": card.template, "bos_token": card.bos_token, "eos_token": card.eos_token}
        try:
            return await self._child.ask(question, limit_s=limit_s)
        except ChildFailed as error:
            if isinstance(error.__cause__, TimeoutError | EOFError):
                self._mark(name)
                raise InvalidRequest(f"the chat template of {card.model} took too long") from error
            raise Overloaded("chats cannot be rendered just now; try again", retry_after=2) from error

    async def close(self) -> None:
        """End the child."""
        await self._child.close()

    def _mark(self, name: str) -> None:
        self._bad[name] = time.monotonic() + _BAD_S
        while len(self._bad) > _BAD_MAX:
            self._bad.popitem(last=False)


def _text_in(card: ModelCard, answer: dict[str, Any]) -> str:
    if "error" in answer:
        raise InvalidRequest(f"{card.model}: {answer['error']}")
    return without_doubled_bos(str(answer["text"]), card)


def _within_a_question(chats: Sequence[Sequence[Message]], first: int) -> list[list[Message]]:
    """The next chats, as many as go into one question: at least one."""
    some: list[list[Message]] = []
    length = 0
    for chat in chats[first : first + MANY_MAX]:
        length += sum(len(message["content"]) for message in chat)
        if some and length > MANY_CHARS_MAX:
            break
        some.append(list(chat))
    return some


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
