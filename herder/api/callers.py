"""Who is calling: the API key, the address, and the two rate limits.

The order is fixed: declared body size, the key (and failures of this address), the key's rate. Only then is a
body read. Knows nothing of what is asked.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import time
from collections.abc import Sequence
from typing import Annotated

from fastapi import Depends, Request

from herder.api.state import Allowance, Herd, Network, herd_of
from herder.errors import Forbidden, InvalidKey, MissingKey, RateLimited, SetupError, TooLarge
from herder.records import KeyRecord, Role

BARRED_MAX = 10_000
ALLOWANCES_MAX = 10_000
KEY_CHARS_MAX = 200
FORWARDED_MAX = 32


async def authenticated(request: Request) -> KeyRecord:
    """The key of this request. Raises TooLarge, RateLimited, MissingKey, InvalidKey."""
    return await _admitted(request, herd_of(request).settings.body_bytes_max, "HERDER_BODY_BYTES_MAX")


async def authenticated_for_batch(request: Request) -> KeyRecord:
    """The same for a body that may be as large as a batch's."""
    return await _admitted(request, herd_of(request).settings.batch_bytes_max, "HERDER_BATCH_BYTES_MAX")


async def _admitted(request: Request, bytes_max: int, setting: str) -> KeyRecord:
    herd = herd_of(request)
    # 1. A body that says it is too large is not worth anything further.
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > bytes_max:
        raise TooLarge(f"the body has {declared[:20]} bytes, {setting} is {bytes_max}", limit=bytes_max)
    # 2. The key. A good one always counts, however often others have failed from the same address: behind one proxy or
    # one office everybody shares it, and nobody guesses 178 bits.
    sent = sent_key(request)
    if sent is None:  # no guess, so no failure
        raise MissingKey("send an API key: `Authorization: Bearer hk_…` or `X-API-Key: hk_…`")
    key = await herd.keys.authenticate(sent)
    if key is None:
        await _count_failure(herd, subject(client_address(request, herd.proxies)))
        raise InvalidKey("this API key is mistyped, unknown or revoked")
    # 3. The key's rate.
    wait_ms = await _key_wait_ms(herd, key.key_id)
    if wait_ms:
        raise RateLimited(
            f"more than {herd.settings.rate_limit_per_minute} requests a minute with this key",
            retry_after=wait_ms / 1000,
        )
    return key


async def administrating(key: Annotated[KeyRecord, Depends(authenticated)]) -> KeyRecord:
    """The key of this request, if it is an administrator's. Raises Forbidden."""
    if key.role is not Role.ADMIN:
        raise Forbidden("this needs an admin key")
    return key


Caller = Annotated[KeyRecord, Depends(authenticated)]
BatchCaller = Annotated[KeyRecord, Depends(authenticated_for_batch)]
Admin = Annotated[KeyRecord, Depends(administrating)]


async def _key_wait_ms(herd: Herd, key_id: str) -> int:
    """0, or the milliseconds until this key may go on.

    A second's worth of requests is taken from Redis at a time and used up here: each take is a write that Redis puts
    on its disk, and a replica holds back at most that much.
    """
    if key_id not in herd.allowances:
        if len(herd.allowances) >= ALLOWANCES_MAX:
            herd.allowances.pop(next(iter(herd.allowances)))
        herd.allowances[key_id] = Allowance()
    allowance = herd.allowances[key_id]
    async with allowance.asking:
        if allowance.left <= 0:
            per_minute = herd.settings.rate_limit_per_minute
            block = max(1, per_minute // 60)
            wait_ms = await herd.ledger.throttle(f"key:{key_id}", per_minute // block)
            if wait_ms:
                return wait_ms
            allowance.left += block
        allowance.left -= 1
    return 0


async def _count_failure(herd: Herd, address: str) -> None:
    """Take one from the address's allowance; past it failures get 429, known here in memory, until it has one again."""
    left_s = herd.barred.get(address, 0.0) - time.monotonic()
    if left_s > 0:
        raise RateLimited("too many failed authentications from this address", retry_after=round(left_s, 3))
    wait_ms = await herd.ledger.throttle(f"auth:{address}", herd.settings.auth_failures_per_minute)
    if not wait_ms:
        return
    if len(herd.barred) >= BARRED_MAX:
        herd.barred.pop(next(iter(herd.barred)))
    herd.barred[address] = time.monotonic() + wait_ms / 1000
    raise RateLimited("too many failed authentications from this address", retry_after=wait_ms / 1000)


def sent_key(request: Request) -> str | None:
    """The key that was sent, in any of the forms that clients have: Bearer, X-API-Key, Basic (raw or encoded)."""
    scheme, _, value = request.headers.get("authorization", "").strip().partition(" ")
    value = value.strip()[: KEY_CHARS_MAX * 2]
    if value and scheme.lower() == "bearer":
        return value[:KEY_CHARS_MAX]
    if value and scheme.lower() == "basic":
        return _basic(value)[:KEY_CHARS_MAX]
    return request.headers.get("x-api-key", "").strip()[:KEY_CHARS_MAX] or None


def _basic(value: str) -> str:
    if value.startswith("hk_"):
        return value
    try:
        text = base64.b64decode(value, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return value
    return text.rpartition(":")[2] or text.rstrip(":")


def client_address(request: Request, proxies: Sequence[Network]) -> str:
    """The caller's address; X-Forwarded-For counts only as far as listed proxies have written it."""
    address = request.client.host if request.client else "local"
    forwarded = ",".join(request.headers.getlist("x-forwarded-for")).split(",")[-FORWARDED_MAX:]
    for hop in reversed([part.strip() for part in forwarded if part.strip()]):
        if not _trusted(address, proxies):
            break
        address = hop[:64]
    return address


def _trusted(address: str, proxies: Sequence[Network]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in proxies)


def subject(address: str) -> str:
    """What failures are counted under: an IPv4 address, or the /64 that one IPv6 customer has."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    if parsed.version == 4:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False).network_address)


def proxy_networks(addresses: Sequence[str]) -> tuple[Network, ...]:
    """HERDER_TRUSTED_PROXIES as networks. Raises SetupError."""
    try:
        return tuple(ipaddress.ip_network(address, strict=False) for address in addresses)
    except ValueError as error:
        raise SetupError(
            f"HERDER_TRUSTED_PROXIES: {error}; list addresses or networks such as 10.0.0.0/8"
        ) from error
