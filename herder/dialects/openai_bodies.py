"""What OpenAI's clients send, and what it is in the fields of a job. Pure; prices and models are not looked at here.

Types are checked where the fields are a job's own, with OpenAI's names for them (`CHAT_NAMES`, `COMPLETION_NAMES`).
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field, StrictBool

from herder.api.options import SEED_MAX
from herder.dialects.asking import Lenient
from herder.dialects.openai_tools import Toolbox, format_of, toolbox_of, wrong
from herder.dialects.openai_turns import Turn, turns_of, with_tools

COMPLETION_TOKENS = 16  # where none are named: OpenAI's own default
PROMPTS_MAX = 128  # of one request; more go to /v1/batches
TOKENS_MAX = 100_000  # of one prompt that is a list of tokens; no context here is longer
SCHEMA_FIELDS = ("name", "description", "strict", "schema")
_SAME = (
    "temperature", "top_p", "frequency_penalty", "presence_penalty", "logit_bias", "n", "seed", "cache_prompt",
)  # fmt: skip
COMPLETION_NAMES = {"tokens": "max_tokens"}
NAMES_OF_MANY = {**COMPLETION_NAMES, "items": "prompt", "prompts": "prompt"}
CHAT_NAMES = {"tokens": "max_tokens", "logprobs": "top_logprobs", "system": "messages"}

Fields = dict[str, Any]


class StreamOptions(BaseModel):
    """What a stream says besides the answer; of the options that are there, the one that is known here."""

    include_usage: StrictBool | None = None


class OpenAIBody(Lenient):
    """What both routes take; the values of most are checked with the job."""

    temperature: Any = None
    top_p: Any = None
    frequency_penalty: Any = None
    presence_penalty: Any = None
    logit_bias: Any = None
    n: Any = None
    seed: Any = None
    cache_prompt: Any = None  # not OpenAI's, but llama-server's
    stop: Any = None
    max_tokens: Any = None
    metadata: dict[str, Any] | None = None
    stream: StrictBool | None = None
    stream_options: StreamOptions | None = None

    @property
    def usage_at_end(self) -> bool:
        """Whether a stream is to say at its end what was used."""
        return self.stream_options is not None and self.stream_options.include_usage is True

    @property
    def tier(self) -> str:
        """The service tier that the answer names."""
        tier = self.service_tier or "auto"
        return "default" if tier == "auto" else tier


class CompletionBody(OpenAIBody):
    """The body of `POST /v1/completions`."""

    prompt: Any = None
    logprobs: Any = None
    echo: StrictBool | None = None
    suffix: str | None = None
    best_of: Any = None


class ChatBody(OpenAIBody):
    """The body of `POST /v1/chat/completions`."""

    messages: Any = None
    max_completion_tokens: Any = None
    logprobs: StrictBool | None = None
    top_logprobs: Annotated[int, Field(strict=True)] | None = None
    response_format: Any = None
    tools: Any = None
    tool_choice: Any = None
    functions: Any = None
    modalities: Any = None


def _shared(body: OpenAIBody) -> Fields:
    """The fields of a job that are the same on both routes."""
    fields = {name: getattr(body, name) for name in _SAME}
    seed = fields["seed"]
    if isinstance(seed, int) and not isinstance(seed, bool):
        fields["seed"] = seed % (SEED_MAX + 1)  # theirs has 64 bits, and a sign
    if body.top_p == 0 and body.top_p is not False:
        fields |= {"top_p": None, "temperature": 0}
    elif body.temperature is None and (body.top_p not in (None, 1) or body.n not in (None, 1)):
        # Greedy is the default here; whoever asks for several answers, or for part of the likeliest, does not mean it.
        fields["temperature"] = 1
    fields["stop"] = None if body.stop in ("", []) else body.stop
    if body.metadata:
        fields["metadata"] = {k: v for k, v in body.metadata.items() if isinstance(v, str)} or None
    return fields


# --- completions -----------------------------------------------------------------------------------------------


def completion_fields(body: CompletionBody) -> Fields:
    """All but the prompt. Raises InvalidRequest."""
    if body.suffix:
        raise wrong("suffix", "is not taken: the models here write on, they do not fill in")
    if body.best_of not in (None, 1, body.n) or isinstance(body.best_of, bool):
        raise wrong("best_of", "must be 1, or the same as n: every answer is told")
    if body.echo and body.logprobs is not None:
        raise wrong("logprobs", "cannot be told of the prompt: leave out echo, or logprobs")
    tokens = COMPLETION_TOKENS if body.max_tokens is None else body.max_tokens
    return _shared(body) | {"raw": True, "tokens": tokens, "logprobs": body.logprobs}


def prompts_of(prompt: Any) -> list[str | list[int]]:
    """The prompts, each a text or a list of tokens. Raises InvalidRequest."""
    if isinstance(prompt, str):
        return [prompt]
    if not isinstance(prompt, list) or not prompt:
        raise wrong("prompt", "must be a string, a list of tokens, or a list of these; not empty")
    if _number(prompt[0]):
        return [_tokens(prompt, "prompt")]
    if len(prompt) > PROMPTS_MAX:
        message = f"{len(prompt)} prompts are more than {PROMPTS_MAX}: send them to /v1/batches"
        raise wrong("prompt", message)
    return [each if isinstance(each, str) else _tokens(each, f"prompt.{i}") for i, each in enumerate(prompt)]


def _number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _tokens(value: Any, at: str) -> list[int]:
    if not isinstance(value, list) or not value or not all(map(_number, value)):
        raise wrong(at, "must be a string, or a list of token ids, not empty")
    if len(value) > TOKENS_MAX:
        raise wrong(at, f"has {len(value)} tokens, at most {TOKENS_MAX}")
    return value


# --- chats -----------------------------------------------------------------------------------------------------


def chat_fields(body: ChatBody, template: str | None) -> tuple[Fields, Toolbox]:
    """The job's fields, and the tools that its answer may call; `template` is its model's. Raises InvalidRequest."""
    try:
        return _chat_fields(body, template)
    except RecursionError:
        raise wrong("", "is nested too deeply") from None


def _chat_fields(body: ChatBody, template: str | None) -> tuple[Fields, Toolbox]:
    if body.functions:
        raise wrong("functions", "are not taken any more: use tools")
    if body.modalities is not None and body.modalities != ["text"]:
        raise wrong("modalities", 'must be ["text"]: the models here write text')
    if body.top_logprobs is not None and not body.logprobs:
        raise wrong("top_logprobs", "goes with logprobs: true")
    given = _format(body.response_format)
    box = toolbox_of(body.tools, body.tool_choice, given)
    turns = turns_of(body.messages)
    _answers_named(turns)
    messages, tools = with_tools(turns, box, template)
    named = body.max_completion_tokens
    fields = _shared(body) | {
        "messages": messages,
        "tools": tools,
        "tokens": body.max_tokens if named is None else named,
        "logprobs": (body.top_logprobs or 0) if body.logprobs else None,
        "response_format": format_of(box, given),
    }
    if box.forced:
        fields["stop"] = None  # there is no text to be cut, and a call is whole or none
    return fields, box


def _answers_named(turns: list[Turn]) -> None:
    """Refuse what a tool said where nobody can tell which tool; TGI's clients name it instead of its call."""
    for i, turn in enumerate(turns):
        if turn["role"] == "tool" and not (turn.get("tool_call_id") or turn.get("name")):
            raise wrong(f"messages.{i}.tool_call_id", "is required: the id of the call that this answers")


def _format(given: Any) -> Fields | None:
    """A `response_format` with the fields that we know; None for any text. Raises InvalidRequest."""
    if given is None:
        return None
    kind = given.get("type") if isinstance(given, dict) else None
    if kind == "text":
        return None
    if kind == "json_object":
        schema = given.get("value")  # so Hugging Face's client writes a schema
        if not isinstance(schema, dict):
            return {"type": "json_object"}
        return {"type": "json_schema", "json_schema": {"schema": schema}}
    if kind != "json_schema":
        raise wrong("response_format.type", "must be text, json_object or json_schema")
    named = given.get("json_schema")
    if not isinstance(named, dict) or not isinstance(named.get("schema"), dict):
        raise wrong("response_format.json_schema.schema", "is required, and must be a JSON schema")
    known = {name: named[name] for name in SCHEMA_FIELDS if named.get(name) is not None}
    return {"type": "json_schema", "json_schema": known}
