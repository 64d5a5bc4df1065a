"""What the command line prints, and the exit codes there are: answers on stdout, everything else on stderr.

Must not know how the values were fetched. Text from elsewhere never reaches a terminal with control characters.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime
from enum import IntEnum
from typing import Any, TextIO

from llama_herder._core import one_line
from llama_herder.types import Job


class Exit(IntEnum):
    """What a script can tell from the exit code."""

    OK = 0
    FAILED = 1  # the job has no answer, an audit found drift, or what was to be printed could not be written
    USAGE = 2  # the command or the request is wrong
    AUTHENTICATION = 3
    PAYMENT = 4
    NOT_FOUND = 5
    UNAVAILABLE = 6  # the same command may succeed later
    INTERRUPTED = 130


class UsageProblem(Exception):
    """The command cannot be carried out as it was typed; nothing was sent."""


class CannotWrite(Exception):
    """Standard output takes no more."""


def say(line: str) -> None:
    """A line on stderr; one that cannot be written is no reason to stop."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        drop(sys.stderr)


def drop(stream: TextIO) -> None:
    """What a stream still has in its buffer goes nowhere, so that Python does not complain about it at its end."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def print_error(line: str) -> None:
    """`error: …`, one line on stderr."""
    say(f"error: {line}")


def stuck() -> str | None:
    """Why standard output takes no more, if it does not; to be asked after an error only, since it tries a line."""
    try:
        print(flush=True)
    except OSError as error:
        return (error.strerror or "it broke").lower()
    return None


@contextmanager
def written(what: str, otherwise: str) -> Iterator[None]:
    """Around the printing of something that was paid for or is shown once; `otherwise` says what to do without it."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        why = (error.strerror or "it broke").lower()
        raise CannotWrite(f"{what} could not be written ({why}); {otherwise}") from error


def answer_written(job_id: str) -> AbstractContextManager[None]:
    """Around the printing of an answer, or of a part of it."""
    return written("the answer", f"it is paid for, and `herder jobs {one_line(job_id)}` reads it again")


def print_json(value: Any) -> None:
    """JSON on stdout: indented on a terminal, one line for a script."""
    print(json.dumps(value, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None))


def print_json_line(value: Any) -> None:
    """JSON on stdout, one line wherever it goes, at once."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def print_text(text: str) -> None:
    """An answer on stdout: as it is for a pipe, without control characters for a terminal."""
    print_piece(text if text.endswith("\n") else text + "\n")


def print_answers(job: Job) -> None:
    """The answer on stdout; of several all, with a line `---` between two of them."""
    choices = job.result.choices if job.result else ()
    if len(choices) < 2:
        return print_text(job.text)
    for i, choice in enumerate(choices):
        if i:
            print("---")
        print_text(choice.text)
    return None


def print_piece(text: str) -> None:
    """Part of an answer, at once."""
    terminal = sys.stdout.isatty()
    sys.stdout.write("".join(c for c in text if c.isprintable() or c in "\n\t") if terminal else text)
    sys.stdout.flush()


def print_note(text: str) -> None:
    """A line beside the answer, on stderr, dim on a terminal."""
    say(_styled(text, "2", sys.stderr))


@contextmanager
def progress() -> Iterator[Callable[[Job], None] | None]:
    """A line on stderr that tells where the job is; nothing where stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status("submitting") as line:
        yield lambda job: line.update(escape(f"{one_line(job.id)} · {state_of(job)}"))


def print_more(command: str, limit: int, usual: int, cursor: str) -> None:
    """How to see the next part of a list, with the limit that was asked for."""
    asked = "" if limit == usual else f" --limit {limit}"
    print_note(f"more: herder {command}{asked} --cursor {shlex.quote(one_line(cursor))}")


def print_table(head: Sequence[str], rows: Iterable[Sequence[object]], none: str = "") -> None:
    """A table in plain columns; numbers to the right; never cut, so that scripts can read it too.

    `none` is what to say, beside it, of a table without rows.
    """
    body = [["" if cell is None else _cell(cell) for cell in row] for row in rows]
    right = [bool(body) and all(_is_number(row[i]) for row in body) for i in range(len(head))]
    widths = [max(len(row[i]) for row in [list(head), *body]) for i in range(len(head))]
    for at, row in enumerate([list(head), *body]):
        cells = [row[i].rjust(widths[i]) if right[i] else row[i].ljust(widths[i]) for i in range(len(head))]
        line = "  ".join(cells).rstrip()
        print(_styled(line, "1", sys.stdout) if at == 0 else line)
    if none and not body:
        print_note(none)


def print_fields(fields: Mapping[str, object]) -> None:
    """One thing, a field a line; empty ones are left out."""
    shown = {name: value for name, value in fields.items() if value not in (None, "")}
    width = max((len(name) for name in shown), default=0)
    for name, value in shown.items():
        print(f"{_styled(name.ljust(width), '2', sys.stdout)}  {_cell(value)}")


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return money(value)
    return f"{value:g}" if isinstance(value, float) else one_line(str(value))


def _is_number(cell: str) -> bool:
    return cell.replace(" ", "").replace(".", "", 1).lstrip("-").isdigit() or not cell


def _styled(text: str, code: str, stream: TextIO) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if stream.isatty() and not os.environ.get("NO_COLOR") else text


def money(credits_: int) -> str:
    """99950 → 99 950."""
    return f"{credits_:,}".replace(",", " ")


def moment(at_ms: int | None) -> str:
    """A time as the clock on the wall shows it; empty for none."""
    return datetime.fromtimestamp(at_ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S") if at_ms else ""


def priced(multiplier: float, automatic: bool) -> str:
    """1.5; with where it came from, and how to bound it, where the caller offered nothing."""
    note = ", automatic price: --max-fee bounds it" if automatic and multiplier > 1 else ""
    return f"{multiplier:g}{note}"


def bill(job: Job, balance: int | None, automatic: bool = False) -> str:
    """fee 75 (×1.5) · captured 65 · refunded 10 · balance 99 935."""
    fee = money(job.fee) + (f" (×{priced(job.multiplier, automatic)})" if job.multiplier != 1 else "")
    rest = (("captured", job.captured), ("refunded", job.refunded), ("balance", balance))
    return " · ".join(
        [f"fee {fee}", *(f"{name} {money(value)}" for name, value in rest if value is not None)]
    )


def state_of(job: Job) -> str:
    """Where a job is, in few words; one that has ended keeps `cancel_requested`."""
    if job.cancel_requested and not job.ended:
        return "being cancelled"
    if job.status == "queued":
        return "queued" if job.position is None else f"queued, {money(job.position)} ahead"
    return job.status
