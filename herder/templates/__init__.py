"""Chat templates that come with the project, for models that bring none: Jinja texts beside this file, by name."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal, get_args

Name = Literal["llama-2", "chatml"]
NAMES: tuple[Name, ...] = get_args(Name)


@cache
def text_of(name: Name) -> str:
    """The template of this name."""
    assert name in NAMES, name
    return (Path(__file__).parent / f"{name}.jinja").read_text(encoding="utf-8")
