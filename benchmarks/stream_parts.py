"""The processes around a herder of the benchmark `streams`: scripted workers, readers of streams, a bare subscriber.

Run as `python -m benchmarks.stream_parts PART JSON`; readers and the subscriber take `begin` and `end` on their
standard input and answer with a line of JSON. A delay is from the millisecond of the log id to the bytes' arrival.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import sys
import time
from typing import Any

import redis.asyncio
import uvloop

from herder.broker import connect
from herder.protocol import Chunk, Lease
from herder.settings import Settings

WORKER_SLOTS = 16
OPENING = 50  # connections opened at once
STUCK_RECEIVE_BYTES = 2_304  # the least that Linux takes
_ID = re.compile(rb"id: (\d+)-\d+\nevent: tokens\n")
_RUNG_ID = re.compile(rb'"id":"(\d+)-')


async def workers(given: dict[str, Any]) -> None:
    """A token a second of each job, by workers of 16 slots that each send theirs together, until it is stopped."""
    broker = await connect(Settings(redis_url=given["redis_url"]))
    jobs: list[str] = given["jobs"]
    shares = [jobs[i : i + WORKER_SLOTS] for i in range(0, len(jobs), WORKER_SLOTS)]
    began = time.monotonic()

    async def work(share: list[str], phase: float) -> None:
        index = 0
        while True:
            await asyncio.sleep(max(0.0, began + phase + index - time.monotonic()))
            await broker.chunk(
                "w", [Chunk(job, 1, given["first"].get(job, 0) + index, 1, " word") for job in share]
            )
            index += 1

    await asyncio.gather(*(work(share, i / len(shares)) for i, share in enumerate(shares)))


class Reader(asyncio.Protocol):
    """One stream: sends its request, notes each token's delay; a stuck one takes nothing once it has begun."""

    def __init__(self, request: bytes, delays: list[float] | None) -> None:
        self.request = request
        self.delays = delays
        self.opened = asyncio.get_running_loop().create_future()
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self.transport = transport
        transport.write(self.request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        """Note."""
        if not self.opened.done():
            assert data.startswith(b"HTTP/1.1 200"), data[:200]
            self.opened.set_result(None)
            if self.delays is None:
                self.transport.pause_reading()  # type: ignore[attr-defined]
        if self.delays is not None:
            now = time.time() * 1000
            self.delays.extend(now - int(at) for at in _ID.findall(data))

    def connection_lost(self, exc: Exception | None) -> None:
        """A reader that lost its stream is counted."""
        self.lost = True


async def readers(given: dict[str, Any]) -> None:
    """Open a stream a job, the last `stuck` by readers that take nothing; the delays between `begin` and `end`."""
    loop = asyncio.get_running_loop()
    delays: list[float] = []
    gate = asyncio.Semaphore(OPENING)

    async def opened(job: str, *, stuck: bool) -> Reader:
        since = "" if stuck else f"Last-Event-ID: {int(time.time() * 1000)}-0\r\n"
        request = f"GET /v1/jobs/{job}/events HTTP/1.1\r\nHost: h\r\nX-API-Key: {given['key']}\r\n{since}\r\n".encode()
        async with gate:
            sock = socket.socket()
            if stuck:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, STUCK_RECEIVE_BYTES)
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", given["port"]))
            _, reader = await loop.create_connection(
                lambda: Reader(request, None if stuck else delays), sock=sock
            )
            await reader.opened
        return reader

    taking = len(given["jobs"]) - given["stuck"]
    reading = await asyncio.gather(*(opened(job, stuck=i >= taking) for i, job in enumerate(given["jobs"])))
    await _measured(delays)
    assert not any(reader.lost for reader in reading), "a stream ended"


async def subscriber(given: dict[str, Any]) -> None:
    """The peer: one bare subscriber of every job's bell."""
    delays: list[float] = []
    client = redis.asyncio.Redis.from_url(given["redis_url"])

    async def hear() -> None:
        async for message in pubsub.listen():
            if message["type"] == "pmessage" and (at := _RUNG_ID.search(message["data"])):
                delays.append(time.time() * 1000 - int(at[1]))  # noqa: PERF401 (cleared meanwhile)

    async with client.pubsub() as pubsub:
        await pubsub.psubscribe("lh:bell:job:*")
        hearing = asyncio.create_task(hear())
        await _measured(delays)
        hearing.cancel()
        await asyncio.gather(hearing, return_exceptions=True)
    await client.aclose()


async def _measured(delays: list[float]) -> None:
    """Say that all is open; then delays from `begin` to `end`, which are said."""
    loop = asyncio.get_running_loop()
    print("open", flush=True)
    while True:
        word = (await loop.run_in_executor(None, sys.stdin.readline)).strip()
        if word == "begin":
            delays.clear()
        elif word == "end":
            print(json.dumps(delays), flush=True)
        else:
            return


async def fill(redis_url: str, leases: list[Lease], pieces: int, text: str) -> None:
    """Events before the measurement, many at once: what a stuck reader has not read."""
    broker = await connect(Settings(redis_url=redis_url))
    for lease in leases:
        await broker.chunk("w", [Chunk(lease.job_id, lease.attempt, i, 1, text) for i in range(pieces)])
    await broker.close()


PARTS = {"workers": workers, "readers": readers, "subscriber": subscriber}

if __name__ == "__main__":
    uvloop.run(PARTS[sys.argv[1]](json.loads(sys.argv[2])))
