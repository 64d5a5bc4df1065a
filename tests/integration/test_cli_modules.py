"""`herder module` against a herd, and `herder store` on a folder: one line for every mistake, and nothing charged."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from herder.protocol import Outcome
from herder.store import store_of
from tests.integration.client_herd import FUNDS, Herd, Shown, Terminal
from tests.unit.test_cids import QUESTION

CID = "QmcPjQwVcJiFge3yNjVL2NoZsTQ3GBpXAZe21S2Ncg16Gt"
RUN = ["module", "run", "fastchat:v0.0.1"]
ASKED = '{"parameters": {"question": "What is a chatbot?"}}'


@pytest.fixture
def herder(
    herd: Herd, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Terminal:
    (tmp_path / "list.json").write_text("[]", "utf-8")
    return Terminal(herd, monkeypatch, capsys)


@pytest.fixture
def question(tmp_path: Path) -> Path:
    """The input of the page, in a file; the store's folder is `herd-data`, below the working directory."""
    (tmp_path / "herd-data").mkdir(exist_ok=True)
    (tmp_path / "question.json").write_text(QUESTION, "utf-8")
    return tmp_path / "question.json"


async def asked(herd: Herd, herder: Terminal, given: str, *options: str, stdin: bytes = b"") -> Shown:
    shown, _ = await asyncio.gather(herder(*RUN, given, *options, stdin=stdin), herd.work(3))
    return shown


async def test_a_run_prints_a_cid_and_the_result_is_behind_it(herd: Herd, herder: Terminal) -> None:
    shown = await asked(herd, herder, ASKED)
    assert shown.code == 0, shown.err
    cid = shown.out.strip()
    assert shown.err.splitlines() == [
        "fee 266 · captured 13 · refunded 253 · balance 4 987",
        f"output/result.json: herder module result {cid}",
    ]
    result = await herder("module", "result", cid)
    assert result.out == '{"question": "What is a chatbot?", "text": "xxx"}\n'
    assert await herd.balance() == (FUNDS - 13, 0)


async def test_json_a_file_a_pipe_and_a_cid_are_the_same_input(
    herd: Herd, herder: Terminal, question: Path
) -> None:
    added = await herder("store", "add", question.name)
    assert (added.code, added.out) == (0, f"{CID}\n")
    found = {
        (await asked(herd, herder, QUESTION)).out,
        (await asked(herd, herder, f"@{question.name}")).out,
        (await asked(herd, herder, "-", stdin=QUESTION.encode())).out,
        (await asked(herd, herder, CID)).out,
    }
    assert len(found) == 1
    cid = found.pop().strip()
    got = await herder("store", "get", f"{cid}/output/result.json")
    assert got.out == '{"question": "What is a chatbot?", "text": "xxx"}'
    listed = await herder("store", "ls", f"/ipfs/{cid}")
    assert listed.out.split()[-1] == "output/"


async def test_options_go_along_and_json_has_it_all(herd: Herd, herder: Terminal) -> None:
    shown = await asked(
        herd, herder, ASKED, "--tokens", "40", "--multiplier", "1.5", "--max-fee", "99", "--json"
    )
    told = json.loads(shown.out)
    assert (shown.code, shown.err) == (0, "")
    assert told["module"] == "fastchat:v0.0.1"
    assert told["cid"].startswith("Qm")
    assert (told["job"]["fee"], told["job"]["status"], told["balance"]) == (75, "succeeded", FUNDS - 20)


async def test_a_run_that_fails_has_no_cid(herd: Herd, herder: Terminal) -> None:
    shown, _ = await asyncio.gather(herder(*RUN, ASKED), herd.work(0, Outcome.FAILED))
    assert (shown.code, shown.out) == (1, "")
    assert "fee 266 · captured 0 · refunded 266" in shown.err
    assert "failed" in shown.err
    assert await herd.balance() == (FUNDS, 0)


