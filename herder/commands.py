"""The server's commands of `herder`: up, serve, courier, demo, audit, config, admin-key. Each loads what it runs."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from herder.embedded import answers, socket_url
from herder.errors import SetupError
from herder.settings import Settings
from herder.sources import env_example, load, sources, unknown_variables

PANEL = "Run a herd"
COLUMNS_MAX = 10_000

Host = Annotated[str | None, typer.Option("--host", help="address the API listens on")]
Port = Annotated[int | None, typer.Option("--port", help="port the API listens on; 0 takes a free one")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="where the embedded herd keeps its data")]
RedisUrl = Annotated[
    str | None, typer.Option("--redis-url", help="a Redis to use instead of the embedded one")
]
Workers = Annotated[int | None, typer.Option("--workers", help="workers for each model")]
Model = Annotated[
    list[str] | None,
    typer.Option(
        "--model", help="herd-tiny, file.gguf, hf:owner/repo/file.gguf, or name=any of these; repeatable"
    ),
]
Slots = Annotated[int | None, typer.Option("--slots", help="jobs a worker decodes at once")]
Ctx = Annotated[int | None, typer.Option("--ctx", help="most tokens (prompt + answer) of one job")]
Threads = Annotated[int | None, typer.Option("--threads", help="threads of a worker")]
GpuLayers = Annotated[int | None, typer.Option("--gpu-layers", help="layers on the GPU; -1 for all")]
Gpu = Annotated[str | None, typer.Option("--gpu", help="0,1: workers on each of the two; 0+1: one over both")]
TensorSplit = Annotated[
    str | None, typer.Option("--tensor-split", help="shares of the model of a worker's GPUs, such as 3,1")
]
Template = Annotated[
    list[str] | None,
    typer.Option(
        "--template", help="chat template: llama-2, chatml or a file, or model=any of these; repeatable"
    ),
]
Supervised = Annotated[bool, typer.Option("--supervised", hidden=True)]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]


def register(app: typer.Typer) -> None:
    """Add the server's commands to the command line."""
    commands: dict[str, Callable[..., None]] = {
        "up": up, "serve": serve, "courier": courier, "demo": demo, "audit": audit, "config": config,
        "admin-key": admin_key,
    }  # fmt: skip
    for name, command in commands.items():
        app.command(name, rich_help_panel=PANEL)(command)


def up(  # noqa: PLR0917 (typer reads options from arguments)
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
    redis_url: RedisUrl = None,
    workers: Workers = None,
    model: Model = None,
    slots: Slots = None,
    ctx: Ctx = None,
    threads: Threads = None,
    gpu_layers: GpuLayers = None,
    gpu: Gpu = None,
    tensor_split: TensorSplit = None,
    template: Template = None,
) -> None:
    """Run a whole herd on this machine: Redis, the API, the courier, the workers. Ctrl-C drains and stops."""
    from herder import up as herd_up

    _warn_of_unknown()
    settings = load(
        host=host, port=port, data_dir=data_dir, redis_url=redis_url, workers=workers,
        model=tuple(model) if model else None, slots=slots, ctx=ctx, threads=threads, gpu_layers=gpu_layers,
        gpu=gpu, tensor_split=tensor_split, template=tuple(template) if template else None,
    )  # fmt: skip
    raise typer.Exit(asyncio.run(herd_up.run(settings)))


def serve(
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
    redis_url: RedisUrl = None,
    supervised: Supervised = False,
) -> None:
    """Run the API alone, on a Redis that is there already."""
    from herder import logs
    from herder.serve import serve as serve_api

    if not supervised:
        _warn_of_unknown()
    settings = _with_redis(load(host=host, port=port, data_dir=data_dir, redis_url=redis_url))
    logs.configure(settings)
    serve_api(settings)


def courier(data_dir: DataDir = None, redis_url: RedisUrl = None, supervised: Supervised = False) -> None:
    """Run the courier alone: lapsed leases, webhooks."""
    from herder import courier as herd_courier
    from herder import logs

    if not supervised:
        _warn_of_unknown()
    settings = _with_redis(load(data_dir=data_dir, redis_url=redis_url))
    logs.configure(settings)
    herd_courier.run(settings)


def demo() -> None:
    """Start a herd, pay for a prompt, print the answer and the bill, stop."""
    from herder import demo as herd_demo

    raise typer.Exit(asyncio.run(herd_demo.run(load())))


