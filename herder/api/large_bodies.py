"""Bodies that may be as large as a batch's, as they come: no larger than they said, none that stops, none that drips.

How many are read at a time is `state`'s business. Must not know what is in them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from fastapi import Request

from herder.api.state import Herd
from herder.errors import BadRequest, TooLarge

UPLOAD_S_MAX = 300.0  # one of them
STALL_S = 20.0  # between two pieces


def small_size(request: Request, herd: Herd) -> int | None:
    """The bytes that a body says it has, where it is no larger than any other request's: it needs no place."""
    said = request.headers.get("content-length", "")[:20]
    return int(said) if said.isdecimal() and int(said) <= herd.settings.body_bytes_max else None


async def pieces(request: Request, herd: Herd) -> AsyncGenerator[bytes, None]:
    """A body as it comes, no more of it than it said or than a batch has.

    Raises TooLarge, and BadRequest where it stops or takes longer than UPLOAD_S_MAX.
    """
    small, stream, size = small_size(request, herd), request.stream(), 0
    clock = asyncio.get_running_loop().time
    end = clock() + UPLOAD_S_MAX
    limit, setting = herd.settings.batch_bytes_max, "HERDER_BATCH_BYTES_MAX"
    if small is not None:
        limit, setting = small, "its Content-Length"
    while True:
        try:
            async with asyncio.timeout(min(STALL_S, end - clock())):
                piece = await anext(stream, None)
        except TimeoutError:
            if clock() >= end:
                raise BadRequest(
                    f"the body did not come within {UPLOAD_S_MAX:g} s; send less at once"
                ) from None
            raise BadRequest(f"nothing of the body came within {STALL_S:g} s; send it again") from None
        if piece is None:
            return
        size += len(piece)
        if size > limit:
            raise TooLarge(f"the body is larger than {setting}, {limit} bytes", limit=limit)
        yield piece


async def whole_body(request: Request, herd: Herd) -> bytearray:
    """All of it; raises as `pieces` does."""
    body = bytearray()
    async for piece in pieces(request, herd):
        body += piece
    return body
