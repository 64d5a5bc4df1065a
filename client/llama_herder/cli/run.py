"""`herder run` and `herder quote`: a prompt from the command line to its answer and its bill."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from llama_herder import Herder, HerderError, Job, Quote
from llama_herder._calls import answered, ask, seconds, submit
from llama_herder._core import Call, one_line, perform
from llama_herder.answers import Sampling
from llama_herder.cli import output, session
from llama_herder.cli.failures import error_line
from llama_herder.cli.prompt import read_prompt
from llama_herder.cli.sampling import with_sampling
from llama_herder.cli.stream import Shown, Thoughts, followed, shown_as, without_answer
from llama_herder.types import Options

CANCEL_WAIT_S = 10.0
LIVE_POLL_S = 1.0
PIPED_POLL_S = 30.0

Prompt = Annotated[
    str | None, typer.Argument(metavar="PROMPT", help="the prompt; @FILE reads a file, - standard input")
]
Tokens = Annotated[int, typer.Option("--tokens", help="most tokens to generate, and to pay for")]
Chat = Annotated[
    str | None, typer.Option("--messages", metavar="FILE", help="a chat as JSON, instead of PROMPT")
]
System = Annotated[str | None, typer.Option("--system", help="a system message before the prompt")]
Raw = Annotated[bool, typer.Option("--raw", help="no chat template: the model reads the prompt as it is")]
Template = Annotated[
    str | None, typer.Option("--template", help="a chat template of the herd's: llama-2 or chatml")
]
Model = Annotated[str | None, typer.Option("--model", help="which model; the herd's first without it")]
Multiplier = Annotated[
    float | None, typer.Option("--multiplier", help="bid: times the base fee, to be served sooner")
]
Fee = Annotated[int | None, typer.Option("--fee", help="bid: the whole fee, in credits")]
MaxFee = Annotated[int | None, typer.Option("--max-fee", help="refuse to pay more than this")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(rich_help_panel="Use a herd")(with_sampling(run))
    app.command(rich_help_panel="Use a herd")(quote)


def run(
    prompt: Prompt = None,
    *,
    tokens: Tokens,
    model: Model = None,
    multiplier: Multiplier = None,
    fee: Fee = None,
    max_fee: MaxFee = None,
    stop: Annotated[
        list[str] | None, typer.Option("--stop", help="end before this text; may be repeated")
    ] = None,
    system: System = None,
    messages: Chat = None,
    raw: Raw = False,
    template: Template = None,
    timeout: Annotated[float | None, typer.Option("--timeout", help="seconds to wait for the answer")] = None,
    stream: Annotated[bool, typer.Option("--stream", help="print the answer while it is made")] = False,
    reasoning: Annotated[
        bool, typer.Option("--reasoning", help="what the model thinks first, on standard error")
    ] = False,
    url: session.Url = None,
    key: session.ApiKey = None,
    as_json: session.Json = False,
    sampling: Sampling | None = None,
) -> None:
    """Pay for a prompt, wait, print the answer. Ctrl-C cancels it and refunds what was not used.

    herder run "What is a chatbot?" --tokens 40
    """
    seconds(timeout)
    asked = read_prompt(prompt, messages, system, raw)
    options: Options = {"model": model, "multiplier": multiplier, "fee": fee, "max_fee": max_fee, "raw": raw}
    options = {**options, "template": template, **(sampling or {})}
    if stream and not as_json and options.get("n") not in {None, 1}:
        raise output.UsageProblem("--stream shows one answer while it is made; with --n add --json")
    if stop:
        options["stop"] = stop
    with session.client(url, key) as herder:
        job = submitted(herder, submit(ask(asked, tokens, options), None), timeout)
        if job.warning:
            output.say(f"warning: {one_line(job.warning)}")
        shown = shown_as(as_json, reasoning) if stream else None
        try:
            ended = followed(herder, job, timeout, shown) if shown else waited(herder, job, timeout)
        except KeyboardInterrupt:
            raise typer.Exit(cancelled(herder, job, as_json, shown)) from None
        balance = balance_of(herder)
    if reasoning and not (stream or as_json):
        thoughts = Thoughts()
        thoughts.add(ended.reasoning)
        thoughts.end()
    _print_ended(ended, balance, as_json, shown, automatic=multiplier is None and fee is None)
    if not as_json and (hint := without_answer(ended, reasoning)):
        output.print_note(hint)


def submitted(herder: Herder, call: Call[Job], timeout: float | None) -> Job:
    """Pay; nothing is tried again after `timeout` seconds."""
    patience = herder._patience
    if timeout is not None:
        patience = patience.within(patience.clock() + timeout)
    # What to do with the idempotency key is for callers who have it; here the list of jobs tells.
    call = replace(call, unsure="it may have been accepted: `herder jobs` shows it")
    try:
        return herder._perform(perform(call, herder.url, patience))
    except KeyboardInterrupt:
        output.print_error("interrupted while submitting: if the job was accepted, `herder jobs` shows it")
        raise typer.Exit(output.Exit.INTERRUPTED) from None


def waited(herder: Herder, job: Job, timeout: float | None) -> Job:
    """The job as it ended; a terminal is told meanwhile where it is."""
    with output.progress() as show:
        if show is None:
            return herder.wait(job, timeout, poll_s=PIPED_POLL_S)
        show(job)
        return herder.wait(job, timeout, poll_s=LIVE_POLL_S, on_poll=show)


def balance_of(herder: Herder) -> int | None:
    """What is left; the answer is worth printing without it."""
    try:
        return herder.account().available
    except HerderError:
        return None


def _print_ended(
    ended: Job, balance: int | None, as_json: bool, shown: Shown | None, automatic: bool
) -> None:
    with output.answer_written(ended.id):
        if shown is not None:
            shown.ended(ended, balance)
        elif as_json:
            output.print_json({**ended.raw, "balance": balance})
        elif ended.text or ended.status == "succeeded":
            output.print_answers(ended)
    if not as_json:
        output.print_note(output.bill(ended, balance, automatic))
    if ended.status != "succeeded":
        _fail(ended)


def _fail(ended: Job) -> None:
    try:
        answered(ended)
    except HerderError as error:
        output.print_error(error_line(error))
    raise typer.Exit(output.Exit.FAILED)


def cancelled(herder: Herder, job: Job, as_json: bool, shown: Shown | None) -> int:
    """After Ctrl-C: cancel, wait a little for the refund, and say so."""
    output.say(f"\ncancelling {one_line(job.id)} …")
    try:
        ended = herder.cancel(job)
        if not ended.ended:
            ended = herder.wait(job, CANCEL_WAIT_S, poll_s=LIVE_POLL_S)
    except HerderError as error:
        output.print_error(f"{job.id} may go on: {error_line(error)}; `herder cancel {job.id}` tries again")
        return output.Exit.INTERRUPTED
    balance = balance_of(herder)
    if as_json and shown is not None:
        shown.ended(ended, balance)
    elif as_json:
        output.print_json({**ended.raw, "balance": balance})
    output.print_note(f"{ended.status} {ended.id} · {output.bill(ended, balance)}")
    return output.Exit.INTERRUPTED


def quote(
    prompt: Prompt = None,
    *,
    tokens: Annotated[int | None, typer.Option("--tokens", help="most tokens to generate")] = None,
    n: Annotated[int | None, typer.Option("--n", help="so many answers, up to 4")] = None,
    model: Model = None,
    multiplier: Multiplier = None,
    fee: Fee = None,
    max_fee: MaxFee = None,
    system: System = None,
    messages: Chat = None,
    raw: Raw = False,
    url: session.Url = None,
    key: session.ApiKey = None,
    as_json: session.Json = False,
) -> None:
    """What a prompt would cost now, and where in line it would stand; charges nothing."""
    asked = read_prompt(prompt, messages, system, raw)
    options: Options = {"model": model, "multiplier": multiplier, "fee": fee, "max_fee": max_fee, "raw": raw}
    options["n"] = n
    with session.client(url, key) as herder:
        found = herder.quote(asked, tokens, **options)
    if as_json:
        output.print_json(dict(found.raw))
    else:
        output.print_fields(_quote_fields(found, automatic=multiplier is None and fee is None))


def _quote_fields(found: Quote, automatic: bool) -> dict[str, object]:
    reason = found.reason.detail or found.reason.code if found.reason else ""
    return {
        "model": found.model,
        "tokens": found.tokens,
        "base fee": found.base_fee,
        "multiplier": output.priced(found.multiplier, automatic),
        "fee": found.fee,
        "ahead in line": found.position,
        "balance": found.balance,
        "the balance buys": f"{found.max_tokens} tokens"
        if found.max_tokens is not None
        else "any number of tokens",
        "accepted": "yes" if found.feasible else f"no: {reason}",
        **({"warning": found.warning} if found.warning else {}),
    }
