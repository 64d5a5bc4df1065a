"""How far a batch is, on stderr: a bar on a terminal, else a line now and then. Knows no herd and no files."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from llama_herder.cli import output
from llama_herder.cli.batch_files import Tally

LINE_EVERY_S = 10.0

Show = Callable[[Tally], None]


class Pace:
    """Tokens a second and seconds to go, from what this command itself has seen."""

    def __init__(self, total: int, before: Tally, clock: Callable[[], float] = time.monotonic) -> None:
        self._total, self._clock = total, clock
        self._done, self._tokens, self._since = before.done, before.tokens, clock()

    def line(self, now: Tally) -> str:
        """12/40 · 118 tokens/s · spent 96 · ETA 0:31."""
        passed = max(self._clock() - self._since, 0.001)
        speed = (now.tokens - self._tokens) / passed
        done = now.done - self._done
        eta = ""
        if done and now.done < self._total:
            eta = f" · ETA {_clock_of((self._total - now.done) * passed / done)}"
        counted = f"{output.money(now.done)}/{output.money(self._total)}"
        return f"{counted} · {speed:.0f} tokens/s · spent {output.money(now.captured)}{eta}"


def _clock_of(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextmanager
def progress(total: int, before: Tally, quiet: bool) -> Iterator[Show]:
    """What to call with each new state of things."""
    pace = Pace(total, before)
    if quiet:
        yield lambda tally: None
    elif sys.stderr is not None and sys.stderr.isatty():
        with _bar(total, before, pace) as show:
            yield show
    else:
        yield _lines(pace)


@contextmanager
def _bar(total: int, before: Tally, pace: Pace) -> Iterator[Show]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (BarColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(escape(pace.line(before)), total=total, completed=before.done)

        def show(tally: Tally) -> None:
            bar.update(task, completed=tally.done, description=escape(pace.line(tally)))

        yield show


def _lines(pace: Pace, clock: Callable[[], float] = time.monotonic) -> Show:
    told = clock()

    def show(tally: Tally) -> None:
        nonlocal told
        if clock() - told >= LINE_EVERY_S:
            told = clock()
            output.say(pace.line(tally))

    return show
