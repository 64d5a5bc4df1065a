"""Where each setting's value comes from: flag, environment, file or default; `.env.example`, made from the settings."""

from __future__ import annotations

import json
import os
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from pydantic import SecretStr, ValidationError
from pydantic_settings import SettingsError

from herder.errors import SetupError
from herder.settings import Settings

PREFIX = "HERDER_"
ENV_FILE = Path(".env")
# Read by the client, its command line, a receiver of webhooks or docker-compose; not settings of the herd.
CLIENT_VARIABLES = frozenset(
    {"HERDER_URL", "HERDER_API_KEY", "HERDER_ADMIN_KEY", "HERDER_WEBHOOK_SECRET", "HERDER_PUBLISHED_PORT"}
)


@dataclass(frozen=True)
class Source:
    """One setting: its variable, its value as the environment would hold it (secrets masked), and where from."""

    variable: str
    value: str
    source: str
    description: str


def load(**flags: Any) -> Settings:
    """The settings in force; flags that are None were not given. Raises SetupError naming what is wrong."""
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = PREFIX + str(first["loc"][0]).upper() if first["loc"] else "the settings"
        message = first["msg"].removeprefix("Value error, ").replace("Input should be", "must be", 1)
        # Of numbers only: other settings may hold a password.
        if first["type"].endswith(("_parsing", "_than", "_than_equal")):
            message += f", not {str(first['input'])[:40]}"
        raise SetupError(f"{name}: {message}; see `herder config`") from error
    except (SettingsError, UnicodeDecodeError, OSError) as error:
        raise SetupError(f"{ENV_FILE} or the environment cannot be read: {error}") from error


def sources(settings: Settings, flags: frozenset[str] = frozenset()) -> list[Source]:
    """Every setting of `settings` with its source; `flags` are the names given on the command line."""
    in_file = {name.upper() for name in dotenv_values(ENV_FILE)} if ENV_FILE.exists() else set()
    in_environment = {name.upper() for name in os.environ}
    rows = []
    for name, field in Settings.model_fields.items():
        variable = PREFIX + name.upper()
        if name in flags:
            source = "flag"
        elif variable in in_environment:
            source = "environment"
        elif variable in in_file:
            source = f"file {ENV_FILE}"
        else:
            source = "default"
        rows.append(Source(variable, shown(getattr(settings, name)), source, field.description or ""))
    return rows


def unknown_variables() -> list[str]:
    """HERDER_ variables of the environment or the file that are no setting: most likely mistyped."""
    known = {PREFIX + name.upper() for name in Settings.model_fields} | CLIENT_VARIABLES
    in_file = set(dotenv_values(ENV_FILE)) if ENV_FILE.exists() else set()
    return sorted(name for name in set(os.environ) | in_file if name.startswith(PREFIX) and name not in known)


def shown(value: Any) -> str:
    """A value as a person may see it."""
    if isinstance(value, SecretStr):
        return "********" if value.get_secret_value() else ""
    if isinstance(value, tuple):
        return ",".join(str(part) for part in value)
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else re.sub(r"(?<=://)[^/@]*@", "***@", str(value))


def as_environment(value: object) -> str:
    """A setting as an environment variable holds it."""
    secret = getattr(value, "get_secret_value", None)
    if secret is not None:
        return str(secret())
    if isinstance(value, tuple):
        return ",".join(str(part) for part in value)
    return json.dumps(value) if isinstance(value, bool) else str(value)


def env_example() -> str:
    """The text of `.env.example`: every setting with its default, commented out."""
    lines = [
        "# Settings of a herd. Copy to .env and uncomment what you change. Flag over environment over file."
    ]
    for name, field in Settings.model_fields.items():
        lines.append("")
        lines += textwrap.wrap(field.description or "", 110, initial_indent="# ", subsequent_indent="# ")
        lines.append(f"#{PREFIX}{name.upper()}={shown(field.default)}")
    return "\n".join(lines) + "\n"
