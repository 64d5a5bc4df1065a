"""Runs a chat template: a stranger's program, in a sandboxed Jinja. Pure, and only ever called in the child.

Follows the conventions of Hugging Face's templates: `raise_exception`, `strftime_now`, `tools`, trimmed blocks. A chat
is tried in each of its forms until the template takes one. What a caller sent is never silently left out: a template
that has no use for it is a refusal. Knows no models.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from copy import deepcopy
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NoReturn

from jinja2 import meta, nodes
from jinja2.exceptions import TemplateError as JinjaError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from herder.chat_forms import Form, Message, forms, garbled

OUTPUT_CHARS_MAX = 4_000_000
CHARS_BY_CHANCE = 16
"""So many characters of a chat do not stand in a rendered text unless the template has put them there."""
OTHERWISE = ("Otherwise", "Else")

Tools = Sequence[dict[str, Any]] | None
Marks = dict[str, str]


class TemplateError(Exception):
    """The template refused the chat (in its own words), or is broken, or went past a limit.

    `broken`: it has said nothing, it does not work for this chat.
    """

    def __init__(self, message: str, *, broken: bool = False) -> None:
        super().__init__(message)
        self.broken = broken


def render(
    template: str,
    messages: Sequence[Message],
    tools: Tools = None,
    *,
    bos_token: str,
    eos_token: str,
    date: datetime | None = None,
) -> str:
    """The rendered chat, ready for the answer to follow. Raises TemplateError."""
    now = date or datetime.now(UTC)
    marks = {"bos_token": bos_token, "eos_token": eos_token}
    refusals: list[TemplateError] = []
    doubtful: list[Form] = []
    for form in forms(messages, tools):
        try:
            text = _rendered(template, form, marks, now)
            if not garbled(text, form):
                _check_heard(template, form, text, marks, now)
                return text
            doubtful.append(form)
        except TemplateError as error:
            refusals.append(error)
    if doubtful:
        text = _rendered(template, doubtful[0], marks, now)
        _check_heard(template, doubtful[0], text, marks, now)
        return text
    raise next((refusal for refusal in refusals if not refusal.broken), refusals[0])


def _check_heard(template: str, form: Form, text: str, marks: Marks, now: datetime) -> None:
    """Raises TemplateError where something of the chat, of which the template has made this text, is not in it."""
    if form.tools and "tools" not in _variables(template):
        raise TemplateError("the chat template takes no tools: describe them in a system message")
    for what, others in _altered(form.messages, text):
        try:
            unheard = _rendered(template, form._replace(messages=others), marks, now) == text
        except TemplateError:
            continue
        if unheard:
            raise TemplateError(f"the chat template leaves {what} out")


def _rendered(template: str, form: Form, marks: Marks, now: datetime) -> str:
    def strftime_now(how: str) -> str:
        return now.strftime(how)

    try:
        pieces, length = [], 0
        for piece in _compiled(template).generate(
            **deepcopy(form._asdict()),
            add_generation_prompt=True,
            documents=None,
            strftime_now=strftime_now,
            raise_exception=_refuse,
            **marks,
        ):
            length += len(piece)
            if length > OUTPUT_CHARS_MAX:
                raise TemplateError(f"the chat template writes more than {OUTPUT_CHARS_MAX} characters")
            pieces.append(piece)
        return "".join(pieces)
    except JinjaError as error:
        message = f"the chat template refused: {error.message or type(error).__name__}"
        raise TemplateError(message, broken=not isinstance(error, _Refusal)) from error
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        message = f"the chat template failed: {type(error).__name__}: {error}"[:300]
        raise TemplateError(message, broken=True) from error


def _altered(messages: Sequence[Message], text: str) -> list[tuple[str, list[Message]]]:
    """The same chat with other words in what templates are known to overlook, one kind at a time.

    A template that reads it writes another text then. Roles stay, since many templates want them to alternate.
    """
    found = _said_otherwise(messages, text)
    for role, what in (("system", "system messages"), ("tool", "messages of the role tool")):
        if any(message["role"] == role and message.get("content") for message in messages):
            others = [
                {**message, "content": f"{message['content']}."} if message["role"] == role else message
                for message in messages
            ]
            found.append((what, others))
    if any(message.get("tool_calls") for message in messages):
        others = [
            {**message, "tool_calls": [_renamed(call) for call in message["tool_calls"]]}
            if message.get("tool_calls")
            else message
            for message in messages
        ]
        found.append(("tool_calls", others))
    return found


def _said_otherwise(messages: Sequence[Message], text: str) -> list[tuple[str, list[Message]]]:
    """The chat with another last turn of the user, and with other answers; neither where all its words are in the text.

    The words are others altogether: of what an answer has besides, such as reasoning, templates rightly leave parts
    out. What stands beside tool calls is not looked for, since published templates differ on it.
    """
    users = [i for i, message in enumerate(messages) if message["role"] == "user"][-1:]
    answers = [
        i
        for i, message in enumerate(messages)
        if message["role"] == "assistant" and not message.get("tool_calls")
    ]
    found = []
    for what, places in (
        ("the last message of the user", users),
        ("messages of the role assistant", answers),
    ):
        doubtful = {i for i in places if not _stands_in(messages[i].get("content"), text)}
        if doubtful:
            others = [
                {**message, "content": _other_words(message["content"])} if i in doubtful else message
                for i, message in enumerate(messages)
            ]
            found.append((what, others))
    return found


def _stands_in(content: Any, text: str) -> bool:
    """Whether there is nothing to leave out, or it is there: few characters may stand in a template by chance."""
    if not isinstance(content, str):
        return True
    words = content.strip()
    return not words or (len(words) >= CHARS_BY_CHANCE and words in text)


def _other_words(content: str) -> str:
    return OTHERWISE[0] if OTHERWISE[1] in content else OTHERWISE[1]


def _renamed(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    return {**call, "function": {**function, "name": f"{function['name']}_"}}


def render_many(
    template: str, chats: Sequence[dict[str, Any]], *, bos_token: str, eos_token: str
) -> list[dict[str, str]]:
    """`{text}` or `{error}` for each `{messages, tools}`, in order, as far as they fit one answer: one at least."""
    found: list[dict[str, str]] = []
    length = 0
    for chat in chats:
        try:
            text = render(template, chat["messages"], chat["tools"], bos_token=bos_token, eos_token=eos_token)
            rendered = {"text": text}
        except TemplateError as error:
            rendered = {"error": str(error)}
        length += len(rendered.get("text", ""))
        if found and length > OUTPUT_CHARS_MAX:
            break
        found.append(rendered)
    return found


class _Refusal(JinjaError):
    """The template's own words."""


