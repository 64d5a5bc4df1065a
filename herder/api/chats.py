"""What the model is to read, as callers send it: a prompt or a chat, a system prompt, tools, a template.

Strict as `bodies`. Which texts a template makes of it is `prompts`' business; here is only what may be asked for.
"""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from herder import templates
from herder.api.forms import with_own_form
from herder.api.reading import object_in
from herder.api.strict import Strict, Text, at
from herder.errors import InvalidRequest
from herder.prompts import Chat, Message
from herder.protocol import ModelCard

MESSAGES_MAX = 1_000
TOOLS_MAX = 64
TOOLS_BYTES_MAX = 65_536
TOOL_CALLS_MAX = 64
JSON_DEPTH_MAX = 32
NAME_PATTERN = "^[a-zA-Z0-9_-]{1,64}$"


def _plain(value: Any, depth: int = 0) -> Any:
    """JSON as a template can write it again: numbers as floats where they are not whole, no NUL, not too deep."""
    if depth > JSON_DEPTH_MAX:
        raise ValueError(f"is nested deeper than {JSON_DEPTH_MAX}")
    if isinstance(value, dict):
        return {_plain(name): _plain(each, depth + 1) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each, depth + 1) for each in value]
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("has a number that is too large")
    if isinstance(value, str) and "\x00" in value:
        raise ValueError("must not contain NUL")
    return value


FunctionName = Annotated[str, Field(pattern=NAME_PATTERN)]
JsonObject = Annotated[dict[str, Any], AfterValidator(_plain)]


class Function(Strict):
    """What can be called; `parameters` is a JSON schema, which the template writes down as it is."""

    name: FunctionName
    description: Text | None = None
    parameters: JsonObject | None = None
    strict: bool | None = None


class Tool(Strict):
    """A tool that the model may call, in the form that OpenAI's API has."""

    type: Literal["function"]
    function: Function


def _json_text(text: str) -> str:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("must be an object, or a text with JSON in it") from None
    return text


def _kind(value: Any) -> str | None:
    return "dict[str]" if isinstance(value, dict) else "str" if isinstance(value, str) else None


Arguments = Annotated[
    Annotated[JsonObject, Tag("dict[str]")] | Annotated[Text, AfterValidator(_json_text), Tag("str")],
    Discriminator(_kind, "tool_arguments", "must be an object, or a text with JSON in it"),
]


class CalledFunction(Strict):
    """What was called. Most templates want `arguments` to be an object; a text is given to them as a text."""

    name: FunctionName
    arguments: Arguments


class ToolCall(Strict):
    """A call that the model has made in an earlier turn."""

    id: Annotated[Text, Field(max_length=256)] | None = None
    type: Literal["function"] = "function"
    function: CalledFunction


def _no_parts(content: Any) -> Any:
    if isinstance(content, list):
        raise ValueError("must be a text; lists of parts are not taken")
    return content


class ChatMessage(Strict):
    """One turn of a chat."""

    role: Literal["system", "user", "assistant", "tool"]
    tool_calls: Annotated[list[ToolCall], Field(min_length=1, max_length=TOOL_CALLS_MAX)] | None = Field(
        None, description="what the assistant called in this turn"
    )
    content: Annotated[Text | None, BeforeValidator(_no_parts)] = Field(
        None, validate_default=True, description="required, but for a turn with `tool_calls`"
    )
    name: Annotated[Text, Field(max_length=256)] | None = Field(None, description="of the tool that answers")
    tool_call_id: Annotated[Text, Field(max_length=256)] | None = Field(
        None, description="which call this is the answer to"
    )

    @field_validator("tool_calls", "name", "tool_call_id")
    @classmethod
    def _of_its_role(cls, value: Any, info: ValidationInfo) -> Any:
        role = "assistant" if info.field_name == "tool_calls" else "tool"
        if value is not None and info.data.get("role", role) != role:
            raise ValueError(f"goes with the role {role}")
        return value

    @field_validator("content")
    @classmethod
    def _something(cls, content: str | None, info: ValidationInfo) -> str | None:
        if content is None and info.data.get("tool_calls", ()) is None:
            raise ValueError("is required")
        return content

    def turn(self) -> Message:
        """As templates expect it: what was not given is not there, but `content`, which is then none."""
        return {"role": self.role, "content": self.content} | self.model_dump(exclude_none=True)


def _within(tools: list[Tool]) -> list[Tool]:
    length = len(json.dumps([tool.model_dump() for tool in tools], ensure_ascii=False).encode())
    if length > TOOLS_BYTES_MAX:
        raise ValueError(f"must have at most {TOOLS_BYTES_MAX} bytes, and has {length}")
    return tools


