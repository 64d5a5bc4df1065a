"""`/v1/jobs/{id}/events`: a job's events as server-sent events, and the response that `POST ?stream=true` gives too.

What is said is decided in `stream`; here are HTTP, sse-starlette and the connection. A reader that goes away never
cancels a job that is paid for, unless it had asked for that.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from sse_starlette.sse import AppStatus, EventSourceResponse
from starlette.types import Receive, Scope, Send

from herder.api.callers import Caller
from herder.api.lookup import own
from herder.api.parameters import Flag
from herder.api.problems import declared
from herder.api.state import Herd, herd_of
from herder.api.stream import Stream
from herder.api.tellers import EVENTS, Teller
from herder.errors import InvalidRequest, NotFound, Overloaded
from herder.lifecycle import LIVE
from herder.protocol import JobRecord

CONNECTION = "herder.connection"  # the ASGI extension in which `serve` gives the transport
BUFFER_BYTES = 8_192  # of what is said and not yet sent, here
SOCKET_BYTES = 32_768  # and in the kernel, which else keeps megabytes for a reader that takes nothing

# A stream ends by the herd's own stop, which comes first and is not one for all apps of a process.
AppStatus.enable_automatic_graceful_drain = False

STREAM: dict[str, Any] = {
    "description": "The job's events until it has ended, one after the other; `data` is JSON, and differs by `event`",
    "content": {
        "text/event-stream": {
            "schema": {
                "type": "object",
                "properties": {
                    "id": {
                        "type": "string",
                        "description": "for Last-Event-ID; a `queued` that follows has none",
                    },
                    "event": {"enum": ["queued", "started", "tokens", "restarted", "done", "error"]},
                    "data": {"type": "string", "contentMediaType": "application/json"},
                },
                "required": ["event", "data"],
            },
            "examples": {
                "tokens": {
                    "value": {
                        "id": "1795251615290-0",
                        "event": "tokens",
                        "data": '{"attempt":1,"index":0,"count":2,"text":"Blue."}',
                    }
                }
            },
        }
    },
}

CancelOnDisconnect = Annotated[
    Flag, Query(description="cancel the job if the caller goes away before it has ended")
]
LastEventId = Annotated[
    str | None,
    Header(
        alias="Last-Event-ID",
        pattern="^[0-9]{1,19}-[0-9]{1,19}$",
        description="the id of the last event that was read; those after it follow",
    ),
]

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.get(
    "/{job_id}/events",
    summary="Read a job's events as they come",
    response_class=Response,
    responses={
        **declared(NotFound, InvalidRequest, Overloaded),
        200: STREAM,
        204: {"description": "The job has ended, and Last-Event-ID is its last event: do not come back"},
    },
)
async def events(
    request: Request,
    key: Caller,
    job_id: str,
    last_event_id: LastEventId = None,
    cancel_on_disconnect: CancelOnDisconnect = False,
) -> Response:
    """Server-sent events: what the job's log holds, and then what comes, until the job has ended.

    Come back with the last id as `Last-Event-ID`, here or at another herder of the herd: nothing is lost, and nothing
    comes twice. The texts of `tokens` since the last `restarted` are the answer, byte for byte.
    """
    herd = herd_of(request)
    record = await own(herd, key, job_id)
    ended = last_event_id is not None and record.status not in LIVE
    if ended and not await herd.broker.events(job_id, after=last_event_id or "-", limit=1):
        return Response(status_code=204)
    with herd.streams.reserved():
        return streamed(request, record, after=last_event_id, cancels=cancel_on_disconnect)


def streamed(
    request: Request,
    record: JobRecord,
    *,
    after: str | None = None,
    cancels: bool = False,
    headers: dict[str, str] | None = None,
    teller: Teller = EVENTS,
    media_type: str = "text/event-stream",
    attended: bool = False,
) -> Response:
    """The response that says this job's events in the words of a teller; inside `reserved`.

    `cancels`: the job goes with its reader. `attended`: also with this herder, since its reader cannot come back.
    """
    herd = herd_of(request)
    transport = request.scope.get("extensions", {}).get(CONNECTION)
    if transport is not None:
        _narrow(transport)
    stream = herd.streams.open(record, after, teller)
    if transport is not None:
        stream.cut = transport.abort
    kind = _Attended if attended else _Events
    return kind(herd, stream, cancels=cancels, headers=headers, media_type=media_type)


def _narrow(transport: Any) -> None:
    """Small buffers for a connection, if there still is one: its caller may have gone while the job was bought."""
    line = None if transport.is_closing() else transport.get_extra_info("socket")
    if line is not None:
        transport.set_write_buffer_limits(high=BUFFER_BYTES)
        with contextlib.suppress(OSError):  # some systems refuse it once the other end is gone
            line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)


class _Events(EventSourceResponse):
    """sse-starlette's response, which also closes the stream, whatever ended it."""

    def __init__(
        self,
        herd: Herd,
        stream: Stream,
        *,
        cancels: bool,
        headers: dict[str, str] | None,
        media_type: str,
    ) -> None:
        super().__init__(
            stream.frames(),
            headers=headers,
            media_type=media_type,
            ping=0,  # the stream says them itself, where it has said nothing else
            sep="\n",
            client_close_handler_callable=self._gone if cancels else None,
        )
        self._herd = herd
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it all."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._herd.streams.close(self._stream)

    async def _gone(self, _: Any) -> None:
        """The connection is gone; by whom is what matters."""
        stream = self._stream
        if not (stream.ended or stream.dropped or self._herd.stopping.is_set()):
            self._herd.cancel.job(stream.account, stream.job_id)


class _Attended(_Events):
    """The same for a reader that cannot come back: whatever ends the stream before its job has ended, ends that too."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it all."""
        stream = self._stream
        with self._herd.attendance.of(stream.job_id):
            try:
                await super().__call__(scope, receive, send)
            finally:
                if not stream.ended and self._herd.attendance.alone(stream.job_id):
                    self._herd.cancel.job(stream.account, stream.job_id)