def _refuse(message: str) -> NoReturn:
    raise _Refusal(str(message)[:300])


class _Generation(Extension):
    """`{% generation %}` marks what the assistant wrote, for training; here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class _Sandbox(ImmutableSandboxedEnvironment):
    """A template may lengthen and shorten a list, as published ones do: what it is given is a copy."""

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Whether a template may read it."""
        return (attr in ("append", "pop") and type(obj) is list) or super().is_safe_attribute(
            obj, attr, value
        )


def _environment() -> ImmutableSandboxedEnvironment:
    environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation])

    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
            default=_listed,
        )

    # Jinja's own escapes HTML, which a model was not trained on.
    environment.filters["tojson"] = tojson
    return environment


def _listed(value: Any) -> list[Any]:
    """What Jinja's filters give instead of a list."""
    if not isinstance(value, Iterator):
        raise TypeError(f"{type(value).__name__} is no JSON")
    return list(value)


@lru_cache(maxsize=32)
def _compiled(template: str) -> Any:
    return _environment().from_string(template)


@lru_cache(maxsize=32)
def _variables(template: str) -> frozenset[str]:
    """What the template reads from outside, so not what it sets itself or names as a parameter of a macro."""
    return frozenset(meta.find_undeclared_variables(_environment().parse(template)))
