"""The command line as a whole: which commands there are, and how every expected error becomes one line and a code."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
import typer.main

from llama_herder._core import one_line
from llama_herder._http import installed_version
from llama_herder.cli import account, batch, chat, herd, module, output, run, server, store, webhooks
from llama_herder.cli.failures import error_json, error_line, exit_code
from llama_herder.cli.output import CannotWrite, Exit, UsageProblem
from llama_herder.errors import HerderError

CLIENT_COMMANDS = frozenset(
    {
        "run",
        "chat",
        "quote",
        "batch",
        "batches",
        "info",
        "models",
        "workers",
        "jobs",
        "cancel",
        "account",
        "webhooks",
        "module",
        "store",
    }
)


# The words of Typer's own checks, which come from pydantic or from click, and ours.
_INVALID = re.compile(r"Invalid value for '(?P<name>[^']+)': (?P<why>.+)")
_WANTED = (
    (r"valid int", "must be a whole number such as 40"),
    (r"valid (?:number|float)", "must be a number such as 1.5"),
    (r"greater than or equal to -?\d+$", "must be {} or more"),
)


def build(arguments: Sequence[str]) -> typer.Typer:
    """The commands that this command line may need."""
    app = typer.Typer(name="herder", help="Llama-Herder: pay a little more, be served a little sooner.")

    @app.callback(invoke_without_command=True)
    def root(
        ctx: typer.Context, version: bool = typer.Option(False, "--version", help="print the version")
    ) -> None:
        if version:
            print(f"llama-herder {installed_version()}")
            raise typer.Exit
        if ctx.invoked_subcommand is None:
            print(ctx.get_help())

    for part in (run, chat, batch, module, herd, account, webhooks, store):
        part.register(app)
    server.register(app, arguments, CLIENT_COMMANDS)
    return app


def execute(arguments: Sequence[str]) -> int:
    """Run one command line; the exit code. Never a traceback for something that was to be expected."""
    _forgiving_streams()
    if sys.stdout is None:
        return _report("standard output is closed", Exit.USAGE, None)
    before = list(arguments)[: list(arguments).index("--")] if "--" in arguments else list(arguments)
    as_json = "--json" in before
    try:
        command = typer.main.get_command(build(arguments))
        _bare_flags(command)
        code = command.main(args=list(arguments), prog_name="herder", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else Exit.OK
    except HerderError as error:
        return _report(error_line(error), exit_code(error), error_json(error) if as_json else None)
    except (KeyboardInterrupt, typer.Abort):
        return _report("interrupted", Exit.INTERRUPTED, None)
    except BrokenPipeError:
        output.drop(sys.stdout)
        return Exit.FAILED
    except CannotWrite as error:
        output.drop(sys.stdout)
        return _report(str(error), Exit.FAILED, None)
    except ModuleNotFoundError as error:
        return _report(server.install_hint(error), Exit.USAGE, None)
    except Exception as error:
        why = output.stuck() if isinstance(error, OSError) else None
        if why is not None:
            output.drop(sys.stdout)
            return _report(f"cannot write to standard output: {why}", Exit.FAILED, None)
        away = server.unavailable(error)
        if away is not None:
            return _report(away["detail"], Exit.UNAVAILABLE, {"error": away} if as_json else None)
        line = _expected(error)
        if line is None:
            raise
        problem = {"error": {"code": "usage", "status": 0, "detail": line}}
        return _report(line, Exit.USAGE, problem if as_json else None)


def _expected(error: Exception) -> str | None:
    """A wrong command line in one line; None for what is our mistake.

    Typer's own errors are known by their method: their class has lived in two packages.
    """
    if isinstance(error, UsageProblem) or server.is_setup_error(error):
        return one_line(str(error), 700)
    explain = getattr(error, "format_message", None)
    if explain is None:
        return None
    said = _plain(one_line(str(explain())).rstrip("."), error.__cause__)
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "herder"
    said = said if said[:2].isupper() else said[:1].lower() + said[1:]
    return f"{said}{_dashed(error)}; see {path} --help"


def _plain(said: str, cause: object) -> str:
    """What is wrong with a value, in our words; as it is where it is something else."""
    found = _INVALID.fullmatch(said)
    wanted = next((words for part, words in _WANTED if found and re.search(part, found["why"])), None)
    if found is None or wanted is None:
        return said
    limit = found["why"].rpartition(" ")[2]
    faults: list[Any] = getattr(cause, "errors", list)()
    given = f", not {faults[0]['input']!r}" if faults else ""
    return one_line(f"{found['name']} {wanted.format(limit)}{given}")


def _dashed(error: Exception) -> str:
    """What to add where an unknown option may have been meant as a value: -5, or a prompt that begins with a dash."""
    word = str(getattr(error, "option_name", ""))
    known = not hasattr(error, "possibilities")  # only an option that there is not has similar ones
    if known or (word.startswith("--") and " " not in word):
        return ""
    return "; a value that starts with a dash goes last, behind `--`"


def _bare_flags(command: Any) -> None:
    """Help shows a flag without a value: an empty metavar keeps Typer from writing `<bool>` behind it."""
    for option in command.get_params(typer.Context(command)):
        if getattr(option, "is_flag", False):
            option.metavar = ""
    for below in getattr(command, "commands", {}).values():
        _bare_flags(below)


def _report(line: str, code: Exit, problem: object) -> int:
    if problem is not None:
        try:
            output.print_json(problem)
            sys.stdout.flush()
        except OSError:
            output.drop(sys.stdout)
    output.print_error(line)
    return code


def _forgiving_streams() -> None:
    """A locale without the letters of an answer shows question marks, not a traceback; nor does a closed stderr."""
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (for as long as the process lives)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
