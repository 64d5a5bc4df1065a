"""Reading a JSON body: within its cap, exactly, and into a strict pydantic model; every fault is the caller's.

Knows nothing of what the bodies mean. FastAPI's own reading is not used, since it parses a body before it knows who
sent it and answers deep nesting with a 500.
"""

from __future__ import annotations

import json
from codecs import BOM_UTF8
from collections.abc import Awaitable, Callable
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn, TypeVar
from urllib.parse import unquote_to_bytes

from fastapi import Request
from pydantic import BaseModel, ValidationError

from herder.api.callers import Admin, Caller
from herder.api.places import placed
from herder.api.problems import invalid
from herder.api.state import herd_of
from herder.errors import BadRequest, InvalidRequest, TooLarge
from herder.settings import Settings

Body = TypeVar("Body", bound=BaseModel)


def body_of(model: type[Body]) -> Callable[..., Awaitable[Body]]:
    """A dependency that reads a body into `model` once the caller is known."""

    async def read(request: Request, _: Caller) -> Body:
        _only_known(request)
        return await counted_body(request, model)

    return read


async def counted_body(request: Request, model: type[Body]) -> Body:
    """The body of a request as a `model`. Raises TooLarge, BadRequest, InvalidRequest."""
    return parsed(model, await _bytes(request), herd_of(request).settings)


def _only_known(request: Request) -> None:
    """Refuse query parameters that the route does not have (a `max_fee` up there would be silently worth nothing), and
    those that are given twice, of which one would be."""
    route = request.scope["route"]
    known = {parameter.alias for parameter in route.dependant.query_params}
    names = [name for name, _ in query_of(request)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        fault = {"field": twice[:100], "message": "is given twice"}
        raise InvalidRequest(f"{fault['field']}: is given twice", errors=[fault])
    unknown = [name for name in names if name not in known]
    if unknown:
        what = f"there are: {', '.join(sorted(known))}" if known else "it has none"
        where = f"is no query parameter of this route ({what})"
        if request.method != "GET":
            where += "; the fields of the body belong into the body"
        faults = [{"field": name[:100], "message": where} for name in unknown[:20]]
        raise InvalidRequest(f"{unknown[0][:100]}: {where}", errors=faults)


async def only_known_of_get(request: Request) -> None:
    """A dependency: a GET with a query parameter that its route does not have is refused, since a filter that is
    silently ignored shows what was not asked for."""
    if request.method == "GET":
        _only_known(request)


def admin_body_of(model: type[Body]) -> Callable[..., Awaitable[Body]]:
    """The same for administrators, so that nobody else's body is read."""

    async def read(request: Request, _: Admin) -> Body:
        return await counted_body(request, model)

    return read


def parsed(model: type[Body], raw: bytes | bytearray, settings: Settings) -> Body:
    """Bytes as a `model`. Raises BadRequest (not JSON, not an object), InvalidRequest (a field is wrong)."""
    return validated(model, object_in(raw), settings)


def object_in(raw: bytes | bytearray, what: str = "the body") -> dict[str, Any]:
    """A JSON object, its numbers exact. Raises BadRequest (not JSON, not an object), InvalidRequest (no such JSON)."""
    try:
        if raw.startswith(BOM_UTF8):
            raise BadRequest(f"{what} begins with a byte order mark: send UTF-8 without one")
        value = _EXACT.decode(raw.decode("utf-8"))
        if not isinstance(value, dict):
            raise BadRequest(f"{what} must be a JSON object")
        _only_unicode(value, raw)
        return value
    except InvalidRequest as error:
        raise placed(error, raw) from None
    except RecursionError:
        raise BadRequest(f"{what} is nested too deeply") from None
    except UnicodeDecodeError:
        raise BadRequest(f"{what} is not UTF-8") from None
    except ValueError as error:
        raise BadRequest(f"{what} is not JSON: {error}"[:300]) from None


def validated(model: type[Body], value: dict[str, Any], settings: Settings) -> Body:
    """An object as a `model`, which may look at the settings. Raises InvalidRequest (a field is wrong)."""
    try:
        return model.model_validate(value, context=settings)
    except ValidationError as error:
        raise invalid(error.errors(include_url=False, include_context=False, include_input=False)) from None


def query_of(request: Request) -> list[tuple[str, str]]:
    """The parameters of a query, in order. Raises InvalidRequest for bytes that would silently be read as U+FFFD."""
    try:
        unquote_to_bytes(request.scope["query_string"]).decode("utf-8")
    except UnicodeDecodeError:
        fault = {"field": "", "message": "the query is not UTF-8"}
        raise InvalidRequest(fault["message"], errors=[fault]) from None
    return request.query_params.multi_items()


async def _bytes(request: Request) -> bytearray:
    return await counted_bytes(request, herd_of(request).settings.body_bytes_max, "HERDER_BODY_BYTES_MAX")


async def counted_bytes(request: Request, limit: int, setting: str) -> bytearray:
    """The body, counted while it comes, whatever its length was said to be. Raises TooLarge."""
    body = bytearray()
    async for piece in request.stream():
        if len(body) + len(piece) > limit:
            raise TooLarge(f"the body is larger than {setting}, {limit} bytes", limit=limit)
        body += piece
    return body


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names are all different: of two `tokens`, nobody knows which was meant to be paid for."""
    named: dict[str, Any] = {}
    for name, value in pairs:
        if name in named:
            fault = {"field": name[:100], "message": "is given twice"}
            raise InvalidRequest(f"{fault['field']}: {fault['message']}", errors=[fault])
        named[name] = value
    return named


def _decimal(text: str) -> Decimal:
    """Numbers stay exact: 1.001 must not become 1.00099999."""
    if len(text) > 64:
        raise InvalidRequest("a number has more than 64 characters", errors=[])
    try:
        return Decimal(text)
    except InvalidOperation:  # 1e99999999999999999999
        fault = {"field": "", "message": "a number's exponent is too large"}
        raise InvalidRequest(fault["message"], errors=[fault]) from None


def _constant(name: str) -> NoReturn:
    raise InvalidRequest(
        f"{name} is not a number", errors=[{"field": "", "message": f"{name} is not a number"}]
    )


_EXACT = json.JSONDecoder(parse_float=_decimal, parse_constant=_constant, object_pairs_hook=_once)


def _only_unicode(value: Any, raw: bytes | bytearray) -> None:
    """Refuse lone surrogates, which JSON can write and UTF-8 cannot; only looked for where an escape of one stands."""
    if rb"\ud" not in raw and rb"\uD" not in raw:
        return
    try:
        json.dumps(value, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        fault = {"field": "", "message": "a string is not valid Unicode (a lone surrogate)"}
        raise InvalidRequest(fault["message"], errors=[fault]) from None
