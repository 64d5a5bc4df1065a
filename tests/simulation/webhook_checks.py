"""Deliveries in Redis beside the reference: each pending one in one place, nobody with more attempts than may be."""

from __future__ import annotations

from typing import Any

from herder.webhook_records import Delivery as Record
from herder.webhook_records import delivery_record
from tests.simulation.states import Delivery, Endpoint, Violation, expect
from tests.simulation.webhook_reference import ACCOUNT_MAX, Scope, WebhookReference, scopes_of
from tests.simulation.world import Look, World


def look(world: World) -> Look:
    """Where the pending ones are, which are over, when lanes are due; and each that was touched."""
    reference, keys = world.reference.webhooks, world.broker.keys
    commands = [
        ["ZRANGE", keys(zset), "0", "-1", "WITHSCORES"] for zset in ("due_lanes", "delivered", "unwritten")
    ]
    every = [delivery.new for delivery in reference.deliveries.values()]
    lanes = list(dict.fromkeys(new.lane for new in every))
    scopes = list(dict.fromkeys(scope for new in every for scope in scopes_of(new)))
    for lane in lanes:
        commands += [["ZRANGE", keys(zset, lane), "0", "-1", "WITHSCORES"] for zset in ("due", "flights")]
    commands += [["ZRANGE", keys("flying", "@".join(scope)), "0", "-1", "WITHSCORES"] for scope in scopes]
    touched = [name for name in dict.fromkeys(world.touched) if name in reference.deliveries]
    zsets = len(commands)
    commands += [["HGETALL", keys("delivery", name)] for name in touched]

    def compare(said: list[Any]) -> None:
        turns, ended, unwritten, *places = (_scores(rows) for rows in said[:zsets])
        _check_turns(turns, reference.lanes(), world.reference.now)
        expect(ended, {entry: at for at, entry in reference.ended()}, "deliveries that are over")
        expect(unwritten, reference.unwritten(), "deliveries without a body")
        _check_places(reference, lanes, places[: 2 * len(lanes)])
        for scope, flying in zip(scopes, places[2 * len(lanes) :], strict=True):
            _check_flying(reference, scope, flying, world.reference.now)
        for name, rows in zip(touched, said[zsets:], strict=True):
            fields = {key.decode(): text.decode() for key, text in zip(rows[::2], rows[1::2], strict=True)}
            expect(delivery_record(name, fields), _record(name, reference.deliveries[name]), name)

    return commands, compare


def _check_places(reference: WebhookReference, lanes: list[str], places: list[dict[str, int]]) -> None:
    """Each pending delivery is due or on its way, and of each lane no more are on their way than may be."""
    pending: list[str] = []
    for lane, due, flights in zip(lanes, places[::2], places[1::2], strict=True):
        on_the_way = {name: d.flight_ms for name, d in reference.flights(lane).items()}
        expect(due, {name: d.due_ms for name, d in reference.due(lane).items()}, f"due at {lane}")
        expect(flights, on_the_way, f"on the way to {lane}")
        expect(len(flights) <= reference.host_max, True, f"{lane} gets no more attempts than it may")
        pending += [*due, *flights]
    live = [name for name, delivery in reference.deliveries.items() if delivery.pending]
    expect(sorted(pending), sorted(live), "pending deliveries, each in one place")


def _check_flying(reference: WebhookReference, scope: Scope, flying: dict[str, int], now: int) -> None:
    """A host or an account has just the attempts that are under way, and some that are to be given up; not too many."""
    live = {name: at for name, at in flying.items() if at > now}
    expect(live, reference.flying(scope), f"under way of {scope}")
    expect(len(live) <= (reference.host_max if len(scope) == 2 else ACCOUNT_MAX), True, f"room of {scope}")
    given_up = [name for name in flying if name not in live and reference.deliveries[name].flight_ms is None]
    expect(given_up, [], f"still counted of {scope}")


def _check_turns(turns: dict[str, int], lanes: dict[str, int], now: int) -> None:
    """Each lane with anything pending is there: for when it is due, or since some moment up to now."""
    expect(sorted(turns), sorted(lanes), "lanes with something pending")
    for lane, at in lanes.items():
        if (turns[lane] > now) if at <= now else (turns[lane] != at):
            raise Violation(f"{lane} is due at {at} and has its turn at {turns[lane]}")


def _scores(rows: list[bytes]) -> dict[str, int]:
    return {name.decode(): int(float(at)) for name, at in zip(rows[::2], rows[1::2], strict=True)}


def _record(name: str, delivery: Delivery) -> Record:
    """A delivery as it must be read."""
    new = delivery.new
    return Record(
        delivery=name, account=new.account, endpoint=new.endpoint, url=new.url, lane=new.lane, type=new.type,
        subject=new.subject, at_ms=new.at_ms, body=delivery.body, status=delivery.status, attempt=delivery.attempt,
        tries=delivery.tries, created_ms=delivery.created_ms, next_ms=delivery.next_ms, last_ms=delivery.last_ms,
        last_status=delivery.last_status, last_error=delivery.last_error, ended_ms=delivery.ended_ms,
    )  # fmt: skip


async def check_endpoints(world: World) -> None:
    """Every address with its secrets."""
    for account in world.reference.accounts:
        for seen in await world.deliveries.endpoints(account):
            known = world.reference.webhooks.endpoints.get(seen.endpoint)
            found = Endpoint(
                seen.account, seen.url, seen.secret, seen.old_secrets, seen.old_until_ms, seen.disabled_ms,
                seen.disabled_why, seen.created_ms,
            )  # fmt: skip
            expect(found, known, seen.endpoint)
