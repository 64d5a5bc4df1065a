"""The commands when all goes well: an answer and its bill, the herd, the jobs, the accounts; and Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest

from herder.protocol import Outcome
from tests.integration.client_herd import FUNDS, Herd, Terminal
from tests.integration.ring import CARD, STATS

TEMPLATE = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
RUN = ["run", "What is a chatbot?", "--tokens", "40"]


@pytest.fixture
def herder(herd: Herd, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(herd, monkeypatch, capsys)


@pytest.fixture
def full() -> Iterator[BinaryIO]:
    """A file on a disk without space."""
    with Path("/dev/full").open("wb") as file:
        yield file


async def test_an_answer_and_its_bill(herd: Herd, herder: Terminal) -> None:
    shown, _ = await asyncio.gather(herder(*RUN), herd.work(3))
    assert shown.code == 0
    assert shown.out == "xxx\n"
    assert shown.err == "fee 50 · captured 13 · refunded 37 · balance 4 987\n"
    assert await herd.balance() == (FUNDS - 13, 0)


async def test_a_bill_says_at_what_price(herd: Herd, herder: Terminal) -> None:
    bid, _ = await asyncio.gather(herder(*RUN, "--multiplier", "1.5"), herd.work(3))
    assert bid.err == "fee 75 (×1.5) · captured 20 · refunded 55 · balance 4 980\n"
    herd.server.config.app.state.herd.market.forget()  # type: ignore[union-attr]
    quoted = await herder("quote", "hi", "--tokens", "40")
    assert "automatic price: --max-fee bounds it" in quoted.out
    followed, _ = await asyncio.gather(herder(*RUN), herd.work(3))
    assert ", automatic price: --max-fee bounds it) · captured" in followed.err
    assert "automatic" not in (await herder("quote", "hi", "--multiplier", "1.5")).out


async def test_the_job_as_json(herd: Herd, herder: Terminal) -> None:
    shown, _ = await asyncio.gather(herder(*RUN, "--json", "--multiplier", "2", "--seed", "7"), herd.work(3))
    assert (shown.code, shown.err) == (0, "")
    job = json.loads(shown.out)
    assert (job["status"], job["fee"], job["captured"], job["refunded"]) == ("succeeded", 100, 26, 74)
    assert (job["result"]["text"], job["balance"]) == ("xxx", FUNDS - 26)


async def test_a_chat_and_a_system_message(herd: Herd, herder: Terminal) -> None:
    await herd.ring.broker.register_worker("w1", replace(CARD, template=TEMPLATE), STATS, None)
    chat = json.dumps({"messages": [{"role": "user", "content": "hello"}]}).encode()
    shown, _ = await asyncio.gather(
        herder("run", "--messages", "-", "--tokens", "4", stdin=chat), herd.work()
    )
    assert shown.code == 0
    piped = herder("run", "--system", "be brief", "--tokens", "4", stdin="hällo".encode())
    shown, lease = await asyncio.gather(piped, herd.lease_and_end())
    assert shown.code == 0
    assert "be brief" in lease.brief.prompt
    assert "hällo" in lease.brief.prompt


@pytest.mark.parametrize("as_json", [[], ["--json"]])
async def test_a_job_that_fails(herd: Herd, herder: Terminal, as_json: list[str]) -> None:
    shown, _ = await asyncio.gather(herder(*RUN, *as_json), herd.work(0, Outcome.FAILED))
    assert shown.code == 1
    assert shown.err.splitlines()[-1].startswith("error: job_")
    assert "it broke; 50 credits were refunded" in shown.err
    if as_json:
        assert json.loads(shown.out)["error"]["code"] == "engine_error"
    assert await herd.balance() == (FUNDS, 0)


async def test_a_wait_that_is_too_short_leaves_the_job_alive(herd: Herd, herder: Terminal) -> None:
    shown = await herder(*RUN, "--timeout", "0", "--json")
    assert shown.code == 6
    error = json.loads(shown.out)["error"]
    assert error["code"] == "wait_timeout"
    assert f"`herder jobs {error['job_id']}` fetches it" in shown.err
    await herd.work()
    later = await herder("jobs", error["job_id"])
    assert (later.code, later.out.splitlines()[-1]) == (0, "xxx")


async def test_more_answers_than_there_are_slots_are_warned_of_until_the_end(
    herd: Herd, herder: Terminal
) -> None:
    """Before anything is paid, when it is, and when the wait is over: why, and what can be done."""
    await herd.ring.broker.register_worker("w1", CARD, replace(STATS, slots=2), None)
    quote = await herder("quote", "hi", "--tokens", "5", "--n", "4")
    assert "makes 4 answers at once" in " ".join(quote.out.split())
    ended = await herder(*RUN, "--n", "4", "--timeout", "0", "--json")
    told = json.loads(ended.out)["error"]
    assert "makes 4 answers at once" in told["detail"]
    assert f"`herder cancel {told['job_id']}` ends it" in ended.err


async def test_looking_at_the_herd(herd: Herd, herder: Terminal) -> None:
    info = await herder("info")
    assert info.code == 0
    assert "fee per token" in info.out
    assert "toy" in (await herder("models")).out
    assert "w1" in (await herder("workers")).out
    for command in ("info", "models", "workers", "jobs", "account"):
        shown = await herder(command, "--json")
        assert (shown.code, shown.err) == (0, "")
        assert isinstance(json.loads(shown.out), dict)
    assert json.loads((await herder("info", "--json")).out)["set_prompt_fee"] == 10


async def test_a_quote_charges_nothing(herd: Herd, herder: Terminal) -> None:
    shown = await herder("quote", "hi", "--tokens", "40", "--multiplier", "1.5")
    assert shown.code == 0
    assert "75" in shown.out
    quote = json.loads((await herder("quote", "hi", "--tokens", "1000", "--multiplier", "50", "--json")).out)
    assert (quote["feasible"], quote["reason"]["code"]) == (False, "insufficient_funds")
    assert await herd.balance() == (FUNDS, 0)


async def test_jobs_and_cancel(herd: Herd, herder: Terminal) -> None:
    for _ in range(3):
        await herder(*RUN, "--timeout", "0")
    first = await herder("jobs", "--limit", "2")
    assert len(first.out.splitlines()) == 3
    assert "queued, 0 ahead" in first.out + (await herder("jobs")).out
    *hint, cursor = first.err.split()
    assert hint == ["more:", "herder", "jobs", "--limit", "2", "--cursor"]
    assert len((await herder("jobs", "--limit", "2", "--cursor", cursor)).out.splitlines()) == 2
    ids = [job["id"] for job in json.loads((await herder("jobs", "--json")).out)["jobs"]]
    assert "cancelled" in (await herder("cancel", ids[0])).out
    assert json.loads((await herder("cancel", ids[1], "--json")).out)["refunded"] == 50
    assert await herd.balance() == (FUNDS - 50, 50)


async def test_accounts_with_an_admin_key(herd: Herd, herder: Terminal) -> None:
    herder.monkeypatch.setenv("HERDER_ADMIN_KEY", herd.admin_key)
    made = await herder("account", "create", "bob", "--credits", "100", "--json")
    assert made.code == 0
    key = json.loads(made.out)["key"]
    assert (await herder("account", "create", "bob")).code == 2
    own = json.loads((await herder("account", "--key", key["key"], "--json")).out)
    assert (own["id"], own["available"]) == ("bob", 100)
    assert "available  600" in (await herder("account", "deposit", "bob", "500")).out
    assert "available  590" in (await herder("account", "adjust", "bob", "-10", "--memo", "typo")).out
    assert "suspended  yes" in (await herder("account", "suspend", "bob")).out
    assert "suspended" not in (await herder("account", "resume", "bob")).out
    assert "590" in (await herder("account", "show", "bob")).out
    assert "ann" in (await herder("account", "list")).out
    ledger = json.loads((await herder("account", "ledger", "bob", "--json")).out)["entries"]
    assert sorted(entry["amount"] for entry in ledger) == [10, 100, 500]
    assert "deposit" in (await herder("account", "ledger")).out
    assert (await herder("account", "show", "nobody")).code == 5


async def test_keys(herd: Herd, herder: Terminal) -> None:
    herder.monkeypatch.setenv("HERDER_ADMIN_KEY", herd.admin_key)
    new = await herder("account", "keys", "ann", "--new", "--label", "laptop")
    assert new.code == 0
    secret = new.out.split()[-1]
    assert secret.startswith("hk_")
    listed = json.loads((await herder("account", "keys", "ann", "--json")).out)["keys"]
    assert secret not in json.dumps(listed)
    (key_id,) = [key["id"] for key in listed if key["label"] == "laptop"]
    assert (await herder("account", "--key", secret)).code == 0
    assert "yes" in (await herder("account", "keys", "ann", "--revoke", key_id)).out
    assert (await herder("account", "--key", secret)).code == 3
    assert (await herder("account", "keys", "ann", "--role", "admin")).code == 2


async def test_ctrl_c_cancels_and_refunds(herd: Herd, herder: Terminal) -> None:
    command = [sys.executable, "-m", "llama_herder.cli.main", *RUN]
    child = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=PIPE)
    async with asyncio.timeout(30):
        metrics = herd.server.config.app.state.metrics  # type: ignore[union-attr]
        while not metrics.registry.get_sample_value("herder_long_polls"):  # the submission is answered
            await herd.ring.broker.ping()
        child.send_signal(signal.SIGINT)
        out, err = await child.communicate()
    assert out == b""
    assert child.returncode == 130
    last = err.decode().splitlines()[-1]
    assert last.startswith("cancelled job_")
    assert last.endswith("fee 50 · captured 0 · refunded 50 · balance 5 000")
    assert await herd.balance() == (FUNDS, 0)


async def test_a_prompt_of_1_mb_through_a_real_pipe(herd: Herd, herder: Terminal) -> None:
    command = [sys.executable, "-m", "llama_herder.cli.main", "run", "--tokens", "4"]
    child = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=PIPE)
    out, err = await child.communicate(b"x" * 1_000_000)
    assert (child.returncode, out) == (2, b"")
    assert err.startswith(b"error: the prompt has 1 000 000 bytes")
    assert err.count(b"\n") == 1
    assert await herd.balance() == (FUNDS, 0)


@pytest.mark.parametrize("more", [[], ["--json"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
async def test_an_answer_that_cannot_be_written_is_named(
    herd: Herd, herder: Terminal, full: BinaryIO, more: list[str], unbuffered: str
) -> None:
    command = [sys.executable, "-m", "llama_herder.cli.main", *RUN, *more]
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    child = await asyncio.create_subprocess_exec(*command, stdout=full, stderr=PIPE, env=environment)
    (_, err), _ = await asyncio.gather(child.communicate(), herd.work(3))
    job_id = json.loads((await herder("jobs", "--json")).out)["jobs"][0]["id"]
    assert err.decode() == (
        "error: the answer could not be written (no space left on device); it is paid for, and "
        f"`herder jobs {job_id}` reads it again\n"
    )
    assert child.returncode == 1
    assert (await herder("jobs", job_id)).out.endswith("xxx\n")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", [["info"], ["jobs", "--json"], ["--help"]])
async def test_output_that_cannot_be_written_is_one_line(
    herder: Terminal, full: BinaryIO, command: list[str], unbuffered: str
) -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    command = [sys.executable, "-m", "llama_herder.cli.main", *command]
    child = await asyncio.create_subprocess_exec(*command, stdout=full, stderr=PIPE, env=environment)
    _, err = await child.communicate()
    assert err == b"error: cannot write to standard output: no space left on device\n"
    assert child.returncode == 1


async def test_a_bill_that_cannot_be_written_spoils_no_answer(
    herd: Herd, herder: Terminal, full: BinaryIO
) -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "llama_herder.cli.main", *RUN, stdout=PIPE, stderr=full
    )
    (out, _), _ = await asyncio.gather(child.communicate(), herd.work(3))
    assert (child.returncode, out) == (0, b"xxx\n")


async def test_a_reader_that_stops_reading_is_no_traceback(herd: Herd, herder: Terminal) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "llama_herder.cli.main", "info"]
    child = await asyncio.create_subprocess_exec(*command, stdout=writing, stderr=PIPE)
    os.close(writing)
    _, err = await child.communicate()
    assert b"Traceback" not in err
    assert child.returncode == 1