def audit(data_dir: DataDir = None, redis_url: RedisUrl = None, as_json: AsJson = False) -> None:
    """Fold every posting and compare all balances and holds; exits 1 on drift."""
    settings = _with_redis(load(data_dir=data_dir, redis_url=redis_url))
    raise typer.Exit(asyncio.run(_audit(settings, as_json=as_json)))


async def _audit(settings: Settings, *, as_json: bool) -> int:
    from dataclasses import asdict

    from herder.audit import audit as fold
    from herder.broker import connect

    broker = await connect(settings, attempts=5)
    try:
        report = await fold(broker)
    finally:
        await broker.close()
    if as_json:
        print(json.dumps(asdict(report) | {"clean": report.clean}))
        return 0 if report.clean else 1
    table = Table("account", "available", "by postings", "held", "by postings ", "postings", "verdict")
    for row in report.rows:
        cells = (row.available, row.available_folded, row.held, row.held_folded, row.postings)
        table.add_row(
            row.account, *(f"{n:,}".replace(",", " ") for n in cells), "DRIFT" if row.drifted else "ok"
        )
    for name, balance, folded in (
        ("revenue", report.revenue, report.revenue_folded),
        ("mint", report.mint, report.mint_folded),
    ):
        amounts = (f"{n:,}".replace(",", " ") for n in (balance, folded))
        table.add_row(name, *amounts, "", "", "", "ok" if balance == folded else "DRIFT")
    console = _console()
    console.print(table)
    for problem in report.problems:
        console.print(f"DRIFT: {problem}", markup=False)
    console.print(
        "clean: every balance is the fold of its postings, and all sum to 0" if report.clean else "NOT CLEAN"
    )
    return 0 if report.clean else 1


def config(  # noqa: PLR0917 (typer reads options from arguments)
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
    redis_url: RedisUrl = None,
    workers: Workers = None,
    as_json: AsJson = False,
    example: Annotated[bool, typer.Option("--env-example", help="print .env.example")] = False,
) -> None:
    """Every setting in force, and where its value comes from."""
    if example:
        print(env_example(), end="")
        return
    flags: dict[str, Any] = {
        "host": host, "port": port, "data_dir": data_dir, "redis_url": redis_url, "workers": workers,
    }  # fmt: skip
    given = frozenset(name for name, value in flags.items() if value is not None)
    rows = sources(load(**flags), given)
    if as_json:
        print(json.dumps({row.variable: {"value": row.value, "source": row.source} for row in rows}))
        return
    table = Table(*(Column(name, overflow="fold") for name in ("setting", "value", "source")))
    for row in rows:
        table.add_row(row.variable, Text(row.value), row.source)
    _console().print(table)
    _warn_of_unknown()


def admin_key(
    label: Annotated[str, typer.Option("--label", help="what the key is for")] = "",
    data_dir: DataDir = None,
    redis_url: RedisUrl = None,
) -> None:
    """Make an admin key, straight in Redis; it is printed once. For a herd that has none yet."""
    settings = _with_redis(load(data_dir=data_dir, redis_url=redis_url))
    print(asyncio.run(_admin_key(settings, label)))


async def _admin_key(settings: Settings, label: str) -> str:
    from herder.bootstrap import new_admin_key
    from herder.broker import connect

    broker = await connect(settings, attempts=5)
    try:
        return await new_admin_key(broker, settings, label)
    finally:
        await broker.close()


def _warn_of_unknown() -> None:
    """A mistyped setting would go unnoticed; whoever is supervised leaves that to who started it."""
    for name in unknown_variables():
        typer.echo(f"warning: {name} is no setting of the herd; is it mistyped?", err=True)


def _console() -> Console:
    """As wide as the terminal is; elsewhere wide enough for every table, so that scripts and `grep` find all of it."""
    return Console(width=None if sys.stdout.isatty() else COLUMNS_MAX)


def _with_redis(settings: Settings) -> Settings:
    """The settings with a Redis URL: the one given, or that of the herd that runs in the data directory."""
    if settings.redis_url:
        return settings
    url = socket_url(settings.data_dir)
    if not asyncio.run(answers(url)):
        raise SetupError(
            f"no herd runs in {settings.data_dir.resolve()}: start one with `herder up`, name its folder with "
            "--data-dir, or set HERDER_REDIS_URL"
        )
    return settings.model_copy(update={"redis_url": url})
