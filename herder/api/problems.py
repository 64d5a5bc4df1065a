"""Errors as `application/problem+json`: one document for every way of saying no, and its declaration in OpenAPI.

Turns `errors` into responses, and FastAPI's own refusals (404, 405, 422) into the same shape. Knows no route.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match

from herder.api.refusals import FINAL, PLAIN, PROBLEM, as_openai, as_text, in_a_text, nothing_at, status_at
from herder.api.strict import AT
from herder.errors import (
    BadRequest,
    HerderError,
    InvalidKey,
    InvalidRequest,
    MethodNotAllowed,
    MissingKey,
    NotFound,
    RateLimited,
    RedisUnavailable,
    TooLarge,
    Unavailable,
)

RETRY_AFTER_S = 2
FAULTS_MAX = 20  # named in `errors`
TOLD_MAX = 3  # of them in `detail`
# What every route that asks for a key may say, and what those that read a body may say besides.
WITH_KEY: tuple[type[HerderError], ...] = (MissingKey, InvalidKey, RateLimited, RedisUnavailable)
WITH_BODY: tuple[type[HerderError], ...] = (BadRequest, TooLarge, InvalidRequest)


# What the documentation shows of the fields that come with a code.
_LISTED = {"base_fee": 138, "set_prompt_fee": 10, "fee_per_token": 1}
_EXTRA: dict[str, dict[str, Any]] = {
    "insufficient_funds": {"needed": 138, "balance": 100, "max_affordable_tokens": 90, **_LISTED},
    "fee_too_low": {"needed": 138, "fee": 100, **_LISTED},
    "max_fee_exceeded": {"needed": 276, "max_fee": 200, **_LISTED},
    "unknown_model": {"models": ["herd-tiny"]},
    "too_large": {"limit": 500000},
    "invalid_request": {"errors": [{"field": "tokens", "message": "must be 1 or more"}]},
    "context_exceeded": {"limit": 512, "context": 512, "tokens": 600, "prompt_tokens": 12},
    "rate_limited": {"retry_after": 2},
}


# Pydantic's words, and ours; the first that fits is taken.
_WORDS = (
    (r"^\w+ should have at least 1 (?:item after validation, not 0|character)$", "must not be empty"),
    (
        r"^\w+ should have at (most|least) (\d+) items? after validation, not (more|(?:more than )?\d+)$",
        r"must have a length of at \1 \2, not \3",
    ),
    (r"^Input should be a valid dictionary(?: or instance of \w+)?$", "must be an object"),
    (r"^Input should be a valid integer.*$", "must be a whole number"),
    (r"^Input should be a valid boolean.*$", "must be true or false"),
    (r"^Input should be a valid (string|list|number)(, .*)?$", r"must be a \1"),
    (
        r"^String should match pattern '\^\[0-9\]\{1,19\}-.*$",
        "must be the id of an event: two numbers and a dash",
    ),
    (r"^String should match pattern '\^\[!-~\]\+\$'$", "must be visible ASCII characters without spaces"),
    (r"^String should match pattern '\^\[[01]-9\].*$", "must be the `next` of the page before"),
    (r"^Input should be ", "must be "),
    (r"^String should (match|have) ", r"must \1 "),
    (r"^Field required$", "is required"),
)


class FieldError(BaseModel):
    """One field that is wrong; `field` is a path such as `messages.0.role`."""

    field: str
    message: str


class SameError(BaseModel):
    """An error in the words of OpenAI's API."""

    message: str
    type: str = Field(examples=["billing_error"])
    param: str | None
    code: str


class Problem(BaseModel):
    """An error. `code` is stable and for programs, `detail` for people; some codes carry more fields."""

    model_config = ConfigDict(extra="allow")

    type: str = "about:blank"
    title: str = Field(examples=["Not enough credits"])
    status: int = Field(examples=[402])
    detail: str
    code: str = Field(examples=["insufficient_funds"])
    request_id: str
    errors: list[FieldError] | None = Field(None, description="the fields that are wrong (422)")
    error: SameError = Field(description="the same once more, as OpenAI's clients read it")


