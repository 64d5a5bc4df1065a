"""How far a batch is, on stderr: a bar on a terminal, else a line now and then. Knows no herd and no files."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from llama_herder.cli import output
from llama_herder.cli.batch_files import Tally

LINE_EVERY_S = 10.0

# The first to end say little: until their time has come, all of a herd's slots are under way and none is done.
KNOWN_DONE, KNOWN_SHARE, KNOWN_S = 10, 0.25, 5.0

Show = Callable[[Tally], None]


class Pace:
    """Tokens a second and seconds to go, from what this command itself has seen."""

    def __init__(
        self,
        total: int,
        before: Tally,
        clock: Callable[[], float] = time.monotonic,
        eta_ms: int | None = None,
    ) -> None:
        """`eta_ms` is the herder's own guess, for as long as nothing better is known."""
        self._total, self._clock, self._eta_ms = total, clock, eta_ms
        self._done, self._tokens, self._since = before.done, before.tokens, clock()

    def line(self, now: Tally) -> str:
        """12/40 · 118 tokens/s · spent 96 · ETA 0:31."""
        passed = max(self._clock() - self._since, 0.001)
        speed = (now.tokens - self._tokens) / passed
        left_s = self._left_s(now, passed)
        eta = f" · ETA {_clock_of(left_s)}" if left_s is not None and now.done < self._total else ""
        counted = f"{output.money(now.done)}/{output.money(self._total)}"
        return f"{counted} · {speed:.0f} tokens/s · spent {output.money(now.captured)}{eta}"

    def _left_s(self, now: Tally, passed: float) -> float | None:
        done, most = now.done - self._done, self._total - self._done
        if passed >= KNOWN_S and done and (done >= KNOWN_DONE or done >= most * KNOWN_SHARE):
            return (self._total - now.done) * passed / done
        left_s = -1.0 if self._eta_ms is None else self._eta_ms / 1000 - passed
        return left_s if left_s >= 0 else None


def _clock_of(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextmanager
def progress(total: int, before: Tally, quiet: bool, eta_ms: int | None = None) -> Iterator[Show]:
    """What to call with each new state of things; `eta_ms` as for Pace."""
    pace = Pace(total, before, eta_ms=eta_ms)
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
