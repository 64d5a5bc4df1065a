"""Whether a webhook is the herder's, as the Standard Webhooks specification has it. Pure; needs nothing but Python."""

from __future__ import annotations

import base64
import hmac
import json
import re
import time
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from llama_herder._calls import kind_of
from llama_herder._core import one_line
from llama_herder.errors import WebhookInvalid

TOLERANCE_S = 300.0
SIGNATURES_MAX = 32

_PREFIX = "whsec_"
_TIMESTAMP = re.compile(r"[0-9]{1,12}")


class Headers(Protocol):
    """A mapping of names to values, or whatever else lists them: `request.headers` of any framework."""

    def items(self) -> Iterable[tuple[str, str]]:
        """Names, in whatever case, and values."""


def verify_webhook(
    headers: Headers,
    body: bytes | str,
    secret: str | Sequence[str],
    *,
    tolerance_s: float = TOLERANCE_S,
    now: float | None = None,
) -> dict[str, Any]:
    """The event that a webhook brings, if it is the herder's and not an old one sent again; else WebhookInvalid.

    `body` is the body as it came, not parsed and written anew. `secret` is what the herder gave for the address,
    `whsec_…`, or several of them, while one is being replaced. `now` (seconds since the epoch) may be at most
    `tolerance_s` from the moment of sending. An event may come more than once: its `webhook-id` header is the same.

    >>> try:
    ...     event = verify_webhook({"Content-Type": "application/json"}, b'{"type": "job.succeeded"}', "whsec_c2VjcmV0")
    ... except WebhookInvalid as error:
    ...     print(error.status)
    400
    """
    if not isinstance(body, bytes | str):
        raise TypeError(f"the body must be the bytes as they came, not {kind_of(body)}")
    content = body.encode("utf-8", "surrogateescape") if isinstance(body, str) else body
    keys = [_key(text) for text in ([secret] if isinstance(secret, str) else secret)]
    if not keys:
        raise WebhookInvalid("there is no secret to verify the webhook with")
    found = {name.lower(): value for name, value in headers.items()}
    webhook_id, timestamp, given = (_header(found, name) for name in ("id", "timestamp", "signature"))
    _in_time(timestamp, tolerance_s, time.time() if now is None else now)
    signed = f"{webhook_id}.{timestamp}.".encode("utf-8", "surrogateescape") + content
    expected = [base64.b64encode(hmac.digest(key, signed, "sha256")) for key in keys]
    if not _matches(given, expected):
        raise WebhookInvalid(
            "the webhook's signature is wrong: its body was changed, or it was signed with another secret"
        )
    return _event(content)


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.strip().removeprefix(_PREFIX), validate=True)
    except ValueError:
        key = b""
    if not key or not secret.strip().startswith(_PREFIX):
        raise WebhookInvalid("a webhook's secret must be whsec_ and base64, as the herder gave it")
    return key


def _header(found: dict[str, str], name: str) -> str:
    value = found.get(f"webhook-{name}")
    if not value:
        raise WebhookInvalid(
            f"the header webhook-{name} is missing: this is no webhook, or a proxy took it away"
        )
    return value


def _in_time(timestamp: str, tolerance_s: float, now: float) -> None:
    if not _TIMESTAMP.fullmatch(timestamp):
        raise WebhookInvalid(f"the header webhook-timestamp is no time: {one_line(timestamp, 40)!r}")
    age_s = now - int(timestamp)
    if abs(age_s) > tolerance_s:
        when = (
            f"too old: it was sent {age_s:.0f} s ago"
            if age_s > 0
            else f"too new: it is from {-age_s:.0f} s ahead"
        )
        raise WebhookInvalid(
            f"the webhook is {when}, and {tolerance_s:g} s are accepted; are both clocks right?"
        )


def _matches(given: str, expected: Sequence[bytes]) -> bool:
    """Whether one of the signatures is one of the expected; takes as long whichever it is."""
    parts = [part.partition(",") for part in given.split(" ", SIGNATURES_MAX)[:SIGNATURES_MAX]]
    signatures = [text.encode("utf-8", "surrogateescape") for version, _, text in parts if version == "v1"]
    return any([hmac.compare_digest(text, good) for text in signatures for good in expected])  # noqa: C419


def _event(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise WebhookInvalid("the webhook's body is not a JSON object")
    return found
