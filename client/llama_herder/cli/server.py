"""The server's commands, loaded only when one of them is asked for: `herder run` never imports FastAPI or Redis.

They live in `herder.commands`, which has `register(app)`; where it cannot be imported, each of them says what to
install.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import typer

from llama_herder._core import one_line
from llama_herder.cli.output import Exit, print_error

COMMANDS = {
    "up": "Run a whole herd on this machine, embedded Redis included.",
    "serve": "Serve the API of a herd.",
    "courier": "Deliver webhooks.",
    "demo": "Start a herd, pay for a prompt, watch it answered, stop.",
    "audit": "Fold the postings and compare every balance.",
    "config": "Every setting, and where its value comes from.",
    "admin-key": "Make an admin key, straight in Redis.",
}


def register(app: typer.Typer, arguments: Sequence[str], ours: frozenset[str]) -> None:
    """Add the server's commands, unless the first word of the command line is one of the client's."""
    first = next((word for word in arguments if not word.startswith("-")), None)
    if first in ours:
        return
    try:
        from herder.commands import register as register_server
    except ImportError as error:
        for name, summary in COMMANDS.items():
            app.command(name, help=summary, rich_help_panel="Run a herd", context_settings=_ANYTHING)(
                _missing(error)
            )
        return
    register_server(app)


_ANYTHING = {"ignore_unknown_options": True, "allow_extra_args": True}


def _missing(error: ImportError) -> Callable[[], None]:
    def command() -> None:
        print_error(install_hint(error))
        raise typer.Exit(Exit.USAGE)

    return command


def install_hint(error: ImportError) -> str:
    """What to install, in one line."""
    what = f"{error.name} is missing" if error.name else str(error)
    return f"{what}: install llama-herder[herder], e.g. pip install 'llama-herder[herder,worker]'"


def unavailable(error: BaseException) -> dict[str, Any] | None:
    """The server saying that it cannot just now, mostly for want of its Redis: as a client's error is; else None.

    Nothing of the server is imported for it: only what is loaded can have been raised.
    """
    module = sys.modules.get("herder.errors")
    if module is None or not isinstance(error, module.Unavailable):
        return None
    detail = one_line(str(error).rstrip("."), 700)
    return {"code": error.code, "status": error.status, "detail": detail, "request_id": None}


def is_setup_error(error: BaseException) -> bool:
    """Whether it is the server saying that it cannot start as configured; its message says what to do."""
    module = sys.modules.get("herder.errors")
    return module is not None and isinstance(error, module.SetupError)
