"""Around every request: an id, a count, a word on replays, and a problem document for what nobody caught. Plain ASGI.

Outermost, so that nothing leaves without `x-request-id`. Knows no route.
"""

from __future__ import annotations

import random
import re
import time

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from herder.api.metrics import Metrics
from herder.api.problems import problem
from herder.errors import HerderError
from herder.logs import get_logger

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)

log = get_logger(__name__)


class Envelope:
    """The outermost middleware."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; everything but HTTP is passed on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        started, status = time.perf_counter(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                added = [(b"x-request-id", request_id.encode())]
                if scope["state"].get("replayed"):
                    added.append((b"idempotent-replayed", b"true"))
                message["headers"] = [*message.get("headers", ()), *added]
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except ClientDisconnect:
            status = status or 499
        except Exception:
            log.exception("request failed", method=scope["method"], path=scope["path"])
            if status:
                raise
            error = HerderError("something went wrong here; the log has more under this request_id")
            await problem(error, request_id, scope["path"])(scope, receive, sending)
        finally:
            self._count(scope, status, time.perf_counter() - started)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        # The route's pattern, never the path: a metric must not have one series a job.
        route = getattr(scope.get("route"), "path", "other")
        method = scope["method"] if route != "other" else "any"
        self._metrics.answered(method, route, status, seconds)


def told_as_replayed(request: Request) -> None:
    """Let the answer say that an earlier request with the same Idempotency-Key has bought what it tells of."""
    request.state.replayed = True


def _request_id(scope: Scope) -> str:
    """The caller's own id where it is a decent one, so that logs can be joined; else a fresh one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            given = value.decode("latin-1")
            if _REQUEST_ID.fullmatch(given):
                return str(given)
    return f"req_{random.getrandbits(64):016x}"  # told apart, not kept secret
