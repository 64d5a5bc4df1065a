"""Modules: versioned prompt templates with a model and defaults, as YAML beside this file and in a folder of one's own.

What is in a file is checked here as far as it is text; whether its options are those of a job, `api.modules` knows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from herder.errors import SetupError
from herder.filling import Unfilled, variables

FILE_BYTES_MAX = 100_000
FILES_MAX = 1_000
ID = r"[a-z0-9][a-z0-9_.-]{0,62}:[A-Za-z0-9][A-Za-z0-9_.-]{0,31}"


class _File(BaseModel):
    """What stands in a file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    version: str
    description: str = Field("", max_length=1_000)
    model: str | None = None
    template: str
    parameters: dict[str, str] = Field(default_factory=dict)
    options: dict[str, Any]


@dataclass(frozen=True)
class Module:
    """A prompt template; `parameters` are what its variables are where nobody says, `options` those of its jobs."""

    name: str
    version: str
    description: str
    model: str | None
    template: str
    parameters: Mapping[str, str]
    options: Mapping[str, Any]

    @property
    def id(self) -> str:
        """`fastchat:v0.0.1`."""
        return f"{self.name}:{self.version}"


def load(folder: Path | None = None) -> dict[str, Module]:
    """Every module by its id: those that come with the herd, and those of this folder. Raises SetupError."""
    found: dict[str, Module] = {}
    for path in [*_files(Path(__file__).parent), *(_files(folder) if folder is not None else ())]:
        module = _module(path)
        if module.id in found:
            raise SetupError(f"{path}: there is a module {module.id} already; give this one another version")
        found[module.id] = module
    return dict(sorted(found.items()))


def _files(folder: Path) -> Iterator[Path]:
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix in (".yaml", ".yml"))
    except OSError as error:
        raise SetupError(
            f"HERDER_MODULES_DIR: cannot read {folder}: {(error.strerror or '').lower()}"
        ) from None
    if len(paths) > FILES_MAX:
        raise SetupError(f"HERDER_MODULES_DIR: {len(paths)} files in {folder}, {FILES_MAX} at most")
    yield from paths


def _module(path: Path) -> Module:
    try:
        with path.open("rb") as file:
            text = file.read(FILE_BYTES_MAX + 1)
        if len(text) > FILE_BYTES_MAX:
            raise SetupError(f"{path}: a module has {FILE_BYTES_MAX} bytes at most")
        told = _File.model_validate(_yaml(path, text))
        if not re.fullmatch(ID, f"{told.name}:{told.version}", re.ASCII):
            raise SetupError(
                f"{path}: {told.name}:{told.version} is no name and version such as fastchat:v0.0.1"
            )
        "".join((told.description, told.template, *told.parameters.values(), told.model or "")).encode()
        unknown = [name for name in told.parameters if name not in variables(told.template)]
        if unknown:
            raise SetupError(f"{path}: parameters.{unknown[0]}: is no variable of the template")
    except OSError as error:
        raise SetupError(f"{path}: {(error.strerror or 'cannot be read').lower()}") from None
    except UnicodeEncodeError:
        raise SetupError(f"{path}: half a character (a lone surrogate) in a text") from None
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise SetupError(
            f"{path}: {where}: {fault['msg']}" if where else f"{path}: no module: {fault['msg']}"
        ) from None
    except Unfilled as error:
        raise SetupError(f"{path}: {error.field}: {error}") from None
    except RecursionError:
        raise SetupError(f"{path}: nested too deeply") from None
    return Module(**dict(told))


def _yaml(path: Path, text: bytes) -> Any:
    try:
        return yaml.safe_load(text)
    # A date that is none, a number without end, a tag that does not fit: PyYAML lets Python's own errors out.
    except (yaml.YAMLError, ValueError, LookupError, AttributeError) as error:
        raise SetupError(f"{path}: not YAML: {' '.join(str(error).split())[:300]}") from None
