"""The results of a batch over a real socket: told as items end, resumed anywhere; readers leave nothing."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from herder.api import batch_results
from herder.broker import Broker, connect
from herder.errors import RedisUnavailable
from herder.settings import Settings
from tests.integration.api import MODEL, WORKER
from tests.integration.live import Live, live
from tests.integration.ring import Ring

PINGS = {"stream_ping_ms": 100}


class Reading:
    """A herder on a port, a client, and a worker made of calls."""

    def __init__(self, herder: Live, client: httpx.AsyncClient, broker: Broker) -> None:
        self.herder, self.client, self.broker = herder, client, broker
        self._ring = Ring(broker)

    async def batch(self, total: int) -> str:
        """A batch, all of it in line; where its results are."""
        body = {"prompts": ["a"] * total, "tokens": 20}
        batch = (await self.client.post("/v1/batches", json=body)).raise_for_status().json()
        while (await self.client.get(f"/v1/batches/{batch['id']}")).json()["counts"]["waiting"]:
            pass
        return str(batch["results_url"])

    async def answer(self, count: int = 1, produced: int = 3) -> None:
        """Serve so many jobs."""
        for lease in await self.broker.lease(WORKER, MODEL, slots=count, kv_free=10**9, kv_total=10**9):
            await self._ring.settle(lease, produced)

    @asynccontextmanager
    async def follow(self, url: str, cursor: int = 0) -> AsyncIterator[AsyncIterator[str]]:
        """The lines of an open answer."""
        async with self.client.stream("GET", url, params={"cursor": cursor}) as reply:
            assert (reply.status_code, reply.headers["content-type"]) == (200, "application/jsonl")
            yield reply.aiter_lines()

    async def until_nobody_reads(self) -> None:
        """Until the herder has let go of every reader."""
        while self.herder.herd.streams._reserved:
            await self.broker.ping()


@asynccontextmanager
async def reading(settings: Settings, **changes: Any) -> AsyncIterator[Reading]:
    with live(settings.model_copy(update=changes), worker=False) as herder:
        broker = await connect(settings)
        headers = {"Authorization": f"Bearer {herder.key}"}
        async with httpx.AsyncClient(
            base_url=herder.url, headers=headers, timeout=30, trust_env=False
        ) as client:
            yield Reading(herder, client, broker)
        await broker.close()


async def next_line(lines: AsyncIterator[str]) -> dict[str, Any]:
    """The next line that says something."""
    while True:
        if line := await anext(lines):
            told: dict[str, Any] = json.loads(line)
            return told


async def test_each_item_is_told_when_it_ends(settings: Settings) -> None:
    async with reading(settings) as r:
        url = await r.batch(3)
        async with r.follow(url) as lines:
            for cursor in (1, 2, 3):
                await r.answer()
                assert (await next_line(lines))["cursor"] == cursor
            assert [line async for line in lines if line] == []  # it ends with the batch
        await r.until_nobody_reads()


async def test_it_goes_on_at_every_cursor(settings: Settings) -> None:
    async with reading(settings) as r:
        url = await r.batch(250)  # more than two pages
        await r.answer(120)
        there = [
            json.loads(x) for x in (await r.client.get(url, params={"follow": "false"})).text.splitlines()
        ]
        assert [line["cursor"] for line in there] == list(range(1, 121))
        async with r.follow(url) as lines:
            for _ in range(120):
                await next_line(lines)
            await r.answer(130)
            rest = [json.loads(line) async for line in lines if line]
        assert [line["cursor"] for line in rest] == list(range(121, 251))
        whole = there + rest
        assert sorted(line["index"] for line in whole) == list(range(250))
        for cursor in (0, 1, 99, 100, 101, 249, 250, 251, 10**9):
            for follow in ("true", "false"):
                text = (await r.client.get(url, params={"cursor": cursor, "follow": follow})).text
                assert [json.loads(line) for line in text.splitlines() if line] == whole[cursor:]


async def test_a_silent_batch_says_empty_lines(settings: Settings) -> None:
    async with reading(settings, **PINGS) as r:
        url = await r.batch(1)
        async with r.follow(url) as lines:
            assert [await anext(lines), await anext(lines)] == ["", ""]
            await r.answer()
            assert (await next_line(lines))["index"] == 0


async def test_a_reader_that_goes_leaves_nothing(settings: Settings) -> None:
    async with reading(settings, **PINGS) as r:
        url = await r.batch(1)
        async with r.follow(url) as lines:
            await anext(lines)
            assert r.herder.herd.streams._reserved == 1
        await r.until_nobody_reads()


async def test_a_stop_ends_it(settings: Settings) -> None:
    async with reading(settings) as r:
        url = await r.batch(2)
        await r.answer()
        async with r.follow(url) as lines:
            await next_line(lines)
            r.herder.server.end_long_polls()
            assert [line async for line in lines if line] == []


async def test_a_reader_that_takes_nothing_is_cut_off(settings: Settings) -> None:
    async with reading(settings, stream_send_ms=300) as r:
        url = await r.batch(300)
        for _ in range(3):
            await r.answer(100, produced=20_000)
        where = urlsplit(r.herder.url)
        assert where.hostname
        with socket.socket() as idle:
            idle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            idle.connect((where.hostname, where.port or 0))
            idle.sendall(f"GET {url} HTTP/1.1\r\nHost: h\r\nX-API-Key: {r.herder.key}\r\n\r\n".encode())
            while not r.herder.herd.streams._reserved:
                await r.broker.ping()
            await r.until_nobody_reads()
            assert r.herder.herd.metrics.registry.get_sample_value("herder_streams_dropped_total") == 1


@pytest.mark.parametrize("follow", ["true", "false"])
async def test_what_cannot_be_read_does_not_end_like_what_is_whole(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, follow: str
) -> None:
    monkeypatch.setattr(batch_results, "RETRIES_MAX", 0)
    async with reading(settings) as r:
        url = await r.batch(250)
        await r.answer(250)
        batches = r.herder.herd.batches
        read = batches.ended_items

        async def first_page_only(batch: str, first: int, limit: int) -> Any:
            if first:
                raise RedisUnavailable("Redis went away")
            return await read(batch, first, limit)

        monkeypatch.setattr(batches, "ended_items", first_page_only)
        with pytest.raises(httpx.TransportError):
            await r.client.get(url, params={"follow": follow})
        await r.until_nobody_reads()


async def test_there_is_room_for_so_many(settings: Settings) -> None:
    async with reading(settings, streams_max=1, **PINGS) as r:
        url = await r.batch(1)
        async with r.follow(url) as lines:
            await anext(lines)
            refused = await r.client.get(url)
            assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
            assert refused.json()["title"] == "No room just now"  # the herd's backlog is empty
        await r.until_nobody_reads()


@pytest.mark.parametrize("cursor", ["-1", "x", "1.0", "1_0", "+1", "1000000001"])
async def test_a_cursor_is_a_number(settings: Settings, cursor: str) -> None:
    async with reading(settings) as r:
        url = await r.batch(1)
        assert (await r.client.get(url, params={"cursor": cursor})).status_code == 422


async def test_many_read_one_batch(settings: Settings) -> None:
    async with reading(settings) as r:
        url = await r.batch(200)

        async def read() -> list[int]:
            async with r.follow(url) as lines:
                return [json.loads(line)["cursor"] async for line in lines if line]

        readers = [asyncio.create_task(read()) for _ in range(5)]
        while r.herder.herd.streams._reserved < 5:
            await r.broker.ping()
        for _ in range(20):
            await r.answer(10)
        assert await asyncio.gather(*readers) == [list(range(1, 201))] * 5
