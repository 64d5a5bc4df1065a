"""The store on a real disk: what is added is read again, damage is found and healed, and nothing leaves its folder."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import pytest

from herder.cids import DAG_PB, V1, BadCid, Cid, NoSuchPath
from herder.dagpb import BadBlock
from herder.store import Absent, CannotStore, Store, segments

LARGE = bytes(range(251)) * 3_000  # three chunks


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder to add."""
    found = tmp_path / "tree"
    (found / "a" / "b").mkdir(parents=True)
    (found / "a" / "b" / "large").write_bytes(LARGE)
    (found / "a" / "é.txt").write_text("hällo\n", "utf-8")
    (found / "empty").mkdir()
    (found / "nothing").write_bytes(b"")
    return found


def files_of(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def block_files(store: Store) -> list[Path]:
    return sorted(path for path in (store.folder / "blocks").rglob("*") if path.is_file())


@pytest.mark.parametrize("profile", ["v0", "v1"])
def test_a_folder_is_written_out_as_it_was_added(
    store: Store, folder: Path, tmp_path: Path, profile: str
) -> None:
    link = store.add(folder, V1) if profile == "v1" else store.add(folder)
    store.export(link.cid, tmp_path / "again")
    assert files_of(tmp_path / "again") == files_of(folder)
    found = store.entries(link.cid)
    assert found is not None
    assert [(entry.name, entry.size) for entry in found] == [("a", None), ("empty", None), ("nothing", 0)]
    large = store.find(str(link.cid), ["a", "b", "large"])
    assert (store.size(large), b"".join(store.read(large))) == (len(LARGE), LARGE)
    assert store.entries(large) is None
    assert store.size(link.cid) is None


def test_what_was_added_is_listed_newest_first(store: Store, folder: Path) -> None:
    assert store.roots(10) == []
    first = store.add(folder / "nothing")
    second = store.add_tree({"output/result.json": b"{}"}, "fastchat:v0.0.1")
    os.utime(store.folder / "roots" / f"{bytes(first.cid).hex()}.json", (1, 1))
    (store.folder / "roots" / "odd.json").write_text("[]", "utf-8")
    told = [(root.cid, root.name, root.size) for root in store.roots(10)]
    assert told == [
        (second.cid, "fastchat:v0.0.1", second.stored),
        (first.cid, "nothing", first.stored),
    ]
    assert store.roots(10)[1].added_ms == 1_000
    assert store.folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in block_files(store)} == {0o600}
    assert b"".join(store.read(store.find(str(second.cid), ["output", "result.json"]))) == b"{}"


def test_every_block_is_compared_with_its_cid_and_adding_again_heals(store: Store, folder: Path) -> None:
    cid = store.add(folder).cid
    paths = block_files(store)
    assert len(paths) == 10
    for path in paths:
        whole, block = path.read_bytes(), Cid(0, DAG_PB, bytes.fromhex(path.name))
        for damaged in (whole[:-1] + bytes([whole[-1] ^ 1]), whole[:-1], whole + bytes(3_000_000)):
            path.write_bytes(damaged)
            with pytest.raises(BadBlock, match="is damaged"):
                store.get(block)
            with pytest.raises(BadBlock, match="is damaged"):
                store.export(cid, folder.parent / f"out-{path.name}-{len(damaged)}")
            store.add(folder)
            assert path.read_bytes() == whole
        path.unlink()
        with pytest.raises(Absent, match="not in this store"):
            store.get(block)
        store.add(folder)


def test_what_is_not_there_is_said(store: Store, folder: Path) -> None:
    with pytest.raises(Absent, match="nothing is fetched"):
        store.find("QmcPjQwVcJiFge3yNjVL2NoZsTQ3GBpXAZe21S2Ncg16Gt", ["a"])
    with pytest.raises(BadCid):
        store.find("tree")
    with pytest.raises(CannotStore, match="no "):
        store.add(folder / "no such thing")
    with pytest.raises(NoSuchPath):
        b"".join(store.read(store.add(folder).cid))


def test_neither_links_nor_devices_are_followed(store: Store, folder: Path) -> None:
    (folder / "link").symlink_to(folder / "nothing")
    with pytest.raises(CannotStore, match="link is a symbolic link"):
        store.add(folder)
    (folder / "link").unlink()
    (folder / "loop").symlink_to(folder)
    with pytest.raises(CannotStore, match="loop is a symbolic link"):
        store.add(folder)
    (folder / "loop").unlink()
    os.mkfifo(folder / "pipe")
    with pytest.raises(CannotStore, match="pipe is neither a file nor a folder"):
        store.add(folder)
    (folder / "pipe").unlink()
    assert store.roots(1) == []
    (folder.parent / "named").symlink_to(folder)  # whoever names one means what it leads to
    assert store.add(folder.parent / "named").cid == store.add(folder).cid


def test_nothing_is_written_over(store: Store, folder: Path, tmp_path: Path) -> None:
    cid = store.add(folder).cid
    (tmp_path / "there").write_text("mine", "utf-8")
    with pytest.raises(CannotStore, match="there is there already"):
        store.export(cid, tmp_path / "there")
    with pytest.raises(CannotStore, match="there is there already"):
        store.export(store.find(str(cid), ["nothing"]), tmp_path / "there")
    assert (tmp_path / "there").read_text("utf-8") == "mine"


def test_a_full_disk_takes_nothing_and_leaves_no_draft(tmp_path: Path, folder: Path) -> None:
    store = Store(tmp_path / "store", free_bytes_min=shutil.disk_usage(tmp_path).total)
    with pytest.raises(CannotStore, match="HERDER_STORE_FREE_BYTES_MIN"):
        store.add(folder)
    assert files_of(store.folder).keys() <= {"blocks", *(f"blocks/{i:02x}" for i in range(256))}


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CannotStore, match=r"cannot be written: (not a directory|file exists)"):
        Store(tmp_path / "file").add(folder)


def test_what_cannot_get_its_name_leaves_no_draft(store: Store, folder: Path) -> None:
    store.add(folder / "nothing")
    (path,) = block_files(store)
    path.unlink()
    path.mkdir()
    with pytest.raises(CannotStore, match="cannot be written: is a directory"):
        store.add(folder / "nothing")
    assert block_files(store) == []


def test_many_may_add_the_same_at_once(store: Store, folder: Path) -> None:
    faults: list[BaseException] = []

    def add() -> None:
        try:
            for _ in range(5):
                b"".join(store.read(store.find(str(store.add(folder).cid), ["a", "b", "large"])))
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert not [path for path in block_files(store) if path.name.startswith("draft")]


def test_a_path_is_names() -> None:
    assert segments("/output//result.json/") == ["output", "result.json"]
    assert segments("") == []
    for path in ("..", "a/../b", ".", "a\0", "a" * 256):
        with pytest.raises(NoSuchPath):
            segments(path)
