"""What goes wrong at the command line: one clear line each, an exit code for scripts, nothing charged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llama_herder.cli import session
from tests.integration.client_herd import FUNDS, Herd, Terminal

PROMPT = "What is a chatbot?"
DEAR = ["run", PROMPT, "--tokens", "1000", "--multiplier", "10"]


@pytest.fixture
def herder(herd: Herd, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    monkeypatch.setattr(session, "REFUSED_S_MAX", 0.0)
    return Terminal(herd, monkeypatch, capsys)


ERRORS = [
    (
        "a wrong key",
        ["run", PROMPT, "--tokens", "4", "--key", "hk_wrong"],
        b"",
        3,
        "this API key is mistyped",
    ),
    (
        "an empty key",
        ["run", PROMPT, "--tokens", "4", "--key", " "],
        b"",
        3,
        "no API key: give one with --key",
    ),
    ("a key with a letter too many", ["info", "--key", "hk_ä"], b"", 3, "characters that no key has"),
    (
        "no credits",
        [*DEAR],
        b"",
        4,
        "with --multiplier 1 it costs 1 010, the base fee; enough for --tokens 490 at this bid",
    ),
    ("a fee too low", ["run", PROMPT, "--tokens", "4", "--fee", "3"], b"", 4, "14"),
    ("a ceiling too low", ["run", PROMPT, "--tokens", "4", "--max-fee", "3"], b"", 4, "14"),
    ("an unknown model", ["run", PROMPT, "--tokens", "4", "--model", "gpt-99"], b"", 5, "toy"),
    ("an unknown job", ["jobs", "job_nope"], b"", 5, "job_nope"),
    ("a prompt of 1 MB", ["run", "--tokens", "4"], b"x" * 1_000_000, 2, "500 000"),
    ("a prompt of 5 MB", ["run", "--tokens", "4"], b"x" * 5_000_000, 2, "4 000 000"),
    ("a prompt of 17 MB", ["run", "--tokens", "4"], b"x" * 17_000_000, 2, "more than any herd takes"),
    ("no tokens", ["run", PROMPT, "--tokens", "0"], b"", 2, "tokens"),
    (
        "tokens that are none",
        ["run", PROMPT, "--tokens", "many"],
        b"",
        2,
        "must be a whole number such as 40, not 'many'",
    ),
    ("tokens not given", ["run", PROMPT], b"", 2, "'--tokens'; see herder run --help"),
    (
        "a prompt with a dash",
        ["run", "-x hello", "--tokens", "4"],
        b"",
        2,
        "goes last, behind `--`; see herder run",
    ),
    (
        "an amount with a dash",
        ["account", "deposit", "ann", "-5"],
        b"",
        2,
        "`--`; see herder account deposit --help",
    ),
    ("no prompt", ["run", "--tokens", "4"], b"", 2, "the prompt is empty"),
    ("a prompt that is no text", ["run", "-", "--tokens", "4"], b"\xff\xfe", 2, "not UTF-8 text (byte 0)"),
    ("an answer that cannot fit", ["run", PROMPT, "--tokens", "2000"], b"", 2, "1 024"),
    (
        "a multiplier that is no number",
        ["run", PROMPT, "--tokens", "4", "--multiplier", "nan"],
        b"",
        2,
        "error: multiplier must be a finite number, not nan",
    ),
    ("a multiplier below 1", ["run", PROMPT, "--tokens", "4", "--multiplier", "0.5"], b"", 2, "multiplier"),
    ("two prices", ["run", PROMPT, "--tokens", "4", "--multiplier", "2", "--fee", "50"], b"", 2, "exclude"),
    (
        "broken JSON",
        ["run", "--messages", "-", "--tokens", "4"],
        b'[{"role": "user",\n }]',
        2,
        "line 2, column 2",
    ),
    ("JSON that is no chat", ["run", "--messages", "-", "--tokens", "4"], b"3", 2, "not a chat"),
    (
        "a chat of nobody",
        ["run", "--messages", "-", "--tokens", "4"],
        b'[{"role": "user"}]',
        2,
        "messages.0.content",
    ),
    (
        "a file that is not there",
        ["run", "@nowhere.txt", "--tokens", "4"],
        b"",
        2,
        "cannot read 'nowhere.txt'",
    ),
    (
        "a chat and a prompt",
        ["run", PROMPT, "--messages", "-", "--tokens", "4"],
        b"[]",
        2,
        "--messages is the whole",
    ),
    (
        "an unknown option",
        ["run", PROMPT, "--tokens", "4", "--wings"],
        b"",
        2,
        "no such option: --wings",
    ),
    ("an unknown command", ["fly"], b"", 2, "fly"),
    ("an unknown command of a group", ["account", "fly"], b"", 2, "see herder account --help"),
    ("a URL that is none", ["info", "--url", "herd.example"], b"", 2, "must look like http"),
    ("nobody there", ["info", "--url", "http://127.0.0.1:9"], b"", 6, "`herder up` starts one"),
    ("somebody else's business", ["account", "list"], b"", 3, "set HERDER_ADMIN_KEY to an admin's key"),
]


@pytest.mark.parametrize("row", ERRORS, ids=lambda row: row[0])
async def test_one_line_says_what_is_wrong_and_nothing_is_charged(
    herd: Herd, herder: Terminal, row: tuple[str, list[str], bytes, int, str]
) -> None:
    _, arguments, stdin, code, words = row
    patience = ["--timeout", "1"] if arguments[0] == "run" else []
    shown = await herder(*arguments, *patience, stdin=stdin)
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1
    assert len(shown.err) < 400
    assert words in shown.err
    assert shown.code == code
    assert herd.key not in shown.err
    assert await herd.balance() == (FUNDS, 0)
    assert await herd.ring.lease() == []


async def test_the_same_command_without_its_mistake_is_charged(herd: Herd, herder: Terminal) -> None:
    """The control of the test above: what it looks at does change when nothing is wrong."""
    shown = await herder("run", PROMPT, "--tokens", "4", "--timeout", "0")
    assert shown.code == 6
    assert await herd.balance() == (FUNDS - 14, 14)
    assert len(await herd.ring.lease()) == 1


@pytest.mark.parametrize("prompt", ["-", None])
async def test_an_account_without_credits(herd: Herd, herder: Terminal, prompt: str | None) -> None:
    await herd.ledger.adjust("ann", -FUNDS, "spent")
    shown = await herder("run", *([prompt] if prompt else []), "--tokens", "4", stdin=b"hi")
    assert (shown.code, shown.out) == (4, "")
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1
    assert "14" in shown.err


async def test_a_suspended_account(herd: Herd, herder: Terminal) -> None:
    await herd.ledger.suspend("ann", True)
    shown = await herder("run", PROMPT, "--tokens", "4")
    assert (shown.code, shown.err.count("\n")) == (3, 1)
    assert "suspended" in shown.err


async def test_with_json_an_error_is_json_too(herder: Terminal) -> None:
    shown = await herder(*DEAR, "--json")
    assert shown.code == 4
    assert shown.err.count("\n") == 1
    error = json.loads(shown.out)["error"]
    assert error["code"] == "insufficient_funds"
    assert error["status"] == 402
    assert error["max_affordable_tokens"] == 490
    assert error["request_id"].startswith("req_")
    usage = await herder("run", PROMPT, "--json")
    assert (usage.code, json.loads(usage.out)["error"]["code"]) == (2, "usage")


async def test_a_prompt_of_1_mb_in_a_file(herd: Herd, herder: Terminal, tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("x" * 1_000_000)
    shown = await herder("run", f"@{tmp_path / 'long.txt'}", "--tokens", "4")
    assert (shown.code, shown.err.count("\n")) == (2, 1)
    assert "500 000" in shown.err
    assert await herd.balance() == (FUNDS, 0)


async def test_a_file_in_the_folder_may_not_have_a_key_sent_to_its_url(
    herd: Herd, herder: Terminal, tmp_path: Path
) -> None:
    herder.monkeypatch.delenv("HERDER_URL")
    herder.monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(f"HERDER_URL='{herd.url}'\n# HERDER_API_KEY=no\n")
    shown = await herder("account")
    assert shown.code == 2
    assert "was not sent there" in shown.err
    (tmp_path / ".env").write_text(f"export HERDER_URL={herd.url}\nHERDER_API_KEY={herd.key} # ann\n")
    herder.monkeypatch.delenv("HERDER_API_KEY")
    assert (await herder("account")).code == 0
