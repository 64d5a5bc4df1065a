"""The store over HTTP: what is in it, whole and compared with its CID, to whoever has a key; and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from herder.api.ipfs import AT_ONCE_BYTES_MAX
from herder.cids import V1
from herder.settings import Settings
from tests.integration.api import Front, open_front, problem

LARGE = bytes(range(251)) * (AT_ONCE_BYTES_MAX // 251 + 5_000)


@pytest.fixture
async def front(settings: Settings) -> AsyncIterator[Front]:
    async with open_front(settings, worker=False) as front:
        yield front


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder to add."""
    found = tmp_path / "tree"
    (found / "a b").mkdir(parents=True)
    for name, content in {
        "page.html": b"<script>alert(1)</script>",
        "notes.TXT": "hällo".encode(),
        "result.json": b"{}",
        "none": b"",
        "a b/é": b"deep",
        "large": LARGE,
    }.items():
        (found / name).write_bytes(content)
    return found


@pytest.mark.parametrize("profile", ["v0", "v1"])
async def test_files_and_folders_by_their_paths(front: Front, tree: Path, profile: str) -> None:
    store = front.herd.store
    cid = str((store.add(tree, V1) if profile == "v1" else store.add(tree)).cid)

    async def get(path: str) -> httpx.Response:
        reply = await front.client.get(f"/ipfs/{cid}{path}")
        assert reply.status_code == 200, reply.text
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert "immutable" in reply.headers["cache-control"]
        return reply

    for path in ("", "/"):
        folder = (await get(path)).json()
        assert folder["cid"] == cid
        assert [(entry["name"], entry["bytes"]) for entry in folder["entries"]] == [
            ("a b", None), ("large", len(LARGE)), ("none", 0), ("notes.TXT", 6), ("page.html", 25), ("result.json", 2),
        ]  # fmt: skip
    for path, content, kind in (
        ("/a%20b/%C3%A9", b"deep", "application/octet-stream"),
        ("/large", LARGE, "application/octet-stream"),
        ("/none", b"", "application/octet-stream"),
        ("/notes.TXT", "hällo".encode(), "text/plain; charset=utf-8"),
        ("/page.html", b"<script>alert(1)</script>", "application/octet-stream"),
        ("/result.json", b"{}", "application/json"),
    ):
        reply = await get(path)
        assert (reply.content, reply.headers["content-type"]) == (content, kind), path
        assert reply.headers["content-length"] == str(len(content))
        # By its own CID, which says nothing of its name.
        own = reply.headers["etag"].strip('"')
        again = await front.client.get(f"/ipfs/{own}")
        assert (again.content, again.headers["content-type"]) == (content, "application/octet-stream")


async def test_what_is_not_there_or_no_cid_is_said(front: Front, tree: Path) -> None:
    cid = str(front.herd.store.add(tree).cid)
    for path, told in {
        "/ipfs/QmcPjQwVcJiFge3yNjVL2NoZsTQ3GBpXAZe21S2Ncg16Gt": "is not in this store; nothing is fetched",
        f"/ipfs/{cid}/more": "there is no 'more'",
        f"/ipfs/{cid}/none/more": "is a file",
        f"/ipfs/{cid}/%2e%2e/x": "a path has no",
        f"/ipfs/{cid}/a%20b/%2e%2e/none": "a path has no",
        f"/ipfs/{cid}/a%00": "a path has no",
        f"/ipfs/{cid[:-1]}": "no CID",
        "/ipfs/tree": "no CID",
        "/ipfs/..%2f..%2fredis.aof": "a path has no",
    }.items():
        found = problem(await front.client.get(path), 404, "not_found")
        assert told in found["detail"], path


async def test_a_damaged_file_is_an_error_and_never_half_a_file(front: Front, tree: Path) -> None:
    cid = str(front.herd.store.add(tree).cid)
    last = max((front.herd.store.folder / "blocks").rglob("*"), key=lambda path: path.stat().st_size)
    last.write_bytes(last.read_bytes()[:-1])
    found = problem(await front.client.get(f"/ipfs/{cid}/large"), 503, "store_unavailable")
    assert "is damaged" in found["detail"]
    assert (await front.client.get(f"/ipfs/{cid}/result.json")).text == "{}"
    front.herd.store.add(tree)
    assert (await front.client.get(f"/ipfs/{cid}/large")).content == LARGE


async def test_it_needs_a_key_and_says_so_before_it_looks(front: Front, tree: Path) -> None:
    cid = str(front.herd.store.add(tree).cid)
    problem(await front.anonymous.get(f"/ipfs/{cid}"), 401, "missing_key")
    problem(await front.anonymous.get("/ipfs/x/y"), 401, "missing_key")
    bob = await front.account("bob", 0)
    async with bob:
        assert (await bob.get(f"/ipfs/{cid}/result.json")).text == "{}"
    problem(await front.client.post(f"/ipfs/{cid}"), 405, "method_not_allowed")
    problem(await front.client.get(f"/ipfs/{cid}?format=car"), 422, "invalid_request")