def declared(
    *errors: type[HerderError], body: bool = False, key: bool = True
) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route: its own errors, and those that come with a key and a body, grouped by status."""
    every = {*errors, *(WITH_KEY if key else (RedisUnavailable,)), *(WITH_BODY if body else ())}
    found: dict[int | str, dict[str, Any]] = {}
    for error in sorted(every, key=lambda e: (e.status, e.code)):
        entry = found.setdefault(
            error.status,
            {
                "description": "",
                "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}},
                "headers": _headers(error.status),
            },
        )
        entry["description"] = "; ".join(
            filter(None, [entry["description"], f"`{error.code}`: {error.title}"])
        )
        entry["content"][PROBLEM]["examples"][error.code] = {"value": example(error)}
    return found


def example(error: type[HerderError]) -> dict[str, Any]:
    """A problem document of this kind, as documentation shows it."""
    return {
        "type": "about:blank",
        "title": error.title,
        "status": error.status,
        "detail": f"{error.title}.",
        "code": error.code,
        "request_id": "req_5d1c3e0f9a7b",
        **_EXTRA.get(error.code, {}),
        "error": as_openai(error(f"{error.title}.", **_EXTRA.get(error.code, {}))),
    }


def _headers(status: int) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    if status in (429, 503):
        headers["Retry-After"] = {"description": "seconds to wait", "schema": {"type": "integer"}}
    if status == 401:
        headers["WWW-Authenticate"] = {"schema": {"type": "string"}}
    return headers


def problem(
    error: HerderError, request_id: str, path: str, headers: dict[str, str] | None = None
) -> Response:
    """The response for an error, in the words of whoever calls at this address."""
    headers = dict(headers or {})
    extra = dict(error.extra)
    if error.status == 429 or isinstance(error, Unavailable):
        wait = extra.setdefault("retry_after", RETRY_AFTER_S)
        headers["Retry-After"] = str(max(1, math.ceil(wait)))
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="herder"'
    if error.status in FINAL or getattr(error, "final", False):
        headers["x-should-retry"] = "false"
    if in_a_text(path):
        return Response(json.dumps(as_text(error)), error.status, headers, PLAIN)
    status = status_at(error, path)
    document = {
        "type": "about:blank",
        "title": error.title,
        "status": status,
        "detail": error.detail,
        "code": error.code,
        "request_id": request_id,
        **extra,
        "error": as_openai(error),
    }
    return Response(json.dumps(document), status, headers, PROBLEM)


def invalid(errors: Iterable[Any]) -> InvalidRequest:
    """Pydantic's complaints as ours: the path of each field, and what is wrong with it, never what was sent."""
    found = []
    for error in errors:
        kind, loc = str(error["type"]), tuple(error["loc"])
        if kind.startswith(AT):
            loc = *loc, kind.removeprefix(AT)
        path = ".".join(str(part) for part in loc if _is_field(part))
        message = "unknown field" if kind == "extra_forbidden" else _plain(str(error["msg"]))
        found.append({"field": _clean(path), "message": _clean(message.removeprefix("Value error, "))})
    return InvalidRequest(told(found), errors=found[:FAULTS_MAX])


def told(faults: Sequence[dict[str, str]], *, all_found: bool = True) -> str:
    """The first of what is wrong, in one line for people, and how much more there is."""
    first = "; ".join(
        f"{e['field']}: {e['message']}" if e["field"] else e["message"] for e in faults[:TOLD_MAX]
    )
    more = len(faults) - TOLD_MAX
    least = "" if all_found else "at least "
    return first[:600] + (f"; and {least}{more} more" if more > 0 else "")


def _plain(message: str) -> str:
    """Pydantic's words as a sentence about what was sent."""
    for wanted, ours in _WORDS:
        message, changed = re.subn(wanted, ours, message, count=1)
        if changed:
            break
    return message


def _is_field(part: int | str) -> bool:
    """Not where FastAPI read it from, nor what pydantic calls the branches of a union and its validators."""
    return part not in ("query", "header", "path", "body", "str") and not re.search(r"[\[(<]", str(part))


def _clean(text: str) -> str:
    """Text that can be written as UTF-8, whatever a caller put into a field's name."""
    return text[:300].encode("utf-8", "backslashreplace").decode()


def install(app: FastAPI, routes: Sequence[BaseRoute]) -> None:
    """Make every refusal a problem document; `routes` are asked what a refused method could have been."""

    @app.exception_handler(HerderError)
    async def ours(request: Request, error: HerderError) -> Response:
        return refused(request, error)

    @app.exception_handler(RequestValidationError)
    async def validation(request: Request, error: RequestValidationError) -> Response:
        return refused(request, invalid(error.errors()))

    @app.exception_handler(HTTPException)
    async def starlettes(request: Request, error: HTTPException) -> Response:
        if error.status_code == 405:
            allowed = {"Allow": ", ".join(sorted(_methods(routes, request)))}
            return refused(request, MethodNotAllowed(f"{request.method} is not possible here"), allowed)
        if error.status_code == 404:
            return refused(request, NotFound(nothing_at(request.url.path)))
        return refused(request, BadRequest(str(error.detail)))


def refused(request: Request, error: HerderError, headers: dict[str, str] | None = None) -> Response:
    """The answer to a request that ended in this error, which is counted."""
    request.app.state.metrics.refusals.labels(error.code).inc()
    return problem(error, request.state.request_id, request.url.path, headers)


def _methods(routes: Sequence[BaseRoute], request: Request) -> set[str]:
    """Every method that some route at this address takes."""
    methods: set[str] = set()
    for route in routes:
        match, _ = route.matches(request.scope)
        if match != Match.NONE:
            methods |= set(getattr(route, "methods", None) or ())
    return methods
