"""The flags by which an answer is drawn and given its form, for all commands that ask for answers. Sends nothing."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from llama_herder.cli.output import UsageProblem

PANEL = "Sampling"


def _flag(name: str, text: str) -> Any:
    return typer.Option(name, help=text, rich_help_panel=PANEL)


def _flags(
    *,
    n: Annotated[int | None, _flag("--n", "so many answers to one prompt, up to 4")] = None,
    temperature: Annotated[float | None, _flag("--temperature", "0 is greedy")] = None,
    top_p: Annotated[float | None, _flag("--top-p", "nucleus sampling")] = None,
    top_k: Annotated[int | None, _flag("--top-k", "only the so many likeliest tokens")] = None,
    min_p: Annotated[float | None, _flag("--min-p", "only what has this share of the best")] = None,
    typical_p: Annotated[float | None, _flag("--typical-p", "locally typical sampling")] = None,
    repeat_penalty: Annotated[float | None, _flag("--repeat-penalty", "above 1: say nothing twice")] = None,
    frequency_penalty: Annotated[
        float | None, _flag("--frequency-penalty", "for each time it was said")
    ] = None,
    presence_penalty: Annotated[float | None, _flag("--presence-penalty", "once, if it was said")] = None,
    penalty_tokens: Annotated[int | None, _flag("--penalty-tokens", "how far back penalties look")] = None,
    logit_bias: Annotated[
        list[str] | None, _flag("--logit-bias", "ID=BIAS, added to a token's logit; may be repeated")
    ] = None,
    seed: Annotated[int | None, _flag("--seed", "repeat an earlier answer")] = None,
    cache_prompt: Annotated[
        bool | None,
        _flag("--cache-prompt/--no-cache-prompt", "whether the prompt may begin with what the cache has"),
    ] = None,
    logprobs: Annotated[int | None, _flag("--logprobs", "tell log-probabilities (with --json)")] = None,
    ignore_eos: Annotated[bool, _flag("--ignore-eos", "go on until --tokens are used up")] = False,
    output_type: Annotated[
        str | None, _flag("--output-type", 'the answer is such JSON, e.g. {"age": "int"}')
    ] = None,
    json_schema: Annotated[
        Path | None, _flag("--json-schema", "the answer is JSON that fits the schema in this file")
    ] = None,
) -> dict[str, Any]:
    """What was given, as the calls of the library take it. Raises UsageProblem."""
    given = dict(locals())
    given["logit_bias"] = _biases(logit_bias or ()) or None
    given["ignore_eos"] = ignore_eos or None
    given["output_type"] = _json("--output-type", output_type)
    schema = _json(f"--json-schema {json_schema}", _read(given.pop("json_schema")))
    if schema is not None:
        given["response_format"] = {"type": "json_schema", "json_schema": {"schema": schema}}
    return {name: value for name, value in given.items() if value is not None}


def _json(flag: str, text: str | None) -> dict[str, Any] | None:
    """The JSON object that a flag gives."""
    if text is None:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageProblem(f"{flag}: not JSON ({error})") from None
    if not isinstance(found, dict):
        raise UsageProblem(f'{flag}: must be a JSON object, such as {{"age": "int"}}')
    return found


def _read(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise UsageProblem(f"--json-schema {path}: not UTF-8 text (byte {error.start})") from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "not a file name"
        raise UsageProblem(f"--json-schema: cannot read {str(path)!r}: {why.lower()}") from None


def _biases(given: Sequence[str]) -> dict[str, float]:
    biases: dict[str, float] = {}
    for token, bias in map(_bias, given):
        if token in biases:
            raise UsageProblem(f"--logit-bias: token {token} is given twice")
        biases[token] = bias
    return biases


def _bias(given: str) -> tuple[str, float]:
    token, _, bias = given.partition("=")
    try:
        return str(int(token)), float(bias)
    except ValueError:
        raise UsageProblem(f"--logit-bias {given}: must be ID=BIAS, such as 1234=-5") from None


def with_sampling(command: Callable[..., None]) -> Callable[..., None]:
    """The command with these flags behind its own; it gets what was given of them as `sampling`."""
    flags = inspect.signature(_flags, eval_str=True).parameters
    own = inspect.signature(command, eval_str=True)
    shown = [*(p for name, p in own.parameters.items() if name != "sampling"), *flags.values()]

    @functools.wraps(command)
    def flagged(*args: Any, **given: Any) -> None:
        sampling = _flags(**{name: given.pop(name) for name in flags if name in given})
        command(*args, **given, sampling=sampling)

    flagged.__signature__ = own.replace(parameters=shown)  # type: ignore[attr-defined]
    flagged.__annotations__ = {each.name: each.annotation for each in shown} | {"return": None}
    return flagged
