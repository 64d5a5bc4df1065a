"""What Ollama's clients ask for, as the fields of a job. Pure; knows no route and no answer.

Where an option is not given, Ollama's own default holds, so that answers vary as they do there.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr

from herder.api.options import LIKELIEST_MAX, SEED_MAX
from herder.dialects.asking import Lenient
from herder.dialects.openai_tools import Toolbox, format_of, toolbox_of, wrong
from herder.dialects.openai_turns import turns_of, with_tools

LATEST = ":latest"
PENALTY_TOKENS_MOST = 4_096  # what a `repeat_last_n` of -1, all of the context, comes to
_OPTIONS = {
    "tokens": "num_predict", "penalty_tokens": "repeat_last_n",
    **{name: name for name in (
        "temperature", "top_k", "top_p", "min_p", "typical_p", "repeat_penalty", "frequency_penalty",
        "presence_penalty", "seed", "stop",
    )},
}  # fmt: skip
NAMES = {ours: f"options.{theirs}" for ours, theirs in _OPTIONS.items()} | {
    "response_format": "format",
    "response_format.json_schema.schema": "format",
    "logprobs": "top_logprobs",
}
Fields = dict[str, Any]


class Options(BaseModel):
    """How the answer is made. What is about the loading of models is not looked at, and neither is mirostat."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    num_predict: StrictInt | None = None
    temperature: Any = None
    top_k: Any = None
    top_p: Any = None
    min_p: Any = None
    typical_p: Any = None
    repeat_penalty: Any = None
    repeat_last_n: StrictInt | None = None
    frequency_penalty: Any = None
    presence_penalty: Any = None
    seed: StrictInt | None = None
    stop: Any = None


class Asked(Lenient):
    """What both routes take."""

    options: Options | None = None
    stream: StrictBool | None = None
    format: Any = None
    think: StrictBool | StrictStr | None = None
    logprobs: StrictBool | None = None
    top_logprobs: Annotated[StrictInt, Field(ge=0, le=LIKELIEST_MAX)] | None = None

    @property
    def streams(self) -> bool:
        """Unless it says otherwise."""
        return self.stream is not False


class GenerateBody(Asked):
    """The body of `POST /api/generate`."""

    prompt: StrictStr | None = None
    system: StrictStr | None = None
    raw: StrictBool | None = None
    template: StrictStr | None = None
    suffix: StrictStr | None = None
    images: list[Any] | None = None
    context: list[Any] | None = None


class ChatBody(Asked):
    """The body of `POST /api/chat`."""

    messages: list[Any] | None = None
    tools: Any = None


def generate_fields(body: GenerateBody) -> Fields:
    """The fields of a job. Raises InvalidRequest."""
    for name, why in (
        ("template", "is not taken: the chat template is the model's own; send raw: true to use none"),
        ("images", "are not taken: the models here read text"),
        ("suffix", "is not taken: the models here write on, they do not fill in"),
        ("context", "is not kept here: send the chat as messages to /api/chat"),
    ):
        if getattr(body, name):
            raise wrong(name, why)
    raw = bool(body.raw)
    return _shared(body) | {
        "prompt": body.prompt,
        "raw": raw or None,
        "system": (body.system or None) if not raw else None,
        "response_format": _format(body.format),
    }


def chat_fields(body: ChatBody, template: str | None) -> tuple[Fields, Toolbox]:
    """The fields of a job, and the tools that its answer may call; `template` is its model's. Raises InvalidRequest."""
    given = _format(body.format)
    try:
        box = toolbox_of(body.tools or None, None, given)
        turns, tools = with_tools(
            turns_of([_message(m, i) for i, m in enumerate(body.messages or ())]), box, template
        )
        form = format_of(box, given)
    except RecursionError:
        raise wrong("", "is nested too deeply") from None
    return _shared(body) | {"messages": turns, "tools": tools, "response_format": form}, box


def _message(message: Any, index: int) -> Any:
    """A message in the words of OpenAI's API."""
    if not isinstance(message, dict):
        return message
    if message.get("images"):
        raise wrong(f"messages.{index}.images", "are not taken: the models here read text")
    tool = message.get("tool_name")
    return message if tool is None else {**message, "name": tool}


def _shared(body: Asked) -> Fields:
    how = body.options or Options()
    last = how.repeat_last_n
    return {
        # -1 and -2 are as much as fits, and so is 0 there.
        "tokens": None if how.num_predict is None or how.num_predict < 1 else how.num_predict,
        "temperature": _or(how.temperature, 0.8),
        "top_k": _or(how.top_k, 40),
        "top_p": _or(how.top_p, 0.9),
        "min_p": how.min_p,
        "typical_p": how.typical_p,
        "repeat_penalty": _or(how.repeat_penalty, 1.1),
        "penalty_tokens": PENALTY_TOKENS_MOST if last == -1 else last,
        "frequency_penalty": how.frequency_penalty,
        "presence_penalty": how.presence_penalty,
        "seed": None if how.seed is None or how.seed < 0 else how.seed % (SEED_MAX + 1),
        "stop": None if how.stop in ("", []) else how.stop,
        "logprobs": (body.top_logprobs or 0) if body.logprobs else None,
    }


def _or(given: Any, default: float) -> Any:
    return default if given is None else given


def _format(given: Any) -> Fields | None:
    """A `format` as a `response_format`: `json`, or a schema."""
    if given in (None, ""):
        return None
    if given == "json":
        return {"type": "json_object"}
    if not isinstance(given, dict):
        raise wrong("format", "must be json, or a JSON schema")
    return {"type": "json_schema", "json_schema": {"schema": given}}
