"""`herder webhooks …` against a real herder and a real courier: endpoints, the default address, what was delivered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from herder.broker import Broker
from herder.clock import SimulatedClock
from herder.courier import courier
from herder.deliveries import DOWN_AFTER
from herder.settings import Settings
from llama_herder import AsyncHerder, Delivery
from tests.integration.client_herd import Herd, Terminal, running
from tests.integration.desk import DAY_MS, Desk
from tests.integration.post import for_webhooks
from tests.integration.receivers import receiver

OK = b"HTTP/1.1 204 No Content\r\n\r\n"
BAD = b"HTTP/1.1 500 Oh No\r\ncontent-length: 0\r\n\r\n"
URL = "http://127.0.0.1:9/hook"


@pytest.fixture
def reachable(settings: Settings) -> Settings:
    """Webhooks may reach loopback, and are tried once."""
    return for_webhooks(settings, webhook_schedule_s=(0.0,))


@pytest.fixture
async def herd(reachable: Settings, broker: Broker) -> AsyncIterator[Herd]:
    async with running(reachable, broker) as herd:
        yield herd


@pytest.fixture
def webhooks(herd: Herd, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(herd, monkeypatch, capsys)


async def told(terminal: Terminal, *arguments: str) -> Any:
    """What a command answers as JSON."""
    shown = await terminal("webhooks", *arguments, "--json")
    assert shown.code == 0, shown.err
    return json.loads(shown.out)


async def ended(herd: Herd, count: int) -> list[Delivery]:
    """Deliveries, newest first, once so many have ended; asked for by the library, since a courier logs to stdout."""
    async with asyncio.timeout(30), AsyncHerder(herd.url, herd.key) as herder:
        while True:
            found = list(await herder.webhooks.deliveries())
            if len([one for one in found if one.status != "pending"]) >= count:
                return found


async def test_endpoints_from_first_to_last(webhooks: Terminal) -> None:
    empty = await webhooks("webhooks")
    assert (empty.code, "no endpoints\nno default address\n" in empty.err) == (0, True)
    made = await webhooks("webhooks", "add", f"{URL}?token=t")
    assert made.code == 0
    assert URL in made.out
    assert "?token" not in made.out
    one = await told(webhooks, "add", URL)
    assert one["secret"] in made.out
    endpoint = one["id"]
    assert await told(webhooks, "show", endpoint) == one
    new = await told(webhooks, "rotate", endpoint)
    assert new["secret"] != one["secret"]
    rotated = await webhooks("webhooks", "show", endpoint)
    assert new["secret"] in rotated.out
    assert "old secret until" in rotated.out
    assert "disabled" in (await webhooks("webhooks", "disable", endpoint)).out
    listed = await webhooks("webhooks", "list")
    assert "by its account" in listed.out
    assert "whsec_" not in listed.out
    assert "disabled" not in (await webhooks("webhooks", "enable", endpoint)).out
    deleted = await webhooks("webhooks", "delete", endpoint)
    assert (deleted.code, "default" in deleted.err) == (0, False)
    assert [line.split() for line in deleted.out.splitlines()] == [["deleted", endpoint], ["url", URL]]
    gone = await webhooks("webhooks", "show", endpoint)
    assert (gone.code, gone.out) == (5, "")
    assert (await told(webhooks))["endpoints"] == []


async def test_the_default_address(webhooks: Terminal) -> None:
    assert URL in (await webhooks("webhooks", "default", URL)).out
    assert f"default: {URL}" in (await webhooks("webhooks")).err
    assert (await told(webhooks, "default", "--none"))["default_url"] is None
    for wrong in (["default"], ["default", URL, "--none"], ["deliveries", "--dead", "--status", "pending"]):
        assert (await webhooks("webhooks", *wrong)).code == 2
    refused = await webhooks("webhooks", "default", "http://10.0.0.1/")
    assert refused.code == 2
    assert "10.0.0.1" in refused.err
    assert (await webhooks("webhooks", "--json", "add", URL)).code == 2


async def test_deleting_the_default_address_says_that_there_is_none_any_more(webhooks: Terminal) -> None:
    for query in ("", "?token=t"):
        endpoint = (await told(webhooks, "default", URL + query))["endpoint_id"]
        deleted = await webhooks("webhooks", "delete", endpoint)
        assert deleted.out.split() == ["deleted", endpoint, "url", URL]
        assert "it was the default address" in deleted.err
        assert (await told(webhooks))["default_url"] is None
    endpoint = (await told(webhooks, "default", URL))["endpoint_id"]
    found = await told(webhooks, "delete", endpoint)
    assert found == {"id": endpoint, "url": URL, "deleted": True, "was_default": True}


async def test_what_was_delivered(herd: Herd, webhooks: Terminal, reachable: Settings) -> None:
    assert "no deliveries" in (await webhooks("webhooks", "deliveries")).err
    async with receiver(OK) as found, courier(reachable):
        await webhooks("webhooks", "default", found.url)
        await asyncio.gather(webhooks("run", "hi", "--tokens", "4"), herd.work())
        (newest,) = await ended(herd, 1)
        assert (newest.status, newest.last_status) == ("delivered", 204)
        assert newest.id == newest.subject.replace("job_", "msg_")
        shown = await webhooks("webhooks", "delivery", newest.id)
        assert f"job.succeeded {newest.subject}" in shown.out
        assert '"text": "xxx"' in shown.out
        assert newest.id not in (await webhooks("webhooks", "deliveries", "--dead")).out
        assert newest.id in (await webhooks("webhooks", "deliveries", "--status", "delivered")).out
        again = await webhooks("webhooks", "redeliver", newest.id)
        assert "pending" in again.out
        async with asyncio.timeout(30):
            while len(found.bodies) < 2:
                await herd.ring.broker.ping()
        assert found.bodies[0] == found.bodies[1]


async def test_what_was_given_up(herd: Herd, webhooks: Terminal, reachable: Settings) -> None:
    async with receiver(BAD) as found, courier(reachable):
        run = ("run", "hi", "--tokens", "4")
        await webhooks("webhooks", "default", found.url)
        await asyncio.gather(webhooks(*run), herd.work())
        (dead,) = await ended(herd, 1)
        assert (dead.status, dead.last_status, dead.attempts) == ("dead", 500, 1)
        assert dead.id in (await webhooks("webhooks", "deliveries", "--dead")).out
        assert dead.id not in (await webhooks("webhooks", "deliveries", "--status", "delivered")).out
        await asyncio.gather(webhooks(*run), herd.work())
        newer, older = await ended(herd, 2)
    page = await webhooks("webhooks", "deliveries", "--dead", "--limit", "1")
    assert (newer.id in page.out, older.id in page.out) == (True, False)
    assert page.err.startswith("more: herder webhooks deliveries --status dead --limit 1 --cursor ")
    assert older.id in (await webhooks(*page.err.split()[2:])).out


async def test_what_waits_says_why(herd: Herd, webhooks: Terminal) -> None:
    desk = Desk(herd.ring.broker, SimulatedClock())
    ids = await desk.post("a", 2 * DOWN_AFTER, account="ann", path="hook")
    down = 0
    while down < DOWN_AFTER:
        for claimed, attempt in await desk.claim():
            assert await desk.tell(claimed, attempt, DAY_MS)
            down += 1
    failures = desk.broker.keys("failures", "ann@a:80/ep_hook")
    # For so long: it is not asked soon.
    await desk.broker.fetch(desk.broker.redis.hset(failures, "down_ms", "1"))
    found = (await told(webhooks, "deliveries", "--limit", "100"))["deliveries"]
    listed = {one["id"]: one["held_back"] for one in found}
    assert set(listed.values()) == {None, "endpoint_down"}
    waiting = next(id_ for id_ in ids if listed[id_])
    assert "endpoint down" in (await webhooks("webhooks", "deliveries")).out
    assert "endpoint down" in (await webhooks("webhooks", "delivery", waiting)).out
    async with AsyncHerder(herd.url, herd.key) as herder:
        shown = await herder.webhooks.delivery(waiting)
        assert (shown.held_back, shown.next_ms) == ("endpoint_down", shown.raw["next_ms"])
        assert (shown.next_ms or 0) > shown.created_ms
