"""`herder info`, `models`, `workers`, `jobs` and `cancel`: looking at a herd and at one's jobs."""

from __future__ import annotations

from typing import Annotated

import typer

from llama_herder import Job
from llama_herder._core import one_line
from llama_herder.cli import output, session
from llama_herder.cli.batch import print_batch


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    for command in (info, models, workers, jobs, cancel):
        app.command(rich_help_panel="Use a herd")(command)


def info(url: session.Url = None, key: session.ApiKey = None, as_json: session.Json = False) -> None:
    """The price list, and how busy the herd is."""
    with session.client(url, key) as herder:
        found = herder.info()
    if as_json:
        return output.print_json(dict(found.raw))
    return output.print_fields(
        {
            "herd": f"{found.name} {found.version}",
            "prompt fee": found.set_prompt_fee,
            "fee per token": found.fee_per_token,
            "last multiplier": found.last_multiplier,
            "queued": found.queue_length,
            "models": ", ".join(found.models),
            "workers": found.workers,
            "slots": found.slots,
            "tokens per second": round(found.tokens_per_second, 1),
        }
    )


def models(url: session.Url = None, key: session.ApiKey = None, as_json: session.Json = False) -> None:
    """The herd's models, with their lines."""
    with session.client(url, key) as herder:
        found = herder.models()
    if as_json:
        return output.print_json({"models": [dict(model.raw) for model in found]})
    head = ("model", "context", "workers", "slots", "queued", "last multiplier", "tokens/s", "description")
    rows = [
        (
            m.id,
            m.context,
            m.workers,
            m.slots,
            m.queue_length,
            m.last_multiplier,
            round(m.tokens_per_second, 1),
            m.description,
        )
        for m in found
    ]
    return output.print_table(head, rows, none="no models: no worker has come yet")


def workers(url: session.Url = None, key: session.ApiKey = None, as_json: session.Json = False) -> None:
    """The herd's workers."""
    with session.client(url, key) as herder:
        found = herder.workers()
    if as_json:
        return output.print_json({"workers": [dict(worker.raw) for worker in found]})
    head = ("worker", "model", "slots", "busy", "tokens/s", "jobs done", "last seen")
    rows = [
        (
            w.id,
            w.model,
            w.slots,
            w.busy,
            round(w.tokens_per_second, 1),
            w.jobs_done,
            output.moment(w.last_seen_ms),
        )
        for w in found
    ]
    return output.print_table(head, rows, none="no workers")


def jobs(
    job_id: Annotated[str | None, typer.Argument(metavar="ID", help="one job, with its answer")] = None,
    *,
    limit: session.Limit = session.LIMIT,
    cursor: session.Cursor = None,
    url: session.Url = None,
    key: session.ApiKey = None,
    as_json: session.Json = False,
) -> None:
    """Your jobs, newest first; or one job with its answer."""
    with session.client(url, key) as herder:
        if job_id is not None:
            return _print_job(herder.job(job_id), as_json)
        found = herder.jobs(limit, cursor)
    if as_json:
        return output.print_json({"jobs": [dict(job.raw) for job in found], "next": found.next})
    head = ("job", "status", "model", "tokens", "fee", "captured", "refunded", "submitted")
    rows = [
        (
            j.id,
            output.state_of(j),
            j.model,
            j.tokens,
            j.fee,
            j.captured,
            j.refunded,
            output.moment(j.submitted_ms),
        )
        for j in found
    ]
    output.print_table(head, rows, none="no jobs")
    if found.next:
        output.print_more("jobs", limit, session.LIMIT, found.next)
    return None


def cancel(
    job_id: Annotated[str, typer.Argument(metavar="ID")],
    *,
    url: session.Url = None,
    key: session.ApiKey = None,
    as_json: session.Json = False,
) -> None:
    """Cancel a job or a batch: what is queued is refunded at once, what runs pays for what it has produced."""
    with session.client(url, key) as herder:
        if job_id.startswith("batch_"):
            return print_batch(herder.cancel_batch(job_id), as_json)
        job = herder.cancel(job_id)
    if as_json:
        return output.print_json(dict(job.raw))
    state = job.status if job.ended else "is being cancelled"
    print(f"{one_line(job.id)} {state} · {output.bill(job, None)}")
    return None


def _print_job(job: Job, as_json: bool) -> None:
    if as_json:
        return output.print_json(dict(job.raw))
    output.print_fields(
        {
            "job": job.id,
            "status": output.state_of(job),
            "model": job.model,
            "tokens": job.tokens,
            "bill": output.bill(job, None),
            "submitted": output.moment(job.submitted_ms),
            "started": output.moment(job.started_ms),
            "ended": output.moment(job.ended_ms),
            "finish": job.result.finish_reason if job.result else None,
            "error": f"{job.error.code}: {job.error.message}" if job.error else None,
            "warning": job.warning,
        }
    )
    if job.text:
        print()
        output.print_answers(job)
    return None
