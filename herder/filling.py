"""A template with variables in braces, filled with texts: substituted, never evaluated. Pure.

`{name}` is a variable, `{{` and `}}` are braces, and nothing else may be in braces: no attribute, no index, no format,
no number. What is put in is not looked at again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

NAME = r"[A-Za-z_][A-Za-z0-9_]{0,63}"
VARIABLES_MAX = 64
SHOWN_CHARS = 40
ANSWER = "text"
"""What the answer is called in a run's result, beside the parameters."""

_PART = re.compile(r"\{\{|\}\}|\{(" + NAME + r")\}|[{}]")


class Unfilled(ValueError):
    """A template that cannot be filled; `field` is what is to be changed: `template` or `parameters.question`."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def variables(template: str) -> tuple[str, ...]:
    """The variables of a template, in order, each once. Raises Unfilled for a brace that is none's."""
    found: dict[str, None] = {}
    for part in _PART.finditer(template):
        if part[1] is not None:
            found[part[1]] = None
        elif len(part[0]) == 1:
            shown = template[part.start() : part.start() + SHOWN_CHARS]
            raise Unfilled(
                "template",
                f"character {part.start() + 1}, {shown!r}: a variable is {{name}}, of letters, digits and _; "
                "for a brace write {{ or }}",
            )
    if len(found) > VARIABLES_MAX:
        raise Unfilled("template", f"{len(found)} variables are more than {VARIABLES_MAX}")
    if ANSWER in found:
        raise Unfilled("template", f"a variable cannot be called {ANSWER}: that is the answer in the result")
    return tuple(found)


def chosen(template: str, given: Mapping[str, str], defaults: Mapping[str, str]) -> dict[str, str]:
    """What each variable of the template is: as given, else by default. Raises Unfilled for one missing or unknown."""
    names = variables(template)
    there = f"the template's are: {', '.join(names)}" if names else "the template has none"
    for name in given:
        if name not in names:
            raise Unfilled(f"parameters.{name}", f"is no variable of the template; {there}")
    for name in names:
        if name not in given and name not in defaults:
            raise Unfilled(f"parameters.{name}", f"is missing; {there}")
    return dict(given) | {name: defaults[name] for name in names if name not in given}


def filled(template: str, parameters: Mapping[str, str], bytes_max: int) -> str:
    """The template with its variables' texts; `parameters` has them all. Raises Unfilled where it becomes too long."""
    pieces: list[str] = []
    at = 0
    for part in _PART.finditer(template):
        pieces += [template[at : part.start()], parameters[part[1]] if part[1] is not None else part[0][0]]
        at = part.end()
    pieces.append(template[at:])
    # Counted before it is put together: a short template may name a long text often.
    fits = sum(map(len, pieces)) <= bytes_max
    text = "".join(pieces) if fits else ""
    if not fits or len(text.encode()) > bytes_max:
        raise Unfilled(
            "parameters", f"the prompt becomes longer than {bytes_max} bytes (HERDER_PROMPT_BYTES_MAX)"
        )
    return text
