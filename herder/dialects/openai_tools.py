"""Tools as OpenAI's clients offer them: which may be called, and the schema of a call that must be made. Pure.

A call that must be made is a JSON object with a name and arguments, and the answer is constrained to be one. Which
template takes tools, and how a model is told of them otherwise, is `openai_turns`' business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from herder.api.chats import ChatOptions
from herder.api.problems import invalid
from herder.errors import InvalidRequest
from herder.schema_tree import Record
from herder.schema_words import SchemaRefused
from herder.schemas import tree_from
from herder.typed import refused

WHERE = "response_format.json_schema.schema"  # where the schema of a call stands in the job
_FUNCTION = ("name", "description", "parameters", "strict")
_MODES = ("none", "auto", "required")
_NOTHING = {"type": "object", "properties": {}, "additionalProperties": False}


@dataclass(frozen=True)
class Toolbox:
    """The tools of a request, and the names of those that may be called; `forced`: one must be."""

    tools: tuple[dict[str, Any], ...] = ()
    names: tuple[str, ...] = ()
    forced: bool = False


def wrong(field: str, message: str) -> InvalidRequest:
    """The refusal of a field."""
    return InvalidRequest(f"{field}: {message}", errors=[{"field": field, "message": message}])


def told_of_tools(error: InvalidRequest) -> InvalidRequest:
    """The same fault of a job whose schema is that of a call, told of the tools that it was made of."""
    faults = [
        {
            "field": "tools" if fault["field"].startswith(WHERE) else fault["field"],
            "message": fault["message"].replace(WHERE, "tools"),
        }
        for fault in error.extra.get("errors") or []
    ]
    return InvalidRequest(error.detail.replace(WHERE, "tools"), **{**error.extra, "errors": faults})


def toolbox_of(tools: Any, choice: Any, given: Any = None) -> Toolbox:
    """The tools, as far as `tool_choice` lets them be called. `given` is the `response_format` beside them.

    Raises InvalidRequest.
    """
    listed = _tools(tools)
    mode, only = _choice(choice)
    names = tuple(tool["function"]["name"] for tool in listed)
    if only is not None and only not in names:
        raise wrong("tool_choice", f"{only[:64]} is not one of the tools")
    if mode == "required" and not names:
        raise wrong("tool_choice", "goes with tools, and there are none")
    if mode == "none" or not names:
        return Toolbox()
    box = Toolbox(tuple(listed), names if only is None else (only,), forced=mode == "required")
    if box.forced or given is not None:
        for i, tool in enumerate(listed):
            _check_parameters(tool["function"], f"tools.{i}.function.parameters")
    return box


def _tools(tools: Any) -> list[dict[str, Any]]:
    """The tools with the fields that we know, checked so far that their names are texts."""
    if tools is None:
        return []
    if not isinstance(tools, list):
        raise wrong("tools", "must be a list")
    listed: list[dict[str, Any]] = []
    for i, tool in enumerate(tools):
        if not isinstance(tool, dict) or tool.get("type", "function") != "function":
            raise wrong(f"tools.{i}.type", "must be function")
        function = tool.get("function")
        if not isinstance(function, dict):
            raise wrong(f"tools.{i}.function", "must be an object with a name")
        if not isinstance(function.get("name"), str):
            raise wrong(f"tools.{i}.function.name", "must be a string")
        known = {name: function[name] for name in _FUNCTION if function.get(name) is not None}
        listed.append({"type": "function", "function": known})
    names = [tool["function"]["name"] for tool in listed]
    for i, name in enumerate(names):
        if name in names[:i]:
            raise wrong(f"tools.{i}.function.name", "is the name of an earlier one")
    if listed:
        as_of_a_job("tools", listed)
    return listed


def as_of_a_job(name: str, value: Any) -> None:
    """The check of one of a job's fields, made before the model is told of it in other words. Raises InvalidRequest."""
    try:
        ChatOptions.model_validate({name: value})
    except ValidationError as error:
        raise invalid(error.errors(include_url=False, include_context=False, include_input=False)) from None


def _choice(choice: Any) -> tuple[str, str | None]:
    """What `tool_choice` says: one of the modes, and the one tool that is meant, if it names one."""
    if choice is None:
        return "auto", None
    if isinstance(choice, str) and choice in _MODES:
        return choice, None
    if isinstance(choice, dict) and choice.get("type", "function") == "function":
        function = choice.get("function")
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            return "required", function["name"]
    message = f'must be {", ".join(_MODES)}, or {{"type": "function", "function": {{"name": "…"}}}}'
    raise wrong("tool_choice", message)


def _check_parameters(function: dict[str, Any], where: str) -> None:
    """Whether arguments can be made to fit; told at its own place, not where it stands in the schema of a call."""
    parameters = function.get("parameters")
    if not parameters:
        return
    try:
        tree = tree_from(parameters, where)
    except SchemaRefused as error:
        raise refused(error) from None
    if not isinstance(tree, Record):
        raise wrong(where, 'must be the schema of an object, such as {"type": "object", "properties": {…}}')


def format_of(box: Toolbox, given: dict[str, Any] | None) -> dict[str, Any] | None:
    """The `response_format` of the job: what was asked for; a call where one must be made; either, where both are
    possible and the answer has a form."""
    if not box.forced and (given is None or not box.names):
        return given
    branches = [_call(tool["function"]) for tool in box.tools if tool["function"]["name"] in box.names]
    if given is not None and not box.forced:
        branches.append(given["json_schema"]["schema"] if "json_schema" in given else {"type": "object"})
    if len(branches) == 1:
        schema = _moved(branches[0], "#")
    else:
        schema = {"anyOf": [_moved(each, f"#/anyOf/{i}") for i, each in enumerate(branches)]}
    return {"type": "json_schema", "json_schema": {"name": "call", "schema": schema}}


def _call(function: dict[str, Any]) -> dict[str, Any]:
    parameters = function.get("parameters")
    arguments = _NOTHING if not parameters else _moved(parameters, "#/properties/arguments")
    return {
        "type": "object",
        "properties": {"name": {"const": function["name"]}, "arguments": arguments},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _moved(schema: Any, to: str) -> Any:
    """A schema whose references within itself still lead there when it stands at another place."""
    if isinstance(schema, list):
        return [_moved(each, to) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: to + each[1:]
        if name == "$ref" and isinstance(each, str) and each.startswith("#")
        else _moved(each, to)
        for name, each in schema.items()
    }
