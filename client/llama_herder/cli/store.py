"""`herder store …`: the content-addressed store of a herd on this machine, in its folder; needs the extra `herder`.

Disk is nothing that an account pays for, so adding is for whoever runs the herd; over HTTP the store is only read.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from llama_herder._core import one_line
from llama_herder.cli import output, session

ROOTS_LIMIT = 100

DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="the herd's folder (HERDER_DATA_DIR)", show_default=False)
]
Where = Annotated[
    str, typer.Argument(metavar="CID[/PATH]", help="a CID, or what lies in the folder that it is")
]

app = typer.Typer(no_args_is_help=True, help="The content-addressed store of a herd on this machine.")


def register(parent: typer.Typer) -> None:
    """Add the group of this file."""
    parent.add_typer(app, name="store", rich_help_panel="Run a herd")


@app.command()
def add(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="a file, or a folder with everything in it")],
    *,
    profile: Annotated[
        str, typer.Option("--profile", help="how it is cut and linked: unixfs-v0-2015 or unixfs-v1-2025")
    ] = "unixfs-v0-2015",
    data_dir: DataDir = None,
    as_json: session.Json = False,
) -> None:
    """Put a file or a folder into the store; prints its CID, which is the one that IPFS gives it."""
    from herder.cids import PROFILES

    if profile not in PROFILES:
        raise output.UsageProblem(f"no profile {profile!r}; there are: {', '.join(PROFILES)}")
    with _store(data_dir) as store:
        link = store.add(path, PROFILES[profile])
    if as_json:
        return output.print_json({"cid": str(link.cid), "bytes": link.stored, "name": path.resolve().name})
    return print(link.cid)


@app.command()
def get(
    where: Where,
    *,
    target: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="PATH", help="write it there, where nothing is yet"),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """A file on standard output, or with --output a file or a whole folder; every block is compared with its CID."""
    with _store(data_dir) as store:
        cid = _found(store, where)
        if target is not None:
            store.export(cid, target)
            return None
        if store.size(cid) is None:
            raise output.UsageProblem(
                f"{where} is a folder: --output FOLDER writes it, `herder store ls` lists it"
            )
        if sys.stdout.isatty():
            return output.print_piece(b"".join(store.read(cid)).decode(errors="replace"))
        for piece in store.read(cid):
            sys.stdout.buffer.write(piece)
    return None


@app.command()
def ls(
    where: Annotated[
        str | None,
        typer.Argument(metavar="CID[/PATH]", help="a folder; without it what was added, newest first"),
    ] = None,
    *,
    limit: session.Limit = ROOTS_LIMIT,
    data_dir: DataDir = None,
    as_json: session.Json = False,
) -> None:
    """What was added to the store, or what is in a folder of it."""
    with _store(data_dir) as store:
        if where is None:
            return _print_roots(store, limit, as_json)
        found = store.entries(_found(store, where))
    if found is None:
        raise output.UsageProblem(f"{where} is a file: `herder store get` reads it")
    if as_json:
        rows = [{"name": entry.name, "cid": str(entry.cid), "bytes": entry.size} for entry in found]
        return output.print_json({"entries": rows})
    table = [
        (str(entry.cid), entry.size, entry.name + ("/" if entry.size is None else "")) for entry in found
    ]
    return output.print_table(("cid", "bytes", "name"), table, none="an empty folder")


def _print_roots(store: Any, limit: int, as_json: bool) -> None:
    found = store.roots(limit)
    if as_json:
        rows = [{"cid": str(r.cid), "name": r.name, "bytes": r.size, "added_ms": r.added_ms} for r in found]
        return output.print_json({"added": rows})
    table = [(str(root.cid), root.size, output.moment(root.added_ms), root.name) for root in found]
    return output.print_table(("cid", "bytes", "added", "name"), table, none=f"nothing in {store.folder}")


def _found(store: Any, where: str) -> Any:
    """The block that is meant. Raises UsageProblem for what is no CID."""
    from herder.cids import BadCid
    from herder.store import segments

    cid, _, path = where.removeprefix("/ipfs/").partition("/")
    try:
        return store.find(cid, segments(path))
    except BadCid as error:
        raise output.UsageProblem(
            f"{one_line(cid, 100)!r} is {error}; `herder store ls` lists what was added"
        ) from None


@contextmanager
def _store(data_dir: Path | None) -> Iterator[Any]:
    """The store of the herd in this folder; what goes wrong with it is one line and an exit code."""
    from herder.cids import NoSuchPath
    from herder.dagpb import BadBlock
    from herder.sources import load
    from herder.store import Absent, CannotStore, store_of

    store = store_of(load(data_dir=data_dir))
    if not store.folder.parent.is_dir():
        raise output.UsageProblem(
            f"no herd has been in {store.folder.parent}: name its folder with --data-dir, or set HERDER_STORE_DIR"
        )
    try:
        yield store
    except (Absent, NoSuchPath) as error:
        output.print_error(one_line(f"{error} ({store.folder})"))
        raise typer.Exit(output.Exit.NOT_FOUND) from None
    except (BadBlock, CannotStore) as error:
        output.print_error(one_line(str(error)))
        raise typer.Exit(output.Exit.FAILED) from None
