"""`/ipfs/{cid}/{path}`: files and folders of the store, by their CIDs. Reads only; nothing is fetched from elsewhere.

An answer is whole or an error: every block is compared with its CID before the first byte is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from herder.api.callers import Caller
from herder.api.problems import declared
from herder.api.run_shapes import Entry, Folder
from herder.api.state import herd_of
from herder.cids import BadCid, Cid, NoSuchPath
from herder.dagpb import BadBlock
from herder.errors import NotFound, StoreUnavailable
from herder.store import Absent, Store, segments

AT_ONCE_BYTES_MAX = 4 * 1024 * 1024  # kept in memory; a larger file is read twice: compared, then sent
ANYTHING = "application/octet-stream"
# What a browser would run, such as HTML, is never called that: its author is anybody.
_TYPES = {
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
    ".md": "text/plain; charset=utf-8",
}
_BYTES = {"schema": {"type": "string", "format": "binary"}}

router = APIRouter(prefix="/ipfs", tags=["modules"])

_ROUTE = {
    "response_class": Response,
    "responses": {
        **declared(NotFound, StoreUnavailable),
        200: {
            "description": "a file's bytes, or what is in a folder (`Folder`, as JSON)",
            "content": {"application/json": {"schema": {}}, "text/plain": _BYTES, ANYTHING: _BYTES},
        },
    },
}


@router.get("/{cid}", summary="Read a file or a folder by its CID", **_ROUTE)  # type: ignore[arg-type]
async def root(request: Request, key: Caller, cid: str) -> Response:
    """A file, or the names in a folder with their CIDs."""
    return await below(request, key, cid, "")


@router.get("/{cid}/{path:path}", summary="Read what is in a folder", **_ROUTE)  # type: ignore[arg-type]
async def below(request: Request, _: Caller, cid: str, path: str) -> Response:
    """What lies at this path below a folder's CID."""
    store = herd_of(request).store
    try:
        return await asyncio.to_thread(_answer, store, cid, path)
    except (Absent, BadCid, NoSuchPath) as error:
        raise NotFound(f"{cid[:100]}: {error}"[:500]) from None
    except BadBlock as error:
        raise StoreUnavailable(str(error)) from None


def _answer(store: Store, text: str, path: str) -> Response:
    names = segments(path)
    cid = store.find(text, names)
    headers = {
        "ETag": f'"{cid}"',
        "Cache-Control": "private, max-age=31536000, immutable",
        "X-Content-Type-Options": "nosniff",
    }
    entries = store.entries(cid)
    if entries is not None:
        shown = [Entry(name=entry.name, cid=str(entry.cid), bytes=entry.size) for entry in entries]
        folder = Folder(cid=str(cid), entries=shown)
        return Response(folder.model_dump_json(), 200, headers, "application/json")
    return _file(store, cid, headers, names[-1] if names else "")


def _file(store: Store, cid: Cid, headers: dict[str, str], name: str) -> Response:
    _, dot, ending = name.rpartition(".")
    kind = _TYPES.get(f"{dot}{ending.lower()}", ANYTHING)
    size = store.size(cid) or 0
    if size <= AT_ONCE_BYTES_MAX:
        return Response(b"".join(store.read(cid)), 200, headers, kind)
    for _ in store.read(cid):
        pass
    pieces: Iterator[bytes] = store.read(cid)
    return StreamingResponse(pieces, 200, headers | {"Content-Length": str(size)}, kind)