async def test_the_modules_there_are(herder: Terminal) -> None:
    shown = await herder("module", "list")
    assert "fastchat:v0.0.1" in shown.out
    assert "question" in shown.out
    assert json.loads((await herder("module", "list", "--json")).out)["modules"][0]["id"] == "fastchat:v0.0.1"


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("fastchat", ASKED), 2, "a module is a name and a version"),
        (("fastchat:v9", ASKED), 5, "no module fastchat:v9 here; there are: fastchat:v0.0.1"),
        (("fastchat:v0.0.1", "What is a chatbot?"), 2, "is no input: give JSON"),
        (("fastchat:v0.0.1", "{"), 2, "the input is not JSON"),
        (("fastchat:v0.0.1", "@none.json"), 2, "cannot read 'none.json'"),
        (("fastchat:v0.0.1", "@list.json"), 2, "list.json must be a JSON object"),
        (("fastchat:v0.0.1", CID), 5, "is not in this store; nothing is fetched from elsewhere"),
        (("fastchat:v0.0.1", "Qmm"), 2, "cid: no CID"),
        (("fastchat:v0.0.1", '{"parameters": {}}'), 2, "parameters.question: is missing"),
        (
            ("fastchat:v0.0.1", '{"parameters": {"question": "a", "b": "c"}}'),
            2,
            "parameters.b: is no variable",
        ),
        (("fastchat:v0.0.1", ASKED, "--max-fee", "5"), 4, "max_fee"),
    ],
)
async def test_a_mistake_is_one_line_and_costs_nothing(
    herd: Herd, herder: Terminal, arguments: tuple[str, ...], code: int, told: str
) -> None:
    shown = await herder("module", "run", *arguments)
    assert (shown.code, shown.out) == (code, ""), shown.err
    assert told in shown.err
    assert shown.err.count("\n") == 1
    assert await herd.balance() == (FUNDS, 0)


async def test_a_folder_goes_in_and_comes_out(herder: Terminal, question: Path) -> None:
    (question.parent / "tree" / "deep").mkdir(parents=True)
    (question.parent / "tree" / "deep" / "a").write_bytes(b"\xff\x00")
    cids = [
        (await herder("store", "add", "tree", "--profile", profile)).out.strip()
        for profile in ("unixfs-v0-2015", "unixfs-v1-2025")
    ]
    assert [cid[:4] for cid in cids] == ["Qm" + cids[0][2:4], "bafy"]
    for i, cid in enumerate(cids):
        assert (await herder("store", "get", cid, "--output", f"out{i}")).code == 0
        assert (question.parent / f"out{i}" / "deep" / "a").read_bytes() == b"\xff\x00"
        entries = json.loads((await herder("store", "ls", f"{cid}/deep", "--json")).out)["entries"]
        assert [(entry["name"], entry["bytes"]) for entry in entries] == [("a", 2)]
    added = json.loads((await herder("store", "ls", "--json")).out)["added"]
    assert sorted(root["cid"] for root in added) == sorted(cids)
    assert {root["name"] for root in added} == {"tree"}


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("add", "none"), 1, "no none"),
        (("add", "question.json", "--profile", "x"), 2, "there are: unixfs-v0-2015, unixfs-v1-2025"),
        (("add", "question.json", "--data-dir", "elsewhere/d"), 2, "no herd has been in elsewhere/d"),
        (
            ("get", "question.json"),
            2,
            "'question.json' is no CID: one begins with Qm or with baf; `herder store ls`",
        ),
        (("get", "Qmzz/x"), 2, "'Qmzz' is no CID: one that begins with Qm has 46 characters, and this has 4"),
        (("ls", "Qmzz"), 2, "'Qmzz' is no CID"),
        (("get", CID), 5, "is not in this store"),
        (("get", CID + "/../x"), 5, "a path has no"),
        (("ls", "{folder}/none"), 5, "there is no 'none'"),
        (("ls", "{folder}/question.json"), 2, "is a file"),
        (("get", "{folder}"), 2, "is a folder: --output FOLDER"),
        (("get", "{folder}", "--output", "question.json"), 1, "is there already"),
    ],
)
async def test_a_mistake_with_the_store_is_one_line(
    herder: Terminal, question: Path, arguments: tuple[str, ...], code: int, told: str
) -> None:
    (question.parent / "folder").mkdir()
    (question.parent / "folder" / "question.json").write_text("{}", "utf-8")
    folder = (await herder("store", "add", "folder")).out.strip()
    shown = await herder("store", *(argument.replace("{folder}", folder) for argument in arguments))
    assert (shown.code, shown.out) == (code, ""), shown.err
    assert told in shown.err
    assert shown.err.count("\n") == 1


async def test_a_damaged_block_is_said(herder: Terminal, question: Path) -> None:
    assert (await herder("store", "add", question.name)).code == 0
    for folder, _, names in os.walk(question.parent / "herd-data" / "store" / "blocks"):
        for name in names:
            (Path(folder) / name).write_bytes(b"{}")
    shown = await herder("store", "get", CID)
    assert (shown.code, shown.out) == (1, "")
    assert "is damaged" in shown.err
    assert (await herder("store", "add", question.name)).code == 0
    assert (await herder("store", "get", CID)).out == QUESTION


def test_the_commands_and_the_herder_mean_the_same_folder(herd: Herd, tmp_path: Path) -> None:
    assert store_of(herd.ring.broker.settings).folder == tmp_path / "herd-data" / "store"
