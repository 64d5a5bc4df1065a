"""`herder webhooks …`: where the ends of jobs and batches are told, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated

import typer

from llama_herder import Delivery, Endpoint, Page
from llama_herder._sync_webhooks import Webhooks
from llama_herder.cli import output, session

EndpointId = Annotated[str, typer.Argument(metavar="ID", help="the endpoint: ep_…")]
DeliveryId = Annotated[str, typer.Argument(metavar="ID", help="the delivery: msg_…")]

app = typer.Typer(invoke_without_command=True)


def register(parent: typer.Typer) -> None:
    """Add the group of this file."""
    parent.add_typer(app, name="webhooks", rich_help_panel="Use a herd")


@app.callback()
def webhooks(
    ctx: typer.Context, url: session.Url = None, key: session.ApiKey = None, as_json: session.Json = False
) -> None:
    """Webhooks: their endpoints, and what was delivered."""
    if ctx.invoked_subcommand is None:
        return list_(url=url, key=key, as_json=as_json)
    if url or key or as_json:
        raise output.UsageProblem(
            f"options belong behind the command: herder webhooks {ctx.invoked_subcommand} …"
        )
    return None


@app.command("list")
def list_(*, url: session.Url = None, key: session.ApiKey = None, as_json: session.Json = False) -> None:
    """Your endpoints, oldest first, and the default address."""
    with session.client(url, key) as herder:
        found = herder.webhooks.endpoints()
    if as_json:
        return output.print_json(
            {"endpoints": [dict(one.raw) for one in found], "default_url": found.default_url}
        )
    rows = [(e.id, e.url, e.disabled, e.disabled_why, output.moment(e.created_ms)) for e in found]
    output.print_table(("endpoint", "url", "disabled", "why", "created"), rows, none="no endpoints")
    output.print_note(f"default: {found.default_url}" if found.default_url else "no default address")
    return None


@app.command()
def add(
    address: Annotated[str, typer.Argument(metavar="WEBHOOK_URL", help="where to post to")],
    *,
    url: session.Url = None,
    key: session.ApiKey = None,
    as_json: session.Json = False,
) -> None:
    """An endpoint with its secret; one that is there already stays as it is."""
    with session.client(url, key) as herder:
        _print_endpoint(herder.webhooks.add(address), as_json)


def _of_endpoint(name: str, about: str, act: Callable[[Webhooks, str], Endpoint]) -> None:
    """A command on one endpoint, which it then shows."""

    @app.command(name, help=about)
    def command(
        endpoint_id: EndpointId,
        *,
        url: session.Url = None,
        key: session.ApiKey = None,
        as_json: session.Json = False,
    ) -> None:
        with session.client(url, key) as herder:
            _print_endpoint(act(herder.webhooks, endpoint_id), as_json)


_of_endpoint("show", "One endpoint with its secret.", Webhooks.show)
_of_endpoint("rotate", "A new secret; the one before signs beside it for a while.", Webhooks.rotate)
_of_endpoint("enable", "Switch an endpoint on again.", Webhooks.enable)
_of_endpoint("disable", "Switch an endpoint off: nothing is sent there.", Webhooks.disable)


@app.command()
def delete(
    endpoint_id: EndpointId,
    *,
    url: session.Url = None,
    key: session.ApiKey = None,
    as_json: session.Json = False,
) -> None:
    """An end to an endpoint and its secret; what is pending for it is given up, and a default address taken away."""
    with session.client(url, key) as herder:
        default_url = herder.webhooks.endpoints().default_url
        gone = herder.webhooks.delete(endpoint_id)
    was_default = (default_url or "").partition("?")[0] == gone.url
    if as_json:
        return output.print_json(
            {"id": gone.id, "url": gone.url, "deleted": True, "was_default": was_default}
        )
    output.print_fields({"deleted": gone.id, "url": gone.url})
    if was_default:
        output.print_note("it was the default address: what names none is told nowhere now")
    return None


@app.command()
def default(
    address: Annotated[
        str | None, typer.Argument(metavar="WEBHOOK_URL", help="where to post what names no address")
    ] = None,
    *,
    none: Annotated[bool, typer.Option("--none", help="nowhere")] = False,
    url: session.Url = None,
    key: session.ApiKey = None,
    as_json: session.Json = False,
) -> None:
    """Set the address for all jobs and batches that name none, or take it away."""
    if none == (address is not None):
        raise output.UsageProblem("give a WEBHOOK_URL, or --none")
    with session.client(url, key) as herder:
        found = herder.webhooks.set_default(address)
    if as_json:
        return output.print_json(dict(found.raw))
    return output.print_fields({"default": found.default_url or "none", "endpoint": found.endpoint_id})


@app.command()
def deliveries(
    *,
    dead: Annotated[bool, typer.Option("--dead", help="only those that were given up")] = False,
    status: Annotated[
        str | None, typer.Option("--status", help="only those: pending, delivered or dead")
    ] = None,
    limit: session.Limit = session.LIMIT,
    cursor: session.Cursor = None,
    url: session.Url = None,
    key: session.ApiKey = None,
    as_json: session.Json = False,
) -> None:
    """What was delivered, or is to be, newest first."""
    if dead and status not in (None, "dead"):
        raise output.UsageProblem("either --dead or --status")
    asked = "dead" if dead else status
    with session.client(url, key) as herder:
        found = herder.webhooks.deliveries(asked, limit, cursor)
    if as_json:
        return output.print_json({"deliveries": [dict(one.raw) for one in found], "next": found.next})
    _print_deliveries(found)
    if found.next:
        only = f" --status {asked}" if asked else ""
        output.print_more(f"webhooks deliveries{only}", limit, session.LIMIT, found.next)
    return None


def _print_deliveries(found: Page[Delivery]) -> None:
    head = ("delivery", "of", "subject", "status", "attempts", "last", "next", "held back", "url")
    rows = [
        (
            *(d.id, d.type, d.subject, d.status, d.attempts),
            *(d.last_error or d.last_status, output.moment(d.next_ms), _held(d), d.url),
        )
        for d in found
    ]
    output.print_table(head, rows, none="no deliveries")


def _held(found: Delivery) -> str | None:
    """Why it waits though its time has come."""
    return found.held_back.replace("_", " ") if found.held_back else None


def _of_delivery(name: str, about: str, act: Callable[[Webhooks, str], Delivery]) -> None:
    """A command on one delivery, which it then shows."""

    @app.command(name, help=about)
    def command(
        delivery_id: DeliveryId,
        *,
        url: session.Url = None,
        key: session.ApiKey = None,
        as_json: session.Json = False,
    ) -> None:
        with session.client(url, key) as herder:
            _print_delivery(act(herder.webhooks, delivery_id), as_json)


_of_delivery("delivery", "One delivery, with the body that is sent.", Webhooks.delivery)
_of_delivery("redeliver", "Deliver it again, with all attempts anew.", Webhooks.redeliver)


def _print_endpoint(found: Endpoint, as_json: bool) -> None:
    if as_json:
        return output.print_json(dict(found.raw))
    return output.print_fields(
        {
            "endpoint": found.id,
            "url": found.url,
            "secret": found.secret,
            "old secret until": output.moment(found.old_secret_until_ms),
            "disabled": (found.disabled_why or "yes") if found.disabled else None,
            "created": output.moment(found.created_ms),
        }
    )


def _print_delivery(found: Delivery, as_json: bool) -> None:
    if as_json:
        return output.print_json(dict(found.raw))
    output.print_fields(
        {
            "delivery": found.id,
            "of": f"{found.type} {found.subject}",
            "url": found.url,
            "endpoint": found.endpoint_id,
            "status": found.status,
            "attempts": found.attempts,
            "last status": str(found.last_status) if found.last_status is not None else None,
            "last error": found.last_error,
            "last attempt": output.moment(found.last_ms),
            "next attempt": output.moment(found.next_ms),
            "held back": _held(found),
            "ended": output.moment(found.ended_ms),
        }
    )
    if found.body:
        print()
        output.print_text(_indented(found.body))
    return None


def _indented(body: str) -> str:
    try:
        return json.dumps(json.loads(body), ensure_ascii=False, indent=2)
    except (ValueError, RecursionError):
        return body
