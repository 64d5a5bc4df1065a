"""Which herd a command talks to and with which key: flag over environment over file.

The file is `.env` in the working directory. Must not print a key.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from llama_herder import Herder
from llama_herder._core import DEFAULT_URL, Broken, Reply, Send
from llama_herder._patience import REFUSED_S
from llama_herder.cli.output import UsageProblem, print_note

TRIES = 3
REFUSED_S_MAX = REFUSED_S
LIMIT = 20
ENV_FILE = Path(".env")
ENV_FILE_BYTES_MAX = 1_000_000

Url = Annotated[
    str | None,
    typer.Option("--url", help=f"URL of the herd (HERDER_URL; {DEFAULT_URL})", show_default=False),
]
ApiKey = Annotated[str | None, typer.Option("--key", help="API key (HERDER_API_KEY)", show_default=False)]
AdminKey = Annotated[
    str | None,
    typer.Option("--key", help="an admin's API key (HERDER_ADMIN_KEY, HERDER_API_KEY)", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="print JSON, for scripts")]
Limit = Annotated[int, typer.Option("--limit", help="at most so many", min=1)]
Cursor = Annotated[
    str | None, typer.Option("--cursor", help="go on where an earlier list ended", show_default=False)
]


@dataclass(frozen=True)
class Setting:
    """A value, and where it came from: flag, environment, file or default."""

    value: str
    source: str


def find(flag: str | None, names: tuple[str, ...], default: str = "") -> Setting:
    """The flag, else the first of the variables that the environment or else the file has, else the default."""
    if flag:
        return Setting(flag, "flag")
    in_file = env_file()
    for name in names:
        if os.environ.get(name):
            return Setting(os.environ[name], "environment")
        if in_file.get(name):
            return Setting(in_file[name], "file")
    return Setting(default, "default")


def env_file() -> dict[str, str]:
    """The variables of the file; none where there is no file."""
    try:
        if not ENV_FILE.is_file() or ENV_FILE.stat().st_size > ENV_FILE_BYTES_MAX:
            return {}
        lines = ENV_FILE.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    found = {}
    for line in lines:
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if equals and name.strip().startswith("HERDER_"):
            found[name.strip()] = _unquoted(value.strip())
    return found


def _unquoted(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
        return value[1:-1]
    return value.split(" #", 1)[0].rstrip()


class PatientHerder(Herder):
    """Sits out a restart, and tells a terminal so while nothing has answered yet."""

    def __init__(self, url: str, key: str) -> None:
        super().__init__(url, key, tries=TRIES, refused_s=REFUSED_S_MAX)
        self._told = not sys.stderr.isatty()

    def _send(self, send: Send) -> Reply | Broken:
        outcome = super()._send(send)
        if not self._told and isinstance(outcome, Broken) and outcome.refused:
            print_note(f"waiting for {self.url} …")
        self._told = True
        return outcome


def client(url: str | None, key: str | None, *, admin: bool = False) -> Herder:
    """A client for what the flags, the environment and the file say.

    A `.env` that merely lies in the working directory may not have a key from elsewhere sent to a URL of its choosing.
    """
    names = ("HERDER_ADMIN_KEY", "HERDER_API_KEY") if admin else ("HERDER_API_KEY",)
    where, secret = find(url, ("HERDER_URL",), DEFAULT_URL), find(key, names)
    if where.source == "file" and secret.source in ("flag", "environment"):
        raise UsageProblem(
            f"HERDER_URL is from .env but the key is not, so it was not sent there: give --url {where.value!r} "
            "if that is right"
        )
    return PatientHerder(where.value, secret.value)
