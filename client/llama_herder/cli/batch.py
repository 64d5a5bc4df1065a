"""`herder batch`: a file of prompts to a file of answers, paid for once however often the command has to be run.

`herder batches` looks at what was sent. What is typed and what is shown; how a run goes is in `batch_run`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from llama_herder import Batch
from llama_herder._json import odd_number
from llama_herder.answers import Sampling
from llama_herder.cli import output, session
from llama_herder.cli.batch_input import read_input
from llama_herder.cli.batch_run import BatchRun
from llama_herder.cli.run import Fee, MaxFee, Model, Multiplier, Raw
from llama_herder.cli.sampling import with_sampling


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(rich_help_panel="Use a herd")(with_sampling(batch))
    app.command(rich_help_panel="Use a herd")(batches)


def batch(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="JSON lines, one item each; - is standard input")
    ],
    *,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="OUT", help="the file for the answers")],
    tokens: Annotated[int | None, typer.Option("--tokens", help="most tokens of each answer")] = None,
    text: Annotated[bool, typer.Option("--text", help="FILE is plain text, one prompt a line")] = False,
    model: Model = None,
    multiplier: Multiplier = None,
    fee: Fee = None,
    max_fee: MaxFee = None,
    as_many_as_affordable: Annotated[
        bool, typer.Option("--as-many-as-affordable", help="begin with what the balance reaches to")
    ] = False,
    stop: Annotated[
        list[str] | None, typer.Option("--stop", help="end before this text; may be repeated")
    ] = None,
    raw: Raw = False,
    webhook_url: Annotated[
        str | None, typer.Option("--webhook-url", help="is told when the batch has ended")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="begin anew; what is in OUT is lost")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress and no bill")] = False,
    url: session.Url = None,
    key: session.ApiKey = None,
    as_json: session.Json = False,
    sampling: Sampling | None = None,
) -> None:
    """Pay for a file of prompts, write their answers as they come. Run it again to go on after Ctrl-C.

    herder batch prompts.jsonl --tokens 40 -o answers.jsonl
    """
    if str(out) == "-" or (file != "-" and _same(out, Path(file))):
        raise output.UsageProblem("-o needs a file of its own, which is what makes the command repeatable")
    asked: dict[str, Any] = {"tokens": tokens, "model": model, "multiplier": multiplier, "fee": fee}
    asked |= {"max_fee": max_fee, "stop": stop, **(sampling or {})}
    asked |= {"raw": raw or None, "webhook_url": webhook_url}
    asked["charge"] = "as_many_as_affordable" if as_many_as_affordable else None
    options = {name: value for name, value in asked.items() if value not in (None, [])}
    if odd := odd_number(options):
        raise output.UsageProblem(f"{odd}; nothing was sent")
    given = read_input(file, text, tokens)
    with session.client(url, key) as herder:
        BatchRun(herder, given, options, out, quiet=quiet, as_json=as_json).go(force)


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def batches(
    batch_id: Annotated[str | None, typer.Argument(metavar="ID", help="one batch")] = None,
    *,
    limit: session.Limit = session.LIMIT,
    cursor: session.Cursor = None,
    url: session.Url = None,
    key: session.ApiKey = None,
    as_json: session.Json = False,
) -> None:
    """Your batches, newest first; or one of them."""
    with session.client(url, key) as herder:
        if batch_id is not None:
            return print_batch(herder.batch_status(batch_id), as_json)
        found = herder.batches(limit, cursor)
    if as_json:
        return output.print_json({"batches": [dict(one.raw) for one in found], "next": found.next})
    head = ("batch", "status", "prompts", "ended", "failed", "fee", "captured", "refunded", "submitted")
    rows = [
        (
            *(b.id, b.status, b.total, b.counts.ended, b.counts.failed, b.fee, b.captured, b.refunded),
            output.moment(b.created_ms),
        )
        for b in found
    ]
    output.print_table(head, rows, none="no batches")
    if found.next:
        output.print_more("batches", limit, session.LIMIT, found.next)
    return None


def print_batch(found: Batch, as_json: bool) -> None:
    """One batch on stdout."""
    if as_json:
        return output.print_json(dict(found.raw))
    counts = {name: number for name, number in found.counts.raw.items() if isinstance(number, int) and number}
    return output.print_fields(
        {
            "batch": found.id,
            "status": found.status,
            "prompts": found.total,
            "refused": found.refused or None,
            **counts,
            "tokens made": found.completion_tokens,
            "fee": found.fee,
            "captured": found.captured,
            "refunded": found.refunded,
            "held": found.held,
            "submitted": output.moment(found.created_ms),
            "ended": output.moment(found.ended_ms),
        }
    )
