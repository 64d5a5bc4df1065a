"""`herder account …`: the own account, and with an admin's key everybody's."""

from __future__ import annotations

import shlex
from contextlib import AbstractContextManager
from typing import Annotated

import typer

from llama_herder import Account, Herder, HerderError, Key, LedgerEntry, Page
from llama_herder._core import one_line
from llama_herder.cli import output, session

Name = Annotated[str, typer.Argument(metavar="NAME", help="the account")]
Amount = Annotated[int, typer.Argument(metavar="AMOUNT", help="credits")]

ACCOUNTS_LIMIT = 100

app = typer.Typer(invoke_without_command=True)


def register(parent: typer.Typer) -> None:
    """Add the group of this file."""
    parent.add_typer(app, name="account", rich_help_panel="Use a herd")


@app.callback()
def account(
    ctx: typer.Context, url: session.Url = None, key: session.ApiKey = None, as_json: session.Json = False
) -> None:
    """Your account; with an admin's key, everybody's."""
    if ctx.invoked_subcommand is not None:
        if url or key or as_json:
            raise output.UsageProblem(
                f"options belong behind the command: herder account {ctx.invoked_subcommand} …"
            )
        return
    with session.client(url, key) as herder:
        _print_account(herder.account(), as_json)


@app.command()
def ledger(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="another account (with an admin's key)")
    ] = None,
    *,
    limit: session.Limit = session.LIMIT,
    cursor: session.Cursor = None,
    url: session.Url = None,
    key: session.ApiKey = None,
    as_json: session.Json = False,
) -> None:
    """Every movement of credits, newest first."""
    with session.client(url, key, admin=name is not None) as herder:
        found = herder.ledger(limit, cursor) if name is None else herder.admin.ledger(name, limit, cursor)
    if as_json:
        return output.print_json({"entries": [dict(entry.raw) for entry in found], "next": found.next})
    _print_ledger(found)
    if found.next:
        output.print_more(
            "account ledger" if name is None else f"account ledger {shlex.quote(name)}",
            limit,
            session.LIMIT,
            found.next,
        )
    return None


def _print_ledger(found: Page[LedgerEntry]) -> None:
    head = ("when", "kind", "from", "to", "amount", "job", "memo")
    rows = [(output.moment(e.at_ms), e.kind, e.source, e.target, e.amount, e.job_id, e.memo) for e in found]
    output.print_table(head, rows, none="no movements")


@app.command()
def create(
    name: Name,
    *,
    credits_: Annotated[int, typer.Option("--credits", help="credits to begin with")] = 0,
    label: Annotated[str | None, typer.Option("--label", help="a label for its key")] = None,
    url: session.Url = None,
    key: session.AdminKey = None,
    as_json: session.Json = False,
) -> None:
    """A new account with a key, which is shown this once."""
    with session.client(url, key, admin=True) as herder:
        made = herder.admin.create(name, credits_)
        new = _first_key(herder, name, label)
    with _shown_once(new):
        if as_json:
            return output.print_json({"account": dict(made.raw), "key": dict(new.raw)})
        _print_account(made, False)
        return _print_new_key(new)


def _shown_once(new: Key) -> AbstractContextManager[None]:
    name, key_id = shlex.quote(one_line(new.account)), one_line(new.id)
    return output.written(
        f"the key {key_id}",
        f"`herder account keys {name} --revoke {key_id}` ends it, and --new makes another",
    )


def _first_key(herder: Herder, name: str, label: str | None) -> Key:
    try:
        return herder.admin.create_key(name, None, label)
    except HerderError as error:
        hint = f"account {name} was created, but has no key yet ({error.detail}): herder account keys {name} --new"
        error.detail = hint
        raise


@app.command()
def deposit(
    name: Name,
    amount: Amount,
    *,
    memo: Annotated[str | None, typer.Option("--memo", help="why")] = None,
    deposit_id: Annotated[
        str | None, typer.Option("--deposit-id", help="the same id is counted once")
    ] = None,
    url: session.Url = None,
    key: session.AdminKey = None,
    as_json: session.Json = False,
) -> None:
    """Put credits into an account."""
    with session.client(url, key, admin=True) as herder:
        _print_account(herder.admin.deposit(name, amount, memo, deposit_id), as_json)


