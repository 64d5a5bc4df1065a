"""`herder module …`: run a prompt template by its name and version; the result is named by its CID."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

import typer

from llama_herder import Herder, HerderError
from llama_herder import _module_calls as calls
from llama_herder._calls import answered, seconds
from llama_herder._core import one_line
from llama_herder.cli import output, session
from llama_herder.cli import run as paid
from llama_herder.cli.prompt import read_prompt

_CID = re.compile(r"(Qm|z|b)[0-9A-Za-z]+", re.ASCII)

app = typer.Typer(
    no_args_is_help=True, help="Prompt templates that are run by name, with results that have a CID."
)


def register(parent: typer.Typer) -> None:
    """Add the group of this file."""
    parent.add_typer(app, name="module", rich_help_panel="Use a herd")


@app.command()
def run(
    module: Annotated[
        str, typer.Argument(metavar="MODULE", help="name and version, such as fastchat:v0.0.1")
    ],
    given: Annotated[
        str,
        typer.Argument(metavar="INPUT", help="the input as JSON, @FILE, - or its CID in the herd's store"),
    ],
    *,
    tokens: Annotated[
        int | None, typer.Option("--tokens", help="most tokens to generate; the module's own without it")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="which model, instead of the module's")] = None,
    multiplier: paid.Multiplier = None,
    fee: paid.Fee = None,
    max_fee: paid.MaxFee = None,
    timeout: Annotated[float | None, typer.Option("--timeout", help="seconds to wait for the answer")] = None,
    url: session.Url = None,
    key: session.ApiKey = None,
    as_json: session.Json = False,
) -> None:
    """Fill a module's template in, pay for the answer, print the CID of the result. Ctrl-C cancels it.

    herder module run fastchat:v0.0.1 '{"parameters": {"question": "What is a chatbot?"}}'
    """
    seconds(timeout)
    options = {"tokens": tokens, "model": model, "multiplier": multiplier, "fee": fee, "max_fee": max_fee}
    body = read_input(given) | {name: value for name, value in options.items() if value is not None}
    with session.client(url, key) as herder:
        job = paid.submitted(herder, calls.submit(module, body), timeout)
        if job.warning:
            output.say(f"warning: {one_line(job.warning)}")
        try:
            ended = paid.waited(herder, job, timeout)
        except KeyboardInterrupt:
            raise typer.Exit(paid.cancelled(herder, job, as_json, None)) from None
        if ended.status != "succeeded":
            output.print_note(output.bill(ended, paid.balance_of(herder)))
            answered(ended)
        found = _stored(herder, job.id)
        balance = paid.balance_of(herder)
    with output.answer_written(ended.id):
        if as_json:
            output.print_json({**found.raw, "balance": balance})
        else:
            print(one_line(found.cid or ""))
    if not as_json:
        output.print_note(output.bill(ended, balance, multiplier is None and fee is None))
        output.print_note(f"{calls.RESULT_PATH}: herder module result {one_line(found.cid or '')}")


def _stored(herder: Herder, job_id: str) -> calls.ModuleRun:
    """The run with its CID; where that fails, the answer is paid for and there all the same."""
    try:
        return herder._call(calls.run(job_id))
    except HerderError as error:
        error.detail = f"{error.detail.rstrip('.')}; the answer is there: `herder jobs {one_line(job_id)}`"
        raise


def read_input(given: str) -> dict[str, Any]:
    """The body's part that is the input: JSON as it is or in a file, or the CID of one in the herd's store."""
    inline = given.lstrip().startswith("{")
    if not inline and given != "-" and not given.startswith("@"):
        if not _CID.fullmatch(given):
            shape = '{"parameters": {"question": "…"}}'
            raise output.UsageProblem(f"{given!r} is no input: give JSON such as {shape}, @FILE or a CID")
        return {"cid": given}
    text = given if inline else str(read_prompt(given, None, None, False))
    name = "the input" if inline or given == "-" else given[1:]
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise output.UsageProblem(f"{name} is not JSON: {error.msg} at {where}; nothing was sent") from None
    except RecursionError:
        raise output.UsageProblem(f"{name} is nested too deeply; nothing was sent") from None
    if not isinstance(found, dict):
        raise output.UsageProblem(f"{name} must be a JSON object with `parameters`; nothing was sent")
    return found


@app.command("list")
def list_(url: session.Url = None, key: session.ApiKey = None, as_json: session.Json = False) -> None:
    """The modules of the herd."""
    with session.client(url, key) as herder:
        found = herder._call(calls.modules())
    if as_json:
        return output.print_json({"modules": [dict(module.raw) for module in found]})
    rows = [(m.id, m.model or "", ", ".join(m.variables), m.description) for m in found]
    return output.print_table(("module", "model", "variables", "description"), rows, none="no modules")


@app.command()
def result(
    cid: Annotated[str, typer.Argument(metavar="CID", help="what `herder module run` has printed")],
    *,
    url: session.Url = None,
    key: session.ApiKey = None,
) -> None:
    """What a run has made, out of the herd's store: its parameters and the answer, as JSON."""
    with session.client(url, key) as herder:
        output.print_json(herder._call(calls.result(cid)))
