"""The results of a batch as JSON lines, in the order in which its items end, while it runs; resumable at any line.

The list in Redis is what is told, page by page; the bell only says that there is more. Whoever takes nothing for too
long is cut off, and nothing is kept for anybody but the page that is being sent.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from herder.api.batch_shapes import result_line
from herder.api.events import CONNECTION
from herder.api.state import Herd
from herder.errors import RedisUnavailable

MEDIA_TYPE = "application/jsonl"
PAGE = 100  # items of one read
PIECE_BYTES = 65_536  # of one send: a slow reader of large answers is not one that takes nothing
LOOK_S = 2.0  # silence after which is read, whatever the bell said
COALESCE_S = 0.02  # ends that come closer together than this are one read
RETRIES_MAX = (
    15  # reads that Redis does not answer, LOOK_S apart, before the answer is cut off; the caller resumes
)
BLANK = b"\n"


class CutOff(Exception):
    """The answer cannot be finished, and must not look as if it were."""


class _Ear:
    """Hears that there is more, however often it is rung."""

    def __init__(self, channel: str) -> None:
        self.channels = (channel,)
        self._rung = asyncio.Event()

    def ring(self, message: bytes) -> None:
        """The doorbell's."""
        self._rung.set()

    async def heard(self, stopping: asyncio.Event, limit_s: float) -> bool:
        """Wait for a ring, the end of the herder, or the time; whether it was one of the first two."""
        waits = [asyncio.ensure_future(event.wait()) for event in (self._rung, stopping)]
        try:
            done, _ = await asyncio.wait(waits, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if self._rung.is_set() and not stopping.is_set():
            await asyncio.sleep(COALESCE_S)
        self._rung.clear()
        return bool(done)


class _Reader:
    """How far one caller has read."""

    def __init__(self, herd: Herd, batch: str, cursor: int, *, follow: bool) -> None:
        self._batches = herd.batches
        self._batch = batch
        self._cursor = cursor
        self._follow = follow
        self._last = not follow  # the next read that finds nothing is the last
        self._failures = 0
        self.ended = False

    async def page(self) -> bytes:
        """The next lines; none where there are none yet, or none any more (`ended`). Raises CutOff."""
        try:
            lines = await self._read()
            self._failures = 0
        except RedisUnavailable as error:
            self._failures += 1
            if not self._follow or self._failures > RETRIES_MAX:
                raise CutOff from error
            return b""
        return lines

    async def _read(self) -> bytes:
        read, rows = await self._batches.ended_items(self._batch, self._cursor, PAGE)
        if not read and not self._last:
            record = await self._batches.batch(self._batch)
            self._last = record is None or record.status == "ended"
            if self._last:  # what ended between the two reads is still to be told
                return await self._read()
        # Fewer rows than items: the batch's time is over, and its records have begun to go.
        gone = len(rows) < read
        self.ended = gone or (self._last and not read)
        if gone:
            return b""
        self._cursor += read
        return b"".join(result_line(place + 1, index, job) for place, index, job in rows)


async def result_lines(herd: Herd, batch: str, cursor: int, *, follow: bool) -> AsyncGenerator[bytes, None]:
    """Pages of lines from the `cursor`-th ended item on; with `follow` until the batch ends or the herder stops.

    Raises CutOff where Redis is away: at once, or with `follow` after some tries.
    """
    reader = _Reader(herd, batch, cursor, follow=follow)
    ear = _Ear(herd.broker.keys("batch_bell", batch))
    ping_s = herd.settings.stream_ping_ms / 1000
    quiet_s = 0.0
    if follow:
        await herd.bell.add(ear)
    try:
        while not reader.ended:
            if page := await reader.page():
                quiet_s = 0.0
                for start in range(0, len(page), PIECE_BYTES):
                    yield page[start : start + PIECE_BYTES]
            elif herd.stopping.is_set() or reader.ended:
                return
            elif not await ear.heard(herd.stopping, min(LOOK_S, ping_s)):
                quiet_s += min(LOOK_S, ping_s)
                if quiet_s >= ping_s:
                    quiet_s = 0.0
                    yield BLANK
    finally:
        if follow:
            herd.bell.remove(ear)


class ResultsResponse(StreamingResponse):
    """Sends the pages; takes the room of one stream, and is cut where its reader takes nothing for too long."""

    def __init__(
        self,
        request: Request,
        herd: Herd,
        pages: AsyncGenerator[bytes, None],
        headers: dict[str, str] | None = None,
        media_type: str = MEDIA_TYPE,
    ) -> None:
        super().__init__(pages, headers=headers, media_type=media_type)
        self._pages = pages
        self._herd = herd
        self._connection = request.scope.get("extensions", {}).get(CONNECTION)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it all."""
        send_s = self._herd.settings.stream_send_ms / 1000

        async def within(message: Message) -> None:
            try:
                async with asyncio.timeout(send_s):
                    await send(message)
            except TimeoutError as error:
                self._herd.metrics.dropped.inc()
                raise CutOff from error

        try:
            with self._herd.streams.reserved():
                await super().__call__(scope, receive, within)
        except CutOff:
            if self._connection is not None:
                self._connection.abort()
        finally:
            with contextlib.suppress(RuntimeError):
                await self._pages.aclose()
