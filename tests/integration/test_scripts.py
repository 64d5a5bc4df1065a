"""How calls of scripts travel: together where they wait together, at once where they are alone, never unwanted."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.exceptions import ResponseError

from herder import line
from herder.broker import Broker
from herder.errors import Overloaded, RedisUnavailable
from herder.line import LANES, TOGETHER_MAX, Command
from herder.scripts import script_names, script_source
from tests.integration.ring import Ring

CALLS = 3 * TOGETHER_MAX


@pytest.fixture
def round_trips(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many commands each round trip had, from now on."""
    seen: list[int] = []
    go: Any = line._round_trip

    async def counted(connection: Any, commands: list[line.Command]) -> Any:
        seen.append(len(commands))
        return await go(connection, commands)

    monkeypatch.setattr(line, "_round_trip", counted)
    return seen


async def _calls_at_redis(broker: Broker) -> int:
    stats = await broker.fetch(broker.redis.info("commandstats"))
    return int(stats["cmdstat_evalsha"]["calls"])


async def test_calls_that_wait_together_share_a_round_trip(broker: Broker, round_trips: list[int]) -> None:
    """Each gets its own reply, and no round trip is larger than its limit; those of one script are one for Redis."""
    await broker.set_prices(1, 1)
    before = await _calls_at_redis(broker)
    round_trips.clear()
    found = await asyncio.gather(*(broker.set_prices(10, fee) for fee in range(CALLS)))
    assert [prices.fee_per_token for prices in found] == list(range(CALLS))
    assert len({prices.version for prices in found}) == CALLS
    assert sum(round_trips) == CALLS
    assert max(round_trips) == TOGETHER_MAX
    assert await _calls_at_redis(broker) - before == len(round_trips)


async def test_calls_that_say_much_do_not_become_one_long_script(
    broker: Broker, round_trips: list[int]
) -> None:
    """Wherever they say it: items of batches are among the named arguments, answers are texts."""
    long: list[tuple[str, dict[str, Any], str]] = [
        ("present", {"names": ["x" * 300] * 2_000}, ""),
        ("write", {"delivery": "msg_none"}, "x" * 600_000),
    ]
    for name, named, text in long:
        await broker.scripts.call(name, named, text)  # Redis knows it from then on
        round_trips.clear()
        await asyncio.gather(*(broker.scripts.call(name, named, text) for _ in range(8)))
        assert round_trips == [2] * 4


async def test_a_call_that_fails_at_redis_fails_alone(broker: Broker) -> None:
    """Those beside it are made, before it and behind it; and alone it fails the same way."""
    ring = await Ring(broker).open("payer", "other")
    await broker.fetch(broker.redis.set(broker.keys("account", "other"), "no hash"))
    calls: list[tuple[dict[str, Any], str]] = [
        (
            {
                "account": account,
                "kind": "deposit",
                "amount": 1,
                "amount_limit": 10**9,
                "deposit_id": f"d{i}",
            },
            "",
        )
        for i, account in enumerate(("payer", "other", "payer", "other", "payer"))
    ]
    before = await _calls_at_redis(broker)
    found = await broker.scripts._send("deposit", calls)
    assert await _calls_at_redis(broker) - before == 1
    assert [isinstance(each, ResponseError) for each in found] == [False, True, False, True, False]
    (alone,) = await broker.scripts._send("deposit", calls[1:2])
    assert isinstance(alone, ResponseError)
    assert all("WRONGTYPE" in str(each) for each in (found[1], found[3], alone))
    account = await ring.ledger.account("payer")
    assert account is not None
    assert account.available == 1_000_003


async def test_whoever_gives_up_waiting_is_not_sent(broker: Broker) -> None:
    """A call that was cancelled before its turn does nothing."""
    before = await broker.set_prices(1, 1)
    calls = [asyncio.ensure_future(broker.set_prices(1, 2)) for _ in range(CALLS)]
    await asyncio.wait(calls, timeout=0)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    after = await broker.set_prices(1, 1)
    assert after.version - before.version - 1 <= LANES * TOGETHER_MAX < CALLS


async def test_whoever_waits_when_the_broker_closes_is_told(broker: Broker) -> None:
    """Nobody is left waiting."""
    await broker.set_prices(1, 1)
    calls = [asyncio.ensure_future(broker.set_prices(1, 2)) for _ in range(CALLS)]
    await asyncio.wait(calls, timeout=0)
    await broker.scripts.close()
    found = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 30)
    assert any(isinstance(reply, RedisUnavailable) for reply in found)


async def test_replies_that_nobody_has_read_are_not_the_next_ones(broker: Broker) -> None:
    """A round trip that is broken off leaves no connection behind on which its replies may still come."""
    line = broker.scripts._line
    await line.ask([Command(("PING",))])
    slow = asyncio.ensure_future(line.ask([Command(("BLPOP", "nothing", "0.2")), Command(("ECHO", "stale"))]))
    await asyncio.wait([slow], timeout=0.05)
    await line.close()
    await asyncio.gather(slow, return_exceptions=True)
    found = await asyncio.gather(*(broker.redis.echo(f"mine {i}") for i in range(10)))
    assert found == [f"mine {i}".encode() for i in range(10)]
    assert await line.ask([Command(("ECHO", "ours"))]) == [b"ours"]


async def test_a_reply_that_cannot_be_read_is_not_the_next_ones(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever went wrong, and however soon the next one comes."""
    line = broker.scripts._line
    await line.ask([Command(("PING",))])
    ((connection, _),) = line._kept

    async def broken() -> Any:
        monkeypatch.undo()
        raise ValueError("nobody has thought of this")

    monkeypatch.setattr(connection, "read_response", broken)
    with pytest.raises(RedisUnavailable, match="broken off"):
        await line.ask([Command(("ECHO", "stale"))])
    assert await line.ask([Command(("ECHO", "ours"))]) == [b"ours"]


@pytest.mark.parametrize("name", script_names())
def test_a_script_brings_what_it_uses_and_no_more(name: str) -> None:
    """A function of the shared source that a script never names is not in it; the ledger's is where money moves."""
    source = script_source(name)
    assert ("local function join_line" in source) == (name in ("submit", "feed"))
    assert "local function read_clock" in source
    assert ("local function post(" in source) or "post(" not in source


async def test_a_full_redis_is_told_as_such(broker: Broker) -> None:
    """Alone or together: nothing is written, and whoever asked may come again."""
    ring = await Ring(broker).open("payer")
    asks = [await ring.ask("payer") for _ in range(3)]
    await broker.fetch(broker.redis.config_set("maxmemory", "1"))
    try:
        with pytest.raises(Overloaded, match="out of memory"):
            await broker.submit(asks[0])
        found = await asyncio.gather(*map(broker.submit, asks), return_exceptions=True)
    finally:
        await broker.fetch(broker.redis.config_set("maxmemory", "0"))
    assert all(isinstance(each, Overloaded) for each in found)
    assert [await broker.job(ask.job_id) for ask in asks] == [None] * 3