@app.command(context_settings={"ignore_unknown_options": True})
def adjust(
    name: Name,
    amount: Annotated[int, typer.Argument(metavar="AMOUNT", help="credits, -50 takes them away")],
    *,
    memo: Annotated[str, typer.Option("--memo", help="why")],
    url: session.Url = None,
    key: session.AdminKey = None,
    as_json: session.Json = False,
) -> None:
    """Correct a balance, up or down."""
    with session.client(url, key, admin=True) as herder:
        _print_account(herder.admin.adjust(name, amount, memo), as_json)


@app.command()
def show(
    name: Name, *, url: session.Url = None, key: session.AdminKey = None, as_json: session.Json = False
) -> None:
    """One account."""
    with session.client(url, key, admin=True) as herder:
        _print_account(herder.admin.account(name), as_json)


@app.command("list")
def list_(
    *,
    limit: session.Limit = ACCOUNTS_LIMIT,
    cursor: session.Cursor = None,
    url: session.Url = None,
    key: session.AdminKey = None,
    as_json: session.Json = False,
) -> None:
    """All accounts."""
    with session.client(url, key, admin=True) as herder:
        found = herder.admin.accounts(limit, cursor)
    if as_json:
        return output.print_json({"accounts": [dict(item.raw) for item in found], "next": found.next})
    rows = [(a.id, a.available, a.held, a.suspended, output.moment(a.created_ms)) for a in found]
    output.print_table(("account", "available", "held", "suspended", "created"), rows)
    if found.next:
        output.print_more("account list", limit, ACCOUNTS_LIMIT, found.next)
    return None


@app.command()
def suspend(
    name: Name, *, url: session.Url = None, key: session.AdminKey = None, as_json: session.Json = False
) -> None:
    """Refuse an account's submissions from now on."""
    with session.client(url, key, admin=True) as herder:
        _print_account(herder.admin.suspend(name), as_json)


@app.command()
def resume(
    name: Name, *, url: session.Url = None, key: session.AdminKey = None, as_json: session.Json = False
) -> None:
    """Let a suspended account go on."""
    with session.client(url, key, admin=True) as herder:
        _print_account(herder.admin.resume(name), as_json)


@app.command()
def keys(
    name: Name,
    *,
    new: Annotated[bool, typer.Option("--new", help="make a key, and show it this once")] = False,
    role: Annotated[str | None, typer.Option("--role", help="of the new key: client or admin")] = None,
    label: Annotated[str | None, typer.Option("--label", help="of the new key")] = None,
    revoke: Annotated[str | None, typer.Option("--revoke", metavar="KEY_ID", help="end a key")] = None,
    url: session.Url = None,
    key: session.AdminKey = None,
    as_json: session.Json = False,
) -> None:
    """An account's keys; make one, or revoke one."""
    if new and revoke:
        raise output.UsageProblem("either --new or --revoke")
    if (role or label) and not new:
        raise output.UsageProblem("--role and --label are for --new")
    with session.client(url, key, admin=True) as herder:
        if new:
            made = herder.admin.create_key(name, role, label)
            with _shown_once(made):
                return output.print_json(dict(made.raw)) if as_json else _print_new_key(made)
        if revoke:
            herder.admin.revoke_key(name, revoke)
        found = herder.admin.keys(name)
    if as_json:
        return output.print_json({"keys": [dict(item.raw) for item in found]})
    rows = [(k.id, k.role, k.label, output.moment(k.created_ms), k.revoked) for k in found]
    return output.print_table(("key", "role", "label", "created", "revoked"), rows)


def _print_account(found: Account, as_json: bool) -> None:
    if as_json:
        return output.print_json(dict(found.raw))
    return output.print_fields(
        {
            "account": found.id,
            "available": found.available,
            "held": found.held,
            "suspended": "yes" if found.suspended else None,
            "created": output.moment(found.created_ms),
        }
    )


def _print_new_key(made: Key) -> None:
    print(f"{'key':<9}  {one_line(made.key)}", flush=True)
    output.print_note("Keep it now: it is not shown again.")
