"""Content identifiers: the same as the npm package's, block for block; and nothing is read that is not what it says.

`unixfs_cids.json` was made by `tools/unixfs_cids/make.mjs` with `ipfs-unixfs-importer` 17.1.1; a file of n bytes there
is the bytes 0 to 250, again and again, and a file in a folder says its own path.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herder.cids import (
    DAG_PB,
    PROFILES,
    RAW,
    V0,
    V1,
    BadCid,
    Cid,
    Link,
    NoSuchPath,
    Profile,
    bytes_at,
    directory_of,
    file_of,
    parsed,
    resolved,
)
from herder.dagpb import DIRECTORY, FILE, BadBlock, Node, Pointer, decoded, encoded

TABLE: dict[str, dict[str, str]] = json.loads((Path(__file__).parent / "unixfs_cids.json").read_text("utf-8"))
PIECE = bytes(range(251)) * 4096
TINY = {name: replace(PROFILES[name], chunk_bytes=4, links_max=3) for name in PROFILES}
PROFILE_OF = {**PROFILES, "tiny-v0": TINY[V0.name], "tiny-v1": TINY[V1.name]}

# The input of the page that shows how a module is run: 297 bytes, without a newline at the end.
QUESTION = r"""{
    "template": "You are a friendly chatbot assistant that responds conversationally to users' questions. \n Keep the answers short, unless specifically asked by the user to elaborate on something. \n \n Question: {question} \n \n Answer:",
    "parameters": {"question": "What is a chatbot?"}
}"""  # noqa: E501


class Blocks(dict[Cid, bytes]):
    """Blocks in memory."""

    def put(self, cid: Cid, block: bytes) -> None:
        self[cid] = block

    def get_block(self, cid: Cid) -> bytes:
        return self[cid]

    def file(self, content: bytes, profile: Profile = V0) -> Cid:
        return file_of([content], self.put, profile).cid

    def whole(self, cid: Cid) -> bytes:
        return b"".join(bytes_at(cid, self.get_block))


def pieces(size: int) -> Iterator[bytes]:
    while size > 0:
        yield PIECE[:size]
        size -= len(PIECE)


def forget(cid: Cid, block: bytes) -> None:
    """A place for blocks that nobody wants."""


@pytest.mark.parametrize("name", ["unixfs-v0-2015", "unixfs-v1-2025", "tiny-v0", "tiny-v1"])
def test_files_are_called_what_the_npm_package_calls_them(name: str) -> None:
    ours = {size: str(file_of(pieces(int(size)), forget, PROFILE_OF[name]).cid) for size in TABLE[name]}
    assert ours == TABLE[name]
    assert len(ours) >= 12


@pytest.mark.parametrize(("name", "profile"), [("folders-v0", V0), ("folders-v1", V1)])
def test_folders_are_called_what_the_npm_package_calls_them(name: str, profile: Profile) -> None:
    def tree(paths: list[str], above: str = "") -> Link:
        entries: dict[str, Link] = {}
        for first in {path.partition("/")[0] for path in paths}:
            below = [path.partition("/")[2] for path in paths if path.startswith(f"{first}/")]
            said = f"this is {above}{first}\n".encode()
            entries[first] = tree(below, f"{above}{first}/") if below else file_of([said], forget, profile)
        return directory_of(entries, forget, profile)

    assert {paths: str(tree(paths.split("|")).cid) for paths in TABLE[name]} == TABLE[name]


def test_the_question_of_the_page_has_its_cid() -> None:
    assert len(QUESTION) == 297
    assert str(Blocks().file(QUESTION.encode())) == "QmcPjQwVcJiFge3yNjVL2NoZsTQ3GBpXAZe21S2Ncg16Gt"


@given(st.binary(max_size=300), st.sampled_from([*TINY.values()]), st.integers(1, 17))
def test_what_was_put_is_read_again_however_it_was_cut(content: bytes, profile: Profile, step: int) -> None:
    blocks = Blocks()
    cut = [content[i : i + step] for i in range(0, len(content), step)]
    link = file_of(cut, blocks.put, profile)
    assert blocks.whole(link.cid) == content
    assert link.size == len(content)
    assert link.cid == blocks.file(content, profile)
    # Of equal leaves there is one block, and each link counts it.
    assert link.stored >= sum(len(block) for block in blocks.values())


@given(st.binary(max_size=100), st.sampled_from([*TINY.values()]))
def test_a_block_with_any_other_bytes_is_refused(content: bytes, profile: Profile) -> None:
    blocks = Blocks()
    cid = blocks.file(content, profile)
    for at, block in list(blocks.items()):
        blocks[at] = block[:-1] + bytes([block[-1] ^ 1]) if block else b"x"
        with pytest.raises(BadBlock, match="is damaged"):
            blocks.whole(cid)
        blocks[at] = block
    assert blocks.whole(cid) == content


@given(st.binary(min_size=32, max_size=32), st.sampled_from([(0, DAG_PB), (1, DAG_PB), (1, RAW)]))
def test_the_text_of_a_cid_is_read_again(digest: bytes, kind: tuple[int, int]) -> None:
    cid = Cid(*kind, digest)
    assert parsed(str(cid)) == cid


def test_the_base58_text_of_a_v1_is_read_too() -> None:
    text = "zdj7WhuEjrB52m1BisYCtmjH1hSKa7yZ3jEZ9JcXaFRD51wVz"
    assert str(parsed(text)) == "bafybeifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "question.json",
        "Qm",
        "QmcPjQwVcJiFge3yNjVL2NoZsTQ3GBpXAZe21S2Ncg16G",
        "QmcPjQwVcJiFge3yNjVL2NoZsTQ3GBpXAZe21S2Ncg16G0",
        "Qmzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz",
        "qmcPjQwVcJiFge3yNjVL2NoZsTQ3GBpXAZe21S2Ncg16Gt",
        "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvykv",  # bits that stand for nothing
        "BAFKREIHDWDCEFGH4DQKJV67UZCMW7OJEE6XEDZDETOJUZJEVTENXQUVYKU",
        "bafkqaaa",  # the identity hash
        "b" + "a" * 200,
        "bé",
    ],
)
def test_what_is_no_cid_is_said_to_be_none(text: str) -> None:
    with pytest.raises(BadCid, match=r"^no CID"):
        parsed(text)


def test_a_path_leads_through_folders() -> None:
    blocks = Blocks()
    file = file_of([b"{}"], blocks.put)
    output = directory_of({"result.json": file}, blocks.put)
    root = directory_of({"output": output, "empty": directory_of({}, blocks.put)}, blocks.put)
    assert resolved(root.cid, ["output", "result.json"], blocks.get_block) == file.cid
    assert resolved(root.cid, [], blocks.get_block) == root.cid
    with pytest.raises(NoSuchPath, match="there is no 'input'"):
        resolved(root.cid, ["input"], blocks.get_block)
    with pytest.raises(NoSuchPath, match="is a file"):
        resolved(root.cid, ["output", "result.json", "more"], blocks.get_block)
    with pytest.raises(NoSuchPath, match="is a folder"):
        blocks.whole(root.cid)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0b", "é" * 128, "\udcff"])
def test_a_name_that_no_disk_would_have_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be a name"):
        directory_of({name: file_of([b""], forget)}, forget)


def test_a_folder_that_would_have_to_be_sharded_is_refused() -> None:
    link = file_of([b""], forget)
    assert directory_of({f"{i:04}": link for i in range(5_000)}, forget).stored > 200_000
    with pytest.raises(ValueError, match="too many for one folder"):
        directory_of({f"{i:04}": link for i in range(6_000)}, forget)


def node_cid(blocks: Blocks, node: Node) -> Cid:
    block = encoded(node)
    cid = Cid(0, DAG_PB, hashlib.sha256(block).digest())
    blocks.put(cid, block)
    return cid


def test_a_small_tree_is_never_a_file_without_end() -> None:
    blocks = Blocks()
    leaf = blocks.file(b"four")
    ten = Node(FILE, None, 40, (4,) * 10, (Pointer(bytes(leaf), "", 12),) * 10)
    assert blocks.whole(node_cid(blocks, ten)) == b"four" * 10
    for wrong in (
        replace(ten, size=41),
        replace(ten, parts=(4,) * 9),
        replace(ten, parts=(4,) * 9 + (5,), size=41),
        replace(ten, parts=(0,) * 10, size=0, pointers=(Pointer(bytes(blocks.file(b"")), "", 8),) * 10),
        replace(ten, pointers=()),
    ):
        with pytest.raises(BadBlock, match="not put together"):
            blocks.whole(node_cid(blocks, wrong))
    deep = leaf
    for _ in range(40):
        deep = node_cid(blocks, Node(FILE, None, 4, (4,), (Pointer(bytes(deep), "", 12),)))
    with pytest.raises(BadBlock, match="not put together"):
        blocks.whole(deep)


def test_a_link_to_what_is_not_read_here_is_said() -> None:
    blocks = Blocks()
    odd = Node(DIRECTORY, None, None, (), (Pointer(b"\x01\x70\x00\x00", "a", 0),))
    with pytest.raises(BadBlock, match="a link leads to no CID"):
        resolved(node_cid(blocks, odd), ["a"], blocks.get_block)


@given(st.binary(max_size=60))
def test_no_block_is_worse_than_bad(block: bytes) -> None:
    with contextlib.suppress(BadBlock):
        assert decoded(block).kind in {FILE, DIRECTORY}


def test_the_parts_of_a_file_may_be_packed_as_other_writers_do() -> None:
    block = encoded(Node(FILE, None, 300, (), ()))
    packed = block[:1] + bytes([len(block) - 2 + 5]) + block[2:] + b"\x22\x03\x96\x01\x05"
    assert decoded(packed).parts == (150, 5)
