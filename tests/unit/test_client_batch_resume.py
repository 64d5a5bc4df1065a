"""`herder batch`, broken off at any point and run again: every answer once, and paid for once."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from llama_herder import BatchResult
from llama_herder.cli import batch_run
from llama_herder.cli.batch_files import Answers, State
from tests.unit.batch_desk import ITEMS, OUT, RUN, STATE, Desk, seated, whole
from tests.unit.batch_script import BATCH, Script
from tests.unit.stream_script import nothing, problem


class Killed(BaseException):
    """The process ends here."""


def begun(**more: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(STATE.read_bytes())
    return found | more


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    return seated(tmp_path, monkeypatch, capsys)


def test_a_refusal_leaves_nothing_behind(desk: Desk) -> None:
    poor = {"code": "insufficient_funds", "detail": "it costs 30", "affordable_items": 2}
    for fault, exit_code in (
        (problem(422, "invalid_request"), 2),
        (problem(401, "invalid_key"), 3),
        (lambda request: httpx.Response(402, json=poor), 4),
    ):
        desk.script.faults = [desk.script.whole, fault]
        code, _, err = desk()
        assert code == exit_code
        assert ("--as-many-as-affordable begins with those" in err) == (code == 4)
        assert (OUT.exists(), STATE.exists()) == (False, False)


def test_a_reply_that_was_lost_for_good_is_found_by_the_next_run(desk: Desk) -> None:
    desk.script.faults = [desk.script.whole, *[desk.script.lost] * 3]
    code, _, err = desk()
    assert code == 6
    assert err.endswith(
        "the batch may have been accepted: the same command finds out, and never pays twice\n"
    )
    assert "idempotency key" not in err
    assert begun()["batch_id"] is None
    desk.script.faults = [desk.script.whole, nothing(httpx.ConnectError("refused"))]
    assert desk()[0] == 0
    assert len(desk.script.paid) == 1
    assert OUT.read_bytes() == whole(desk.script)


def test_wherever_the_answers_were_cut_they_become_whole(desk: Desk) -> None:
    desk.script.faults = [desk.script.whole, desk.script.whole, nothing(KeyboardInterrupt())]  # type: ignore[arg-type]
    code, out, err = desk()
    assert (code, out) == (130, "")
    assert err.endswith(
        "batch_1 goes on: the same command goes on with it, `herder cancel batch_1` ends it\n"
    )
    left, content = STATE.read_bytes(), whole(desk.script)
    for cut in (0, 1, content.index(b"\n"), content.index(b"\n") + 1, len(content) - 1, len(content)):
        OUT.write_bytes(content[:cut])
        STATE.write_bytes(left)
        assert desk(*RUN, "--quiet") == (0, "", "")
        assert OUT.read_bytes() == content
        assert not STATE.exists()
    assert len(desk.script.paid) == 1


@pytest.mark.parametrize("rubbish", [b"", b"\0" * 9, b'{"cursor": 9}\n', b'{"index": 2}\n', b"[]\n"])
def test_only_whole_lines_are_kept(desk: Desk, rubbish: bytes) -> None:
    desk()
    content = whole(desk.script)
    for cut in range(len(content) + 1):
        OUT.write_bytes(content[:cut] + rubbish)
        answers = Answers(OUT)
        tally = answers.resume()
        kept = content[: content.rfind(b"\n", 0, cut) + 1]
        assert OUT.read_bytes() == kept
        assert tally.cursor == tally.done == kept.count(b"\n")
        assert tally.captured == 6 * tally.done
        answers.close()


@pytest.mark.parametrize("after", [True, False])
def test_wherever_the_command_is_killed_it_is_paid_once(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    """Killed before or after each thing that lasts: a request, a write."""
    left = 0

    def fatal(act: Callable[..., Any]) -> Callable[..., Any]:
        def acting(*arguments: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0 and not after:
                raise Killed
            result = act(*arguments)
            if left == 0:
                raise Killed
            return result

        return acting

    for kind, name in ((State, "save"), (State, "forget"), (Answers, "write"), (Answers, "clear")):
        monkeypatch.setattr(kind, name, fatal(getattr(kind, name)))
    monkeypatch.setattr(Script, "whole", fatal(Script.whole))
    for moment in range(1, 100):
        OUT.unlink(missing_ok=True)
        desk.script.paid.clear()
        left = moment
        try:
            assert desk()[0] == 0
        except Killed:
            left = 0
            done = OUT.exists() and OUT.read_bytes() == whole(desk.script) and not STATE.exists()
            assert done or desk()[0] == 0
        else:
            assert moment > 10
            break
        assert len(desk.script.paid) == 1
        assert OUT.read_bytes() == whole(desk.script)
        assert not STATE.exists()


def test_an_unfinished_file_is_not_mixed_with_another_batch(desk: Desk) -> None:
    desk.script.faults = [desk.script.whole, desk.script.whole, nothing(KeyboardInterrupt())]  # type: ignore[arg-type]
    desk()
    code, _, err = desk(*RUN, "--multiplier", "2")
    assert code == 2
    assert "batch_1 is with other options" in err
    Path("in.jsonl").write_bytes(ITEMS + b"\n" + b'{"prompt": "more"}')
    desk.url = "http://other.example"
    code, _, err = desk()
    assert code == 2
    assert "batch_1 is of another herd and of another input" in err
    assert "`herder cancel batch_1` ends the old one" in err
    assert len(desk.script.paid) == 1
    assert desk(*RUN, "--force")[0] == 0
    assert len(desk.script.paid) == 2
    assert len(OUT.read_bytes().splitlines()) == 4


def test_what_nobody_can_know_any_more_is_not_sent_again(desk: Desk) -> None:
    desk.script.faults = [desk.script.whole, *[desk.script.lost] * 3]
    desk()
    STATE.write_text(json.dumps(begun(account="bob")))
    assert "out.jsonl is bob's unfinished batch, and this key is ann's: use a key of bob" in desk()[2]
    STATE.write_text(
        json.dumps(begun(account="ann", begun_ms=begun()["begun_ms"] - batch_run.KEY_KNOWN_MS - 1))
    )
    code, _, err = desk()
    assert code == 2
    assert "nobody knows whether this batch was accepted" in err
    STATE.write_text("{}")
    assert "move it away" in desk()[2]
    assert len(desk.script.paid) == 1


def test_ctrl_c_while_submitting(desk: Desk) -> None:
    def stopped(request: httpx.Request) -> httpx.Response:
        desk.script.whole(request)
        raise KeyboardInterrupt

    desk.script.faults = [desk.script.whole, stopped]
    code, _, err = desk()
    assert (code, "never pays twice" in err) == (130, True)
    assert desk()[0] == 0
    assert len(desk.script.paid) == 1


def test_answers_that_are_gone_are_named(desk: Desk) -> None:
    desk.script.faults = [desk.script.whole, desk.script.whole, problem(404, "not_found")]
    code, _, err = desk()
    assert code == 5
    assert err.endswith("answers are kept for a while only. --force begins anew\n")
    assert begun()["batch_id"] == BATCH


def test_answers_that_came_before_the_others_were_gone_are_not_thrown_away_unnoticed(desk: Desk) -> None:
    desk.script.faults = [desk.script.whole, desk.script.whole, nothing(KeyboardInterrupt())]  # type: ignore[arg-type]
    desk()
    OUT.write_bytes(b"".join(whole(desk.script).splitlines(keepends=True)[:1]))
    desk.script.faults = [problem(404, "not_found"), desk.script.whole]
    code, _, err = desk()
    assert code == 5
    assert "out.jsonl has the 1 that came before, keep a copy: --force begins anew" in err


def test_a_key_that_was_revoked_is_to_be_replaced(desk: Desk) -> None:
    desk.script.faults = [desk.script.whole, desk.script.whole, problem(401, "invalid_key")]
    code, _, err = desk()
    assert code != 0
    assert err.endswith("the same command goes on with it once HERDER_API_KEY is another key of ann\n")


def test_another_accounts_batch_is_not_paid_again(desk: Desk) -> None:
    desk.script.faults = [desk.script.whole, desk.script.whole, nothing(KeyboardInterrupt())]  # type: ignore[arg-type]
    desk()
    STATE.write_text(json.dumps(begun(account="bob")))
    desk.script.faults = [problem(404, "not_found")]
    code, _, err = desk()
    assert code == 2
    assert "out.jsonl is bob's unfinished batch_1, and this key is ann's: use a key of bob" in err
    assert "--force" not in err


def test_a_herder_that_dies_while_it_is_sent_to(desk: Desk) -> None:
    gone = nothing(httpx.ConnectError("[Errno 111] Connection refused"))
    desk.script.faults = [desk.script.whole, desk.script.lost, *[gone] * 100]
    code, _, err = desk()
    assert code == 6
    assert "connection refused" in err
    assert "the batch may have been accepted: the same command finds out, and never pays twice" in err
    desk.script.faults.clear()
    assert desk()[0] == 0
    assert len(desk.script.paid) == 1


def test_answers_that_cannot_be_written_are_gone_on_with(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Answers.write

    def full(answers: Answers, result: BatchResult) -> None:
        with monkeypatch.context() as patch, Path("/dev/full").open("r+b", buffering=0) as disk:
            if result.cursor == 2:
                patch.setattr(answers, "_file", disk)
            write(answers, result)

    with monkeypatch.context() as patch:
        patch.setattr(Answers, "write", full)
        code, _, err = desk()
    assert code == 1
    assert err.endswith(
        "error: out.jsonl could not be written (no space left on device); batch_1 goes on: the same command "
        "goes on with it\n"
    )
    assert desk()[0] == 0
    assert OUT.read_bytes() == whole(desk.script)
    assert len(desk.script.paid) == 1


def test_a_batch_that_could_not_be_shown_is_shown_by_the_next_run(desk: Desk) -> None:
    desk.script.faults = [*[desk.script.whole] * 4, *[problem(503, "overloaded")] * 3]
    code, out, err = desk(*RUN, "--json")
    assert (code, json.loads(out)["error"]["code"]) == (6, "overloaded")
    assert err.endswith("; the same command goes on with it\n")
    code, out, _ = desk(*RUN, "--json")
    assert (code, json.loads(out)["id"]) == (0, BATCH)
    assert OUT.read_bytes() == whole(desk.script)
    assert not STATE.exists()


def test_a_disk_that_is_full_only_in_the_end(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(number: int) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    sync = Answers.sync

    def syncing(answers: Answers) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            sync(answers)

    with monkeypatch.context() as patch:
        patch.setattr(Answers, "sync", syncing)
        code, _, err = desk()
    assert code == 1
    assert err.endswith("(disk quota exceeded); batch_1 goes on: the same command goes on with it\n")
    assert desk()[0] == 0
    assert OUT.read_bytes() == whole(desk.script)
