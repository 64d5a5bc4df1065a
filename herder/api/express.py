"""The way of most submissions: `POST /v1/jobs` without a query, past FastAPI's machinery and through the same checks.

FastAPI solves the dependencies of a request anew each time, which takes longer than all that a submission really needs.
The route in `jobs` stays: it is what the documentation shows, and it answers whatever this leaves to it.
"""

from __future__ import annotations

import re

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from herder.api import jobs
from herder.api.bodies import JobRequest
from herder.api.callers import authenticated
from herder.api.problems import refused
from herder.api.reading import counted_body
from herder.api.state import herd_of
from herder.errors import HerderError

PATH = jobs.router.prefix
_IDEMPOTENCY_KEY = re.compile(rb"[!-~]{1,255}")


class Express:
    """Middleware that answers plain submissions; the rest is passed on. Innermost: no other is passed by."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        (self._route,) = [r for r in jobs.router.routes if getattr(r, "endpoint", None) is jobs.submit]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if (
            scope["type"] != "http"
            or scope["path"] != PATH
            or scope["method"] != "POST"
            or scope["query_string"]
        ):
            await self._app(scope, receive, send)
            return
        keys = [value for name, value in scope["headers"] if name == b"idempotency-key"]
        if keys and (len(keys) > 1 or not _IDEMPOTENCY_KEY.fullmatch(keys[0])):
            await self._app(scope, receive, send)  # which says what is wrong with it
            return
        scope["route"] = self._route
        request = Request(scope, receive)
        try:
            key = await authenticated(request)
            body = await counted_body(request, JobRequest)
            response = await jobs.sold(herd_of(request), key, body, keys[0].decode() if keys else None)
        except HerderError as error:
            response = refused(request, error)
        await response(scope, receive, send)
