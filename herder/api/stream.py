"""One open event stream: it reads its job's log, then follows its bell, and says every event once.

Between two reads of the log the bell is believed, since the doorbell says when it missed something. Has no timer of
its own: `streams` looks after all of them. Knows no HTTP: what it says are bytes, and of its connection it knows how
to cut it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from herder.api.frames import START, Frame, place_of, rung
from herder.api.lines import Lines
from herder.api.market import Market
from herder.api.metrics import Metrics
from herder.api.parting import Parted, told_of
from herder.api.tellers import EVENTS, Teller
from herder.broker import Broker
from herder.doorbell import MISSED, Doorbell
from herder.errors import RedisUnavailable
from herder.lifecycle import LIVE, Status
from herder.logs import get_logger
from herder.protocol import Event, EventKind, JobRecord

PAGE = 32  # events of one read of the log: some kilobytes, which is what a reader that takes nothing may hold
PAGE_AGAIN = 256  # of those that the reader has had, and that are only looked at
BACKLOG_MAX = 64  # messages kept for a reader that is slow; beyond that the log is read again
SLOW_S = 1.0  # after which nothing is kept for it
LOOK_S = 5.0  # silence after which the log is read, whatever the bell said
RETRY_S = 2.0  # after a read that Redis did not answer

log = get_logger(__name__)


@dataclass(frozen=True)
class Around:
    """What all streams of a process share; `stopping` is set when they are to end."""

    broker: Broker
    bell: Doorbell
    market: Market
    metrics: Metrics
    lines: Lines
    stopping: asyncio.Event


@dataclass(frozen=True)
class _Page:
    """A read of the log: what it held, the job if it had ended in it, the ETA as of its end."""

    events: list[Event]
    record: JobRecord | None
    eta_ms: int | None
    last: bool  # there were no more
    over: bool = False  # the job had ended when none of it was left


class Stream:
    """One reader of one job. `frames` is what it is sent; the rest is for `streams`, the doorbell and the line."""

    def __init__(self, around: Around, record: JobRecord, after: str | None, teller: Teller = EVENTS) -> None:
        self._around = around
        self._teller = teller
        self._clock = asyncio.get_running_loop().time
        self.account, self.job_id, self.model = record.account, record.job_id, record.model
        self.channels = (around.broker.keys("job_bell", record.job_id),)
        self._parted = Parted(record.marks, told_of(after) if after else 0, teller)
        self._known = place_of(after) if after else START  # the reader has had this and all before it
        self._after, self._place = "-", START
        if after and self._parted.whole:
            self._after, self._place = after, self._known
        self._over = record.status not in LIVE  # a read of the log that finds nothing more is the last
        self._watched = record.status is Status.QUEUED and record.attempt == 0
        self._messages: deque[bytes] = deque()
        self._behind = True  # what comes next stands in the log, or may
        self._reading: asyncio.Task[_Page | None] | None = None
        self._read_at = 0.0  # not before
        self._moved: bytes = b""
        self._ping = False
        self._waiter: asyncio.Future[None] | None = None
        self._heard_at = self._said_at = self._clock()
        self._saying_since: float | None = self._said_at
        self.cut: Callable[[], None] = lambda: None
        self.ended = False  # its reader has, or is being sent, the last event
        self.dropped = False

    # --- what is sent ------------------------------------------------------------------------------------

    async def frames(self) -> AsyncIterator[bytes]:
        """Frames, as many at once as there are; ends with the job, or when the herder stops."""
        try:
            yield self._teller.opening
            self._saying_since = None
            await self._around.bell.add(self)
            if self._watched and self._known > START:  # else once the log has said where it stood at first
                self._around.lines.watch(self, None)
            while not self.dropped:
                if said := self._say():
                    self._saying_since = self._clock()
                    yield said
                    self._saying_since, self._said_at = None, self._clock()
                elif self.ended or self._teller.over:
                    return
                elif self._around.stopping.is_set():
                    yield self._teller.stopped()
                    return
                else:
                    await self._wait()
        finally:
            self._around.bell.remove(self)
            self._around.lines.forget(self)
            if self._reading is not None:
                self._reading.cancel()

    def _say(self) -> bytes:
        """Everything that can be said without waiting."""
        if self.ended:
            return b""
        said: list[bytes] = []
        if self._reading is not None and self._reading.done():
            page, self._reading = self._reading.result(), None
            if page is None:
                self._read_at = self._clock() + RETRY_S
            else:
                said.extend(self._read(page))
        if self._reading is None and not self.ended:
            said.extend(self._hear())
            if self._behind and self._clock() >= self._read_at:
                self._reading = asyncio.create_task(self._look())
                self._reading.add_done_callback(self._wake)
        if self._moved and not self.ended:
            said.append(self._moved)
        elif self._ping and not said:
            said.append(self._teller.ping)
        self._moved, self._ping = b"", False
        return b"".join(said)

    def _hear(self) -> list[bytes]:
        """The tokens that rang, up to anything that asks for the log."""
        said: list[bytes] = []
        while self._messages and not self._behind:
            message = self._messages.popleft()
            heard = rung(message) if message != MISSED else None
            if isinstance(heard, Frame):
                if heard.place > self._place:
                    body = self._parted.rung(heard)
                    if heard.place > self._known:
                        said.append(body)
                    self._place, self._after = heard.place, heard.event_id
            else:
                self._behind = True
                self._over = self._over or heard is EventKind.DONE
        return said

    async def _look(self) -> _Page | None:
        """Read on in the log; None where Redis is away."""
        broker, record, eta_ms, over = self._around.broker, None, None, False
        try:
            limit = PAGE if self._place >= self._known else PAGE_AGAIN
            events = await broker.events(self.job_id, after=self._after, limit=limit)
            last = events[-1].kind if events else None
            if last is EventKind.DONE:
                record = await broker.job(self.job_id)
            elif last is None and self._known > START:
                # Its end may be behind the reader's own place, and have rung before anybody listened.
                now = await broker.job(self.job_id)
                over = now is None or now.status not in LIVE
            if any(event.kind is EventKind.QUEUED for event in events):
                # Nobody is before a job that was in line and has begun since.
                ahead = int(events[-1].fields["position"]) if last is EventKind.QUEUED else 0
                state = await self._around.market.state(self.model)
                eta_ms = state.eta_ms(ahead) if state else None
        except RedisUnavailable:
            return None
        return _Page(events, record, eta_ms, last=len(events) < limit, over=over)

    def _read(self, page: _Page) -> list[bytes]:
        shown = [(event.event_id, self._shown(event, page)) for event in page.events]
        said = [body for event_id, body in shown if place_of(event_id) > self._known]
        if page.events:
            self._after = page.events[-1].event_id
            self._place = place_of(self._after)
        if page.last:
            self._behind = page.over and not self._over  # one more read: it ended after this one, perhaps
            self.ended = self.ended or self._over
            self._over = self._over or page.over
        return said

    def _shown(self, event: Event, page: _Page) -> bytes:
        """One event of the log as its frame."""
        kind, fields = event.kind, event.fields
        if kind is EventKind.TOKENS:
            return self._parted.tokens(event.event_id, fields)
        if kind is EventKind.QUEUED:
            position = int(fields["position"])
            if self._watched and place_of(event.event_id) > self._known:
                self._around.lines.watch(self, position)
            return self._teller.queued(self.job_id, position, page.eta_ms, event.event_id)
        self._watched = False
        self._around.lines.forget(self)
        if kind is EventKind.DONE:
            self.ended = True
            return self._parted.rest() + self._teller.last(event, page.record)
        self._parted.void()
        return self._teller.begun(kind, int(fields["attempt"]), event.event_id)

    # --- what wakes it -----------------------------------------------------------------------------------

    def ring(self, message: bytes) -> None:
        """The doorbell's: a message of the job's bell, or MISSED."""
        self._heard_at = self._clock()
        if message == MISSED:
            self._read_at = 0.0
        slow = self._saying_since is not None and self._heard_at - self._saying_since > SLOW_S
        if slow or len(self._messages) >= BACKLOG_MAX:
            self._messages.clear()
            message = MISSED
        self._messages.append(message)
        if self._reading is None:
            self._wake()

    def stands(self, position: int, eta_ms: int | None) -> None:
        """The line's: it has moved."""
        if self._watched:
            self._moved = self._teller.queued(self.job_id, position, eta_ms, None)
            self._wake()

    def looked_after(self, now: float, ping_s: float, send_s: float) -> None:
        """What is due by the clock: the end of a reader that takes nothing, a keep-alive, a read of the log."""
        if self._saying_since is not None:
            if now - self._saying_since >= send_s:
                self._drop()
            return
        if now - self._said_at >= ping_s:
            self._ping = True
        if now - self._heard_at >= LOOK_S:
            self._heard_at, self._behind = now, True
        if self._ping or self._behind:
            self._wake()

    def stop(self) -> None:
        """The herder stops: `frames` ends."""
        self._wake()

    def _drop(self) -> None:
        if not self.dropped:
            self.dropped = True
            self._around.metrics.dropped.inc()
            log.info("stream dropped: its reader takes nothing", job_id=self.job_id)
            self.cut()

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self, *_: Any) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
