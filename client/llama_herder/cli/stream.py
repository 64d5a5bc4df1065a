"""`herder run --stream`: the answer on standard output while it is made, or each event as a line of JSON.

What stands on standard output in the end is the answer and nothing else. A terminal shows a second beginning after
the first; of a pipe or a file nothing can be taken back, so an answer that starts again goes on there only where it
says the same again, and otherwise the command fails.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import replace
from typing import Protocol

from llama_herder import Done, Event, Herder, HerderError, Job, JobFailed, Queued, Restarted, Started, Tokens
from llama_herder._core import one_line
from llama_herder.cli import output


class Shown(Protocol):
    """What a stream looks like on standard output."""

    def event(self, event: Event) -> None:
        """One that is not the last."""

    def ended(self, job: Job, balance: int | None) -> None:
        """The last, or what is known of it."""

    def broken_off(self) -> None:
        """Nothing more will come, and it was not the end."""


def shown_as(as_json: bool, reasoning: bool = False) -> Shown:
    """Text (on request with what the model thinks first), or JSON."""
    return Lines() if as_json else Text(Thoughts() if reasoning else None)


class Thoughts:
    """What a model thinks before it answers, line by line on standard error."""

    def __init__(self) -> None:
        self._line = ""

    def add(self, text: str) -> None:
        """More of it."""
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            output.print_note(one_line(line))

    def end(self) -> None:
        """The answer begins, or what was thought is void."""
        if self._line:
            output.print_note(one_line(self._line))
            self._line = ""


def without_answer(job: Job, shown: bool) -> str:
    """What to do where all that was paid for is reasoning; empty where there is an answer. `shown`: it was printed."""
    if job.status != "succeeded" or job.result is None or not job.reasoning:
        return ""
    if any(answer.text.strip() for answer in (job.result, *job.result.choices)):
        return ""
    spent = f"all {output.money(job.result.completion_tokens)} tokens were reasoning"
    more = ["more --tokens"] if job.result.finish_reason == "length" else []
    return f"{spent}: {' or '.join([*more, *([] if shown else ['--reasoning to see it'])])}".removesuffix(
        ": "
    )


class Lines:
    """One line of JSON for each event: its kind, its id, its fields; the last has the job."""

    def event(self, event: Event) -> None:
        """One that is not the last."""
        output.print_json_line({"event": type(event).__name__.lower(), "id": event.id, **event.raw})

    def ended(self, job: Job, balance: int | None) -> None:
        """The last, or what is known of it."""
        failed = {"event": "error", "error": job.raw.get("error")}
        kind = failed if job.status == "failed" else {"event": "done"}
        output.print_json_line({**kind, "job": {**job.raw, "balance": balance}})

    def broken_off(self) -> None:
        """Every line is whole."""


class Text:
    """The answer, as it comes."""

    def __init__(self, thoughts: Thoughts | None = None) -> None:
        self._thoughts = thoughts
        self._written = ""  # on standard output
        self._answer = ""  # of this attempt, which may have to catch up with an earlier one

    def event(self, event: Event) -> None:
        """One that is not the last."""
        if self._thoughts and isinstance(event, Tokens | Restarted):
            self._thoughts.add(event.reasoning if isinstance(event, Tokens) else "")
            if isinstance(event, Restarted) or event.text:
                self._thoughts.end()
        if isinstance(event, Tokens):
            self._answer += event.text
            if self._answer.startswith(self._written):
                self._write(self._answer[len(self._written) :])
        elif isinstance(event, Restarted):
            self._answer = ""
            if self._written:
                self._end_line_of_terminal()
                output.print_note("a worker died; the answer starts again")

    def ended(self, job: Job, balance: int | None) -> None:
        """Completes the answer. Raises CannotWrite where something else stands there."""
        if not job.text and job.status != "succeeded":
            return self.broken_off()
        if self._thoughts:
            self._thoughts.end()
        if not job.text.startswith(self._written):
            self._end_line_of_terminal()
        if not job.text.startswith(self._written):
            raise output.CannotWrite(
                "a worker died, and the answer that was begun here ended differently; it is paid for, and "
                f"`herder jobs {one_line(job.id)}` reads it"
            )
        rest = job.text[len(self._written) :]
        return self._write(rest if job.text.endswith("\n") else rest + "\n")

    def broken_off(self) -> None:
        """Ends the line, so that what is said of it stands on one of its own."""
        if self._thoughts:
            self._thoughts.end()
        if self._written and not self._written.endswith("\n"):
            self._write("\n")

    def _end_line_of_terminal(self) -> None:
        if sys.stdout.isatty() and self._written:
            self._write("" if self._written.endswith("\n") else "\n")
            self._written = ""

    def _write(self, text: str) -> None:
        output.print_piece(text)
        self._written += text


def followed(herder: Herder, job: Job, timeout: float | None, shown: Shown) -> Job:
    """Shows a job's events as they come; the job as it ended, however it ended."""
    with herder.events(job, timeout=timeout) as events:
        return watched(events, job, shown)


def watched(
    events: Iterable[Event], job: Job, shown: Shown, accepted: Callable[[Job], None] | None = None
) -> Job:
    """The same of events that are being read; `accepted` is told the job once it is known."""
    with ExitStack() as line:
        show = line.enter_context(output.progress())
        try:
            for event in events:
                if isinstance(event, Done):
                    return event.job
                if isinstance(event, Queued):
                    job = replace(job, id=event.job_id or job.id, status="queued", position=event.position)
                    if accepted is not None:
                        accepted(job)
                if isinstance(event, Tokens):
                    line.close()
                elif show is not None and isinstance(event, Queued):
                    show(job)
                elif show is not None and isinstance(event, Started):
                    show(replace(job, status="running"))
                with output.answer_written(job.id):
                    shown.event(event)
        except JobFailed as error:
            return error.job
        except HerderError:
            with output.answer_written(job.id):
                shown.broken_off()
            raise
    raise AssertionError("a stream ends with its last event")
