"""Deliveries in Redis beside the reference: each pending one in one place, no host with more attempts than it may."""

from __future__ import annotations

from typing import Any

from herder.webhook_records import Delivery as Record
from herder.webhook_records import delivery_record
from tests.simulation.endpoints import HOSTS
from tests.simulation.states import Delivery, Endpoint, Violation, expect
from tests.simulation.webhook_reference import WebhookReference
from tests.simulation.world import Look, World


def look(world: World) -> Look:
    """Where the pending ones are, which are over, when hosts are due; and each that was touched."""
    reference, keys = world.reference.webhooks, world.broker.keys
    commands = [["ZRANGE", keys(zset), "0", "-1", "WITHSCORES"] for zset in ("due_hosts", "delivered")]
    for host in HOSTS:
        commands += [["ZRANGE", keys(zset, host), "0", "-1", "WITHSCORES"] for zset in ("due", "flights")]
    touched = [name for name in dict.fromkeys(world.touched) if name in reference.deliveries]
    zsets = len(commands)
    commands += [["HGETALL", keys("delivery", name)] for name in touched]

    def compare(said: list[Any]) -> None:
        turns, ended, *places = (_scores(rows) for rows in said[:zsets])
        _check_turns(turns, reference.hosts(), world.reference.now)
        expect(ended, {entry: at for at, entry in reference.ended()}, "deliveries that are over")
        _check_places(reference, places)
        for name, rows in zip(touched, said[zsets:], strict=True):
            fields = {key.decode(): text.decode() for key, text in zip(rows[::2], rows[1::2], strict=True)}
            expect(delivery_record(name, fields), _record(name, reference.deliveries[name]), name)

    return commands, compare


def _check_places(reference: WebhookReference, places: list[dict[str, int]]) -> None:
    """Each pending delivery is due or on its way, and of each host no more are on their way than may be."""
    pending: list[str] = []
    for host, due, flights in zip(HOSTS, places[::2], places[1::2], strict=True):
        on_the_way = {name: d.flight_ms for name, d in reference.flights(host).items()}
        expect(due, {name: d.due_ms for name, d in reference.due(host).items()}, f"due at {host}")
        expect(flights, on_the_way, f"on the way to {host}")
        expect(len(flights) <= reference.host_max, True, f"{host} gets no more attempts than it may")
        pending += [*due, *flights]
    live = [name for name, delivery in reference.deliveries.items() if delivery.pending]
    expect(sorted(pending), sorted(live), "pending deliveries, each in one place")


def _check_turns(turns: dict[str, int], hosts: dict[str, int], now: int) -> None:
    """Each host with anything pending is there: for when it is due, or since some moment up to now."""
    expect(sorted(turns), sorted(hosts), "hosts with something pending")
    for host, at in hosts.items():
        if (turns[host] > now) if at <= now else (turns[host] != at):
            raise Violation(f"{host} is due at {at} and has its turn at {turns[host]}")


def _scores(rows: list[bytes]) -> dict[str, int]:
    return {name.decode(): int(float(at)) for name, at in zip(rows[::2], rows[1::2], strict=True)}


def _record(name: str, delivery: Delivery) -> Record:
    """A delivery as it must be read."""
    new = delivery.new
    return Record(
        delivery=name, account=new.account, endpoint=new.endpoint, url=new.url, host=new.host, type=new.type,
        subject=new.subject, body=new.body, status=delivery.status, attempt=delivery.attempt, tries=delivery.tries,
        created_ms=delivery.created_ms, next_ms=delivery.next_ms, last_ms=delivery.last_ms,
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
