"""The content-addressed store: blocks in a folder, each a file named by its hash, and a list of what was added.

Nothing is ever fetched from elsewhere. Knows the disk; what blocks mean is `cids`' business. Blocking: an event loop
calls it in a thread. Any number of processes may share the folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from herder.cids import (
    BLOCK_BYTES_MAX,
    RAW,
    V0,
    Cid,
    Link,
    NoSuchPath,
    Profile,
    bytes_at,
    checked,
    directory_of,
    file_of,
    named,
    node_at,
    parsed,
    resolved,
    size_of,
    target_of,
)
from herder.dagpb import DIRECTORY, BadBlock
from herder.settings import Settings

READ_BYTES = 1024 * 1024
FILES_MAX = 100_000  # of one folder that is added, all below it counted
DEPTH_MAX = 64
ENTRY_BYTES_MAX = 10_000


class Absent(Exception):
    """A block that is not in this store."""


class CannotStore(Exception):
    """It cannot be put away, or not be written out; the message says why. What was there before is as it was."""


@dataclass(frozen=True)
class Root:
    """Something that was added: what it was called, its bytes, and when."""

    cid: Cid
    name: str
    size: int
    added_ms: int


@dataclass(frozen=True)
class Entry:
    """A name in a folder, and what it leads to; `size` is None for a folder."""

    name: str
    cid: Cid
    size: int | None


class Store:
    """The store in this folder, which is made with the first block.

    `free_bytes_min` is what stays free of the disk: nothing is added that would take of it.
    """

    def __init__(self, folder: Path, free_bytes_min: int = 0) -> None:
        self.folder = folder
        self._free_bytes_min = free_bytes_min

    # --- blocks ------------------------------------------------------------------------------------------

    def put(self, cid: Cid, block: bytes) -> None:
        """Keep a block; one that is there and whole is left alone, a damaged one replaced. Raises CannotStore."""
        path = self._path(cid)
        with contextlib.suppress(OSError):
            if path.stat().st_size == len(block) and path.read_bytes() == block:
                return
        self._write(path, block)

    def get(self, cid: Cid) -> bytes:
        """A block, compared with its CID. Raises Absent, BadBlock."""
        try:
            with self._path(cid).open("rb") as file:
                return checked(cid, file.read(BLOCK_BYTES_MAX + 1))
        except FileNotFoundError:
            raise Absent(f"{cid} is not in this store; nothing is fetched from elsewhere") from None
        except OSError as error:
            raise BadBlock(f"the block {cid} cannot be read: {_why(error)}") from None

    def _path(self, cid: Cid) -> Path:
        # By the hash in hexadecimal: some disks do not tell Qma… from QmA….
        name = cid.digest.hex()
        return self.folder / "blocks" / name[:2] / name

    def _write(self, path: Path, content: bytes) -> None:
        """All of it or nothing, and on the disk before it has its name."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # its owner's alone, as its files are
            path.parent.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(path.parent).free - len(content) < self._free_bytes_min:
                raise CannotStore(
                    f"the disk of {self.folder} has less than {self._free_bytes_min} bytes free "
                    "(HERDER_STORE_FREE_BYTES_MIN)"
                )
            descriptor, draft = tempfile.mkstemp(prefix="draft-", dir=path.parent)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                Path(draft).replace(path)
            except BaseException:
                Path(draft).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise CannotStore(f"{self.folder} cannot be written: {_why(error)}") from None

    # --- adding ------------------------------------------------------------------------------------------

    def add(self, path: Path, profile: Profile = V0) -> Link:
        """A file, or a folder with everything in it. Raises CannotStore."""
        left = [FILES_MAX]
        link = self._added(path, profile, left, 0)
        self._remember(link, path.resolve().name)
        return link

    def add_tree(self, files: dict[str, bytes], name: str, profile: Profile = V0) -> Link:
        """A folder of these files, whose names may have slashes in them. Raises CannotStore."""
        link = self._tree(files, profile)
        self._remember(link, name)
        return link

    def _tree(self, files: dict[str, bytes], profile: Profile) -> Link:
        below: dict[str, dict[str, bytes]] = {}
        entries: dict[str, Link] = {}
        for path, content in files.items():
            first, slash, rest = path.partition("/")
            if slash:
                below.setdefault(first, {})[rest] = content
            else:
                entries[first] = file_of([content], self.put, profile)
        entries |= {name: self._tree(tree, profile) for name, tree in below.items()}
        return directory_of(entries, self.put, profile)

    def _added(self, path: Path, profile: Profile, left: list[int], depth: int) -> Link:
        left[0] -= 1
        if left[0] < 0 or depth > DEPTH_MAX:
            raise CannotStore(
                f"{path}: more than {FILES_MAX} files, or folders in more than {DEPTH_MAX} folders"
            )
        if depth and path.is_symlink():
            raise CannotStore(f"{path} is a symbolic link; a store keeps files and folders")
        try:
            if path.is_dir():
                return self._added_folder(path, profile, left, depth)
            if not path.is_file():
                what = f"{path} is neither a file nor a folder" if path.exists() else f"there is no {path}"
                raise CannotStore(what)
            with path.open("rb") as file:
                return file_of(_pieces(file), self.put, profile)
        except OSError as error:
            raise CannotStore(f"{path} cannot be read: {_why(error)}") from None

    def _added_folder(self, path: Path, profile: Profile, left: list[int], depth: int) -> Link:
        names = sorted(below.name for below in path.iterdir())
        entries = {name: self._added(path / name, profile, left, depth + 1) for name in names}
        try:
            return directory_of(entries, self.put, profile)
        except ValueError as error:
            raise CannotStore(f"{path}: {error}") from None

    def _remember(self, link: Link, name: str) -> None:
        # By its bytes in hexadecimal, for the same disks.
        path = self.folder / "roots" / f"{bytes(link.cid).hex()}.json"
        if not path.exists():
            told = {"cid": str(link.cid), "name": name[:200], "bytes": link.stored}
            self._write(path, json.dumps(told).encode())

    # --- looking -----------------------------------------------------------------------------------------

    def roots(self, limit: int) -> list[Root]:
        """What was added last, newest first."""
        try:
            found = [
                (entry.stat().st_mtime, Path(entry.path))
                for entry in os.scandir(self.folder / "roots")
                if entry.name.endswith(".json")
            ]
        except FileNotFoundError:
            return []
        newest = sorted(found, reverse=True)[:limit]
        return [root for at, path in newest if (root := _root(path, int(at * 1000))) is not None]

    def entries(self, cid: Cid) -> list[Entry] | None:
        """What is in a folder; None for a file. Raises Absent, BadBlock."""
        node = node_at(cid, self.get)
        if node.kind != DIRECTORY:
            return None
        found = []
        for pointer in node.pointers:
            if not named(pointer.name):
                raise BadBlock(f"the folder {cid} has a name in it that no file can have")
            target = target_of(pointer)
            # A raw block is a file of its bytes: it need not be read for that.
            size = pointer.stored if target.codec == RAW else self.size(target)
            found.append(Entry(pointer.name, target, size))
        return found

    def find(self, text: str, path: Sequence[str] = ()) -> Cid:
        """What lies at this path below a CID's text. Raises BadCid, Absent, NoSuchPath, BadBlock."""
        return resolved(parsed(text), path, self.get)

    def size(self, cid: Cid) -> int | None:
        """The bytes of a file; None for a folder. Raises Absent, BadBlock."""
        node = node_at(cid, self.get)
        return None if node.kind == DIRECTORY else size_of(node)

    def read(self, cid: Cid) -> Iterator[bytes]:
        """The bytes of a file, piece by piece. Raises Absent, NoSuchPath, BadBlock."""
        return bytes_at(cid, self.get)

    def export(self, cid: Cid, target: Path, depth: int = 0) -> None:
        """Write a file, or a folder with everything in it, to a path where nothing is.

        Raises Absent, BadBlock, CannotStore.
        """
        entries = self.entries(cid)
        try:
            if entries is None:
                with target.open("xb") as file:
                    for piece in self.read(cid):
                        file.write(piece)
                return
            if depth > DEPTH_MAX:
                raise CannotStore(f"{target}: folders in more than {DEPTH_MAX} folders")
            target.mkdir()
            for entry in entries:
                self.export(entry.cid, target / entry.name, depth + 1)
        except FileExistsError:
            raise CannotStore(f"{target} is there already") from None
        except OSError as error:
            raise CannotStore(f"{target} cannot be written: {_why(error)}") from None


def store_of(settings: Settings) -> Store:
    """The herd's own."""
    return Store(settings.store_dir or settings.data_dir / "store", settings.store_free_bytes_min)


def segments(path: str) -> list[str]:
    """The names of a path; slashes at its ends and twice in a row count for nothing. Raises NoSuchPath."""
    names = [name for name in path.split("/") if name]
    if not all(named(name) for name in names):
        raise NoSuchPath("a path has no `.`, no `..` and no NUL in it")
    return names


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(READ_BYTES):
        yield piece


def _root(path: Path, added_ms: int) -> Root | None:
    """What a file of the list says; None for one that says nothing."""
    try:
        with path.open("rb") as file:
            told = json.loads(file.read(ENTRY_BYTES_MAX))
        return Root(parsed(told["cid"]), str(told["name"]), int(told["bytes"]), added_ms)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _why(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()
