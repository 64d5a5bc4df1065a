"""One run of `herder batch`, the first or a later one: where things stand, submitting, writing the answers down.

The order is what makes it repeatable: the key is on disk before the batch is sent, the batch's id before its answers.
"""

from __future__ import annotations

import time
import uuid
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from llama_herder import (
    Batch,
    Herder,
    HerderError,
    InvalidKey,
    InvalidRequest,
    NotFound,
    RateLimited,
    Refusal,
)
from llama_herder._batch_calls import upload
from llama_herder._core import one_line
from llama_herder.cli import output
from llama_herder.cli.batch_files import Answers, Begun, State, Tally
from llama_herder.cli.batch_input import Input
from llama_herder.cli.batch_progress import progress

# A herder forgets an idempotency key after a day, unless it is told otherwise.
KEY_KNOWN_MS = 23 * 3_600_000
# What is said of a submission that may have been accepted before, and that says that it was not.
_NOT_TAKEN = frozenset({402, 413, 422})
_AGAIN = "the same command goes on with it"
_FINDS_OUT = "the same command finds out, and never pays twice"


class BatchRun:
    """From a file of prompts to a file of answers."""

    def __init__(
        self, herder: Herder, given: Input, options: dict[str, Any], out: Path, *, quiet: bool, as_json: bool
    ) -> None:
        self._herder, self._given, self._options, self._out = herder, given, options, out
        self._quiet, self._as_json = quiet, as_json
        self._state = State(out)
        self._eta_ms: int | None = None
        self._last: Batch | None = None  # as it ended, where that is to be printed

    def go(self, force: bool) -> None:
        """1. Find out where things stand. 2. Submit, unless that is known to have happened. 3. Write the answers."""
        answers = Answers(self._out)
        kept = False
        try:
            before = None if force else self._state.load()
            begun = self._new(answers, force) if before is None else self._checked(before)
            if begun.batch_id is None:
                begun = self._submitted(begun, answers, first=before is None)
            kept = True
            tally = self._written(begun, answers)
        finally:
            answers.close(drop=not kept)
        self._told(begun, tally)

    def _new(self, answers: Answers, force: bool) -> Begun:
        if not answers.empty and not force:
            why = "is there already and belongs to no unfinished batch: choose another -o, or --force to lose it"
            raise output.UsageProblem(f"{self._out} {why}")
        return Begun(
            url=self._herder.url,
            account=self._herder.account().id,
            input_sha256=self._given.sha256,
            options=self._options,
            idempotency_key=str(uuid.uuid4()),
            begun_ms=_now_ms(),
        )

    def _checked(self, before: Begun) -> Begun:
        """What was begun, if this is the command that began it."""
        facts = (
            ("of another herd", self._herder.url, before.url),
            ("of another input", self._given.sha256, before.input_sha256),
            ("with other options", self._options, dict(before.options)),
        )
        other = [what for what, ours, theirs in facts if ours != theirs]
        if other:
            name = before.batch_id or "the batch"
            ends = f" (`herder cancel {name}` ends the old one)" if before.batch_id else ""
            raise output.UsageProblem(
                f"{self._out} is unfinished, and {name} is {' and '.join(other)}: run the command that began it, "
                f"choose another -o, or begin anew with --force{ends}; nothing was sent"
            )
        if before.batch_id is None and _now_ms() - before.begun_ms > KEY_KNOWN_MS:
            raise output.UsageProblem(
                f"nobody knows whether this batch was accepted on {output.moment(before.begun_ms)}, and it is too "
                "long ago to ask: `herder batches` shows; --force begins anew"
            )
        return before

    def _submitted(self, begun: Begun, answers: Answers, first: bool) -> Begun:
        """On record first, so that whatever happens the same key is used again."""
        if not first:
            self._check_account(begun)
        self._state.save(begun)
        try:
            call = upload(self._given.lines, self._options, begun.idempotency_key)
            # What to do with the key is for callers who keep it themselves; here the state file does.
            accepted = self._herder._call(replace(call, unsure=""))
        except KeyboardInterrupt:
            output.print_error(f"interrupted while submitting: {_FINDS_OUT}")
            raise typer.Exit(output.Exit.INTERRUPTED) from None
        except HerderError as error:
            if error.status in _NOT_TAKEN or (first and _refused(error)):
                self._state.forget()
            self._explain(error)
            raise
        self._eta_ms = accepted.eta_ms
        begun = begun.accepted(accepted.id, accepted.total, accepted.refused)
        answers.clear()
        self._state.save(begun)
        if not (self._quiet or self._as_json):
            output.print_note(_accepted(accepted))
        return begun

    def _check_account(self, begun: Begun) -> None:
        """To begin anew with another key would be to pay again."""
        account = self._herder.account().id
        if account != begun.account:
            whose = f"{one_line(begun.account)}'s unfinished {one_line(begun.batch_id or 'batch')}"
            raise output.UsageProblem(
                f"{self._out} is {whose}, and this key is {one_line(account)}'s: use a key of "
                f"{one_line(begun.account)}; nothing was sent"
            )

    def _explain(self, error: HerderError) -> None:
        """Adds to a failed submission what only this side knows."""
        if error.extra.get("affordable_items"):
            error.detail += "; --as-many-as-affordable begins with those"
        elif isinstance(error, InvalidRequest) and error.detail.startswith("line "):
            error.detail = f"nothing was charged: {self._given.name}, {error.detail}"
        elif not _refused(error):
            error.detail += f"; the batch may have been accepted: {_FINDS_OUT}"

    def _written(self, begun: Begun, answers: Answers) -> Tally:
        assert begun.batch_id is not None
        batch_id = one_line(begun.batch_id)
        tally = answers.resume()
        try:
            with (
                progress(begun.total, tally, self._quiet, self._eta_ms) as show,
                closing(self._herder.batch_results(begun.batch_id, cursor=tally.cursor)) as results,
            ):
                for result in results:
                    answers.write(result)
                    tally.add(result)
                    show(tally)
            answers.sync()
            self._last = self._herder.batch_status(begun.batch_id) if self._as_json else None
        except KeyboardInterrupt:
            output.say(f"\n{batch_id} goes on: {_AGAIN}, `herder cancel {batch_id}` ends it")
            raise typer.Exit(output.Exit.INTERRUPTED) from None
        except output.CannotWrite as error:
            raise output.CannotWrite(f"{error}; {batch_id} goes on: {_AGAIN}") from error
        except NotFound as error:
            self._check_account(begun)
            error.detail += (
                f"; answers are kept for a while only. {_left(self._out, tally)}--force begins anew"
            )
            raise
        except InvalidKey as error:
            error.detail += f"; {_AGAIN} once HERDER_API_KEY is another key of {one_line(begun.account)}"
            raise
        except HerderError as error:
            error.detail += f"; {_AGAIN}"
            raise
        self._state.forget()
        return tally

    def _told(self, begun: Begun, tally: Tally) -> None:
        if self._last is not None:
            output.print_json(dict(self._last.raw))
        elif not self._quiet:
            output.print_note(_bill(begun, tally))
        if begun.refused or tally.done != tally.by_status.get("succeeded", 0):
            raise typer.Exit(output.Exit.FAILED)


def _left(out: Path, tally: Tally) -> str:
    """What `--force` would throw away."""
    return f"{out} has the {output.money(tally.done)} that came before, keep a copy: " if tally.done else ""


def _refused(error: HerderError) -> bool:
    return isinstance(error, Refusal) and not isinstance(error, RateLimited)


def _now_ms() -> int:
    return int(time.time() * 1000)


def _accepted(found: Batch) -> str:
    refused = f" · refused {output.money(found.refused)}" if found.refused else ""
    return (
        f"{one_line(found.id)} · prompts {output.money(found.total)}{refused} · fee {output.money(found.fee)}"
    )


def _bill(begun: Begun, tally: Tally) -> str:
    statuses = ("succeeded", "failed", "cancelled", "expired")
    counts = [(name, tally.by_status.get(name, 0)) for name in statuses]
    shown = [(name, count) for name, count in counts if count or name == "succeeded"]
    if begun.refused:
        shown.append(("refused", begun.refused))
    shown += [("captured", tally.captured), ("refunded", tally.refunded)]
    return " · ".join(f"{name} {output.money(number)}" for name, number in shown)
