"""`herder chat`: a conversation in the terminal, turn by turn, with what each turn has cost.

Answers go to standard output, everything else to standard error. Each line of a pipe is a turn too.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Annotated

import typer

from llama_herder import Chat, Herder, HerderError, Job, Message
from llama_herder._calls import answered
from llama_herder._core import one_line
from llama_herder._dialogue import TOKENS
from llama_herder.cli import output, session
from llama_herder.cli.chat_words import End, Words
from llama_herder.cli.failures import error_line
from llama_herder.cli.prompt import PROMPT_BYTES_MAX, read_prompt
from llama_herder.cli.run import (
    CANCEL_WAIT_S,
    LIVE_POLL_S,
    Fee,
    MaxFee,
    Model,
    Multiplier,
    Template,
    balance_of,
)
from llama_herder.cli.stream import Text, watched
from llama_herder.types import Options


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(rich_help_panel="Use a herd")(chat)


def chat(
    *,
    tokens: Annotated[int, typer.Option("--tokens", help="most tokens of each answer")] = TOKENS,
    system: Annotated[str | None, typer.Option("--system", help="a system prompt")] = None,
    messages: Annotated[
        str | None, typer.Option("--messages", metavar="FILE", help="go on with a chat that was saved")
    ] = None,
    model: Model = None,
    multiplier: Multiplier = None,
    fee: Fee = None,
    max_fee: MaxFee = None,
    template: Template = None,
    temperature: Annotated[float | None, typer.Option("--temperature", help="0 is greedy")] = None,
    url: session.Url = None,
    key: session.ApiKey = None,
) -> None:
    """Talk with a model: it remembers what was said. /help lists what else can be typed, Ctrl-D ends.

    herder chat --system "You are a pirate."
    """
    options: Options = {"model": model, "multiplier": multiplier, "fee": fee, "max_fee": max_fee}
    options = {**options, "template": template, "temperature": temperature}
    with session.client(url, key) as herder:
        talk = Chat(herder, messages=_earlier(messages, system), tokens=tokens, **options)
        talk.system = system if system is not None else talk.system
        words = Words(talk, messages)
        live = sys.stdin is not None and sys.stdin.isatty()
        if live:
            _greet(herder, model, tokens)
        while (line := _line(live)) is not None:
            try:
                if line.startswith("/") and not line.startswith("//"):
                    output.print_note(words.obey(line))
                elif line.strip():
                    _turn(herder, talk, line.removeprefix("/"), automatic="bid" not in words.offered())
            except End:
                return
            except (HerderError, output.UsageProblem) as error:
                if not live:
                    raise
                output.print_error(error_line(error) if isinstance(error, HerderError) else str(error))


def _earlier(path: str | None, system: str | None) -> list[Message]:
    """The turns of a file; a system prompt of the command line takes the place of the file's."""
    if path is None:
        return []
    if path == "-":
        raise output.UsageProblem("--messages - has no place here: standard input is what you say")
    turns = read_prompt(None, path, None, False)
    assert isinstance(turns, list)
    first = bool(turns) and turns[0].get("role") == "system"
    return turns[1:] if first and system is not None else turns


def _greet(herder: Herder, model: str | None, tokens: int) -> None:
    info = herder.info()
    named = model or (info.models[0] if info.models else "no model")
    most = output.money(info.set_prompt_fee + info.fee_per_token * tokens)
    left = output.money(herder.account().available)
    output.print_note(
        f"{one_line(named)} at {herder.url} · a turn is at most {most} credits at ×1 · balance {left} · /help"
    )
    with suppress(ImportError):  # edits the line, and has the earlier ones on the arrow keys
        import readline  # noqa: F401


def _line(live: bool) -> str | None:
    """What is said next; None at the end. A line of a terminal that ends with a backslash goes on."""
    if not live:
        return _piped()
    said, mark = "", "> "
    while True:
        try:
            said += input(mark)
        except EOFError:
            output.say("")
            return None
        except KeyboardInterrupt:  # on a line that was begun: away with it
            output.print_note("\nCtrl-D or /quit ends")
            said, mark = "", "> "
            continue
        if not said.endswith("\\"):
            return said
        said, mark = said[:-1] + "\n", "… "


def _piped() -> str | None:
    if sys.stdin is None:
        return None
    given = sys.stdin.buffer.readline(PROMPT_BYTES_MAX + 1)
    if len(given) > PROMPT_BYTES_MAX:
        most = output.money(PROMPT_BYTES_MAX)
        raise output.UsageProblem(f"a line is longer than {most} bytes, more than any herd takes")
    try:
        return given.decode("utf-8").rstrip("\r\n") if given else None
    except UnicodeDecodeError as error:
        raise output.UsageProblem(
            f"standard input is not UTF-8 text (byte {error.start} of a line)"
        ) from None


def _turn(herder: Herder, talk: Chat, text: str, automatic: bool) -> None:
    shown, before, seen = Text(), talk.forgotten, Job()

    def accepted(job: Job) -> None:
        nonlocal seen
        seen = job

    try:
        with talk.stream(text) as events:
            ended = watched(events, seen, shown, accepted)
    except KeyboardInterrupt:
        shown.broken_off()
        ended = _cancelled(herder, seen)
    else:
        with output.answer_written(ended.id):
            shown.ended(ended, None)
    output.print_note(output.bill(ended, balance_of(herder), automatic))
    if talk.forgotten > before:
        left = len(talk.messages) - talk.forgotten
        output.print_note(f"the chat is longer than the model's context: it reads the last {left} messages")
    if ended.status == "cancelled":
        output.print_note("cancelled: that turn is not remembered")
    else:
        answered(ended)


def _cancelled(herder: Herder, job: Job) -> Job:
    """After Ctrl-C: nothing more is paid for."""
    if not job.id:
        raise output.UsageProblem("interrupted; `herder jobs` shows whether it was accepted") from None
    ended = herder.cancel(job.id)
    return ended if ended.ended else herder.wait(job.id, CANCEL_WAIT_S, poll_s=LIVE_POLL_S)