class ChatOptions(Strict):
    """A prompt or a chat, and how it becomes the text that the model reads."""

    prompt: Annotated[Text, Field(min_length=1)] | None = Field(
        None,
        description="one user turn, put into the model's chat template; with `raw`, exactly what the model reads",
    )
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MESSAGES_MAX)] | None = Field(
        None, description="a chat, instead of a prompt"
    )
    system: Annotated[Text, Field(min_length=1)] | None = Field(
        None, description="a system prompt, the first turn; not beside a system message in `messages`"
    )
    tools: (
        Annotated[list[Tool], Field(min_length=1, max_length=TOOLS_MAX), AfterValidator(_within)] | None
    ) = Field(None, description="for a chat template that takes tools; refused where it does not")
    template: templates.Name | None = Field(
        None, description="a chat template that the herd has, instead of the model's own"
    )
    raw: bool = Field(False, description="do not use the chat template")

    @model_validator(mode="after")
    def _one_text(self) -> ChatOptions:
        if self.prompt is not None and self.messages is not None:
            raise at("messages", "prompt and messages exclude each other")
        if self.raw and self.messages is not None:
            raise at("raw", "raw goes with a prompt, not with messages")
        if self.raw:
            for name in ("system", "tools", "template"):
                if getattr(self, name) is not None:
                    raise at(name, f"raw and {name} exclude each other: {name} is for a chat template")
        if self.system is not None and has_system(self.messages or ()):
            raise at("system", "system and a system message exclude each other")
        return self

    def text_bytes(self) -> int:
        """The length of all that a template is given."""
        length = len((self.prompt or "").encode()) + len((self.system or "").encode())
        for message in self.messages or ():
            length += len((message.content or "").encode())
            if message.tool_calls:
                length += sum(len(call.model_dump_json().encode()) for call in message.tool_calls)
        return length + sum(len(tool.model_dump_json().encode()) for tool in self.tools or ())


CHAT_INHERITED = ("raw", "system", "tools", "template")


def has_system(messages: Any) -> bool:
    """Whether one of these turns, checked or as they came, is a system message."""
    turns = messages if isinstance(messages, list) else ()
    return any(
        (m.get("role") if isinstance(m, dict) else getattr(m, "role", None)) == "system" for m in turns
    )


def tools_in(query: str) -> Any:
    """The `tools` of a query as JSON has them; what is no JSON value stays a text, which is then refused."""
    found = object_in(f'{{"tools":{query}}}'.encode("utf-8", "surrogatepass"), "tools")
    return found["tools"] if len(found) == 1 else query


class Inherited:
    """The options that items of a batch take over. A long system prompt is not sent with each item, but is in each."""

    def __init__(self, options: dict[str, Any], bytes_max: int) -> None:
        self._options = options
        self._bytes = {name: len(json.dumps(options.get(name), default=str)) for name in ("system", "tools")}
        self._left = bytes_max
        self._bytes_max = bytes_max

    def merged(self, own: dict[str, Any]) -> dict[str, Any]:
        """An item with what it takes over, but for that which its own words exclude. Raises InvalidRequest."""
        found = with_own_form(self._options | own, own)
        if "messages" in own:
            if "raw" not in own:
                found.pop("raw", None)  # `raw` is about prompts
            if "system" not in own and has_system(own["messages"]):
                found.pop("system", None)
        self._left -= sum(length for name, length in self._bytes.items() if name in found and name not in own)
        if self._left < 0:
            message = (
                f"system and tools, in each item, make more than {self._bytes_max} bytes "
                "(HERDER_BATCH_BYTES_MAX): send it as several batches"
            )
            errors = [{"field": "", "message": message}]
            raise InvalidRequest(message, limit=self._bytes_max, errors=errors)
        return found


def chat_of(body: ChatOptions, card: ModelCard) -> Chat | None:
    """The turns that a template is to be given; None for a text that is read as it is."""
    if body.raw:
        return None
    if body.messages is not None:
        turns = [message.turn() for message in body.messages]
    else:
        turns = [{"role": "user", "content": body.prompt or ""}]
    if body.system is not None:
        turns.insert(0, {"role": "system", "content": body.system})
    chat = Chat(turns, _tools(body), body.template)
    if chat.template_of(card) is None and len(turns) == 1 and body.messages is None and chat.tools is None:
        return None
    return chat


def _tools(body: ChatOptions) -> list[dict[str, Any]] | None:
    return [tool.model_dump(exclude_none=True) for tool in body.tools] if body.tools else None
