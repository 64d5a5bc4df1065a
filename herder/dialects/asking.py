"""What the dialects have in common in what they ask: bodies read leniently, names of models, bids. Decides no price.

Their clients send nulls for all that they do not use, and fields that nobody knows: neither is refused here.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ConfigDict

from herder.api.reading import counted_bytes, object_in, validated
from herder.api.state import Herd, herd_of
from herder.errors import InvalidRequest
from herder.settings import Settings

HEADER_CHARS_MAX = 64
# A bid may come in a header, and beside the fields of the body (`extra_body` of OpenAI's client).
_BIDS = {"x-fee": "fee", "x-multiplier": "multiplier", "x-max-fee": "max_fee"}


class Lenient(BaseModel):
    """A body in which unknown fields are ignored. Every optional field is nullable."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    model: str | None = None
    service_tier: str | None = None
    fee: Any = None
    multiplier: Any = None
    max_fee: Any = None


Body = TypeVar("Body", bound=BaseModel)


async def object_of(request: Request) -> dict[str, Any]:
    """The JSON object of a request. Raises TooLarge, BadRequest, InvalidRequest."""
    limit = herd_of(request).settings.body_bytes_max
    return object_in(await counted_bytes(request, limit, "HERDER_BODY_BYTES_MAX"))


async def asked(request: Request, model: type[Body]) -> Body:
    """The body of a request as a `model`. Raises TooLarge, BadRequest, InvalidRequest."""
    return validated(model, await object_of(request), herd_of(request).settings)


def bid_of(request: Request, body: Lenient) -> dict[str, Any]:
    """What is offered: the headers `X-Fee`, `X-Multiplier` and `X-Max-Fee`, else the body's fields, else its tier.

    Raises InvalidRequest for a header that is no number, what is said twice and not the same, and a tier that nobody
    knows.
    """
    bid = {name: getattr(body, name) for name in _BIDS.values() if getattr(body, name) is not None}
    for header, name in _BIDS.items():
        for text in request.headers.getlist(header):
            number = _number(header, text)
            if bid.setdefault(name, number) != number:
                raise _wrong(header, f"is given twice, as {bid[name]} and as {number}"[:100])
    multiplier = tier_multiplier(herd_of(request).settings, body.service_tier)
    if "fee" in bid or "multiplier" in bid or multiplier is None:
        return bid
    return bid | {"multiplier": multiplier}


def _number(header: str, text: str) -> Any:
    try:
        (number,) = object_in(f'{{"it":{text}}}'.encode() if len(text) <= HEADER_CHARS_MAX else b"").values()
    except Exception:
        number = None
    if isinstance(number, bool) or not isinstance(number, int | float | Decimal):
        raise _wrong(header, "must be a number")
    return number


def _wrong(field: str, message: str) -> InvalidRequest:
    return InvalidRequest(f"{field}: {message}", errors=[{"field": field, "message": message}])


def tier_multiplier(settings: Settings, tier: str | None) -> Any:
    """The multiplier of a `service_tier`; None for the automatic price."""
    known = settings.tiers
    if tier in (None, "auto", "default"):
        return known.get("default")
    assert tier is not None
    if tier not in known:
        raise _wrong("service_tier", f"must be one of auto, {', '.join(sorted({'default', *known}))}")
    return known[tier]


async def model_named(herd: Herd, name: str | None) -> str | None:
    """The model that is meant by a name, which may be another one that it has here; None for the herd's default."""
    if not name:
        return None
    alias = herd.settings.aliases.get(name)
    if alias is None or await herd.market.state(name) is not None:
        return name
    return alias or None
