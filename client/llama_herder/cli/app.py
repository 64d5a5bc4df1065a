"""The command line as a whole: which commands there are, and how every expected error becomes one line and a code."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

import typer
import typer.main

from llama_herder._core import one_line
from llama_herder._http import installed_version
from llama_herder.cli import account, herd, output, run, server
from llama_herder.cli.output import Exit, UsageProblem
from llama_herder.errors import HerderError

CLIENT_COMMANDS = frozenset({"run", "quote", "info", "models", "workers", "jobs", "cancel", "account"})


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

    for part in (run, herd, account):
        part.register(app)
    server.register(app, arguments, CLIENT_COMMANDS)
    return app


def execute(arguments: Sequence[str]) -> int:
    """Run one command line; the exit code. Never a traceback for something that was to be expected."""
    _forgiving_streams()
    before = list(arguments)[: list(arguments).index("--")] if "--" in arguments else list(arguments)
    as_json = "--json" in before
    try:
        command = typer.main.get_command(build(arguments))
        code = command.main(args=list(arguments), prog_name="herder", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else Exit.OK
    except HerderError as error:
        return _report(
            output.error_line(error), output.exit_code(error), output.error_json(error) if as_json else None
        )
    except (KeyboardInterrupt, typer.Abort):
        return _report("interrupted", Exit.INTERRUPTED, None)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FAILED
    except ModuleNotFoundError as error:
        return _report(server.install_hint(error), Exit.USAGE, None)
    except Exception as error:
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
    said = one_line(str(explain())).rstrip(".")
    return f"{said[:1].lower()}{said[1:]}; see herder --help"


def _report(line: str, code: Exit, problem: object) -> int:
    if problem is not None:
        output.print_json(problem)
    output.print_error(line)
    return code


def _forgiving_streams() -> None:
    """A locale without the letters of an answer shows question marks, not a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
