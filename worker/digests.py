"""Which model files may be served: a list of SHA-256 digests, and the check of a file, all its parts, against it.

Runs before native code sees the file. Must not know of Redis, of jobs or of llama_cpp.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterable
from pathlib import Path

from worker.engine import ModelUnusable
from worker.gguf import Header

DIGEST = re.compile(r"^[0-9a-f]{64}$")
LIST_BYTES_MAX = 1_000_000
PARTS_MAX = 1_000
UINT16 = 2


def read_allowed(entries: Iterable[str]) -> frozenset[str] | None:
    """The digests that `entries` (digests, and files of them) come to; None where there is no entry, and no list.

    A file has a digest at the beginning of each line, as `sha256sum` writes them; `#` begins a comment. Raises
    ValueError for what is neither, and for a file without digests: a list that cannot be read allows nothing.
    """
    digests: set[str] = set()
    some = False
    for entry in entries:
        some = True
        if DIGEST.match(entry.lower()):
            digests.add(entry.lower())
        else:
            digests |= _read_list(Path(entry).expanduser())
    return frozenset(digests) if some else None


def _read_list(path: Path) -> set[str]:
    try:
        with path.open("rb") as file:
            text = file.read(LIST_BYTES_MAX + 1)
    except OSError as error:
        raise ValueError(f"HERDER_MODEL_SHA256: {path} is neither a digest nor a file: {error}") from error
    if len(text) > LIST_BYTES_MAX:
        raise ValueError(f"HERDER_MODEL_SHA256: {path} is larger than {LIST_BYTES_MAX} bytes")
    digests = set()
    for number, line in enumerate(text.decode("utf-8", "replace").splitlines(), 1):
        words = line.partition("#")[0].lower().split()
        if words and not DIGEST.match(words[0]):
            raise ValueError(f"HERDER_MODEL_SHA256: {path}, line {number}: no SHA-256 digest")
        digests |= set(words[:1])
    if not digests:
        raise ValueError(f"HERDER_MODEL_SHA256: {path} has no digest in it, so no model could be served")
    return digests


def check_allowed(path: Path, allowed: frozenset[str]) -> None:
    """Raises ModelUnusable where the file is not on the list, naming the digest that it has; or OSError."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found not in allowed:
        raise ModelUnusable(
            f"{path}: its SHA-256 is {found}, which HERDER_MODEL_SHA256 does not allow; add it if you trust the "
            "file, else delete it and fetch it again"
        )


def other_parts(path: Path, header: Header) -> list[Path]:
    """The files that llama.cpp would read besides the first of a split model. Raises ModelUnusable."""
    raw = header.entries.get("split.count")
    # Of any other type llama.cpp refuses the file.
    count = int.from_bytes(raw[-2:], "little") if raw and _kind(raw) == UINT16 else 0
    if count <= 1:
        return []
    stem = re.match(rf"^(.*)-00001-of-{count:05d}\.gguf$", path.name)
    if count > PARTS_MAX or stem is None:
        raise ModelUnusable(
            f"{path}: a part of a split model, but not its first, NAME-00001-of-{count:05d}.gguf"
        )
    return [path.with_name(f"{stem[1]}-{i:05d}-of-{count:05d}.gguf") for i in range(2, count + 1)]


def _kind(raw: bytes) -> int:
    """The type of an entry's value."""
    length = struct.unpack_from("<Q", raw)[0]
    return int(struct.unpack_from("<I", raw, 8 + length)[0])
