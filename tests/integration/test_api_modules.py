"""Modules over HTTP: a run is an ordinary job, a result is in the store, and what cannot be filled in costs nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from herder.app import create_app
from herder.cids import V1, directory_of, file_of
from herder.protocol import Outcome
from herder.settings import Settings
from herder.store import Store
from tests.integration.api import CARD, MODEL, Front, open_front, problem
from tests.integration.test_api_reasoning import THINKS
from tests.unit.test_cids import QUESTION

RUNS = "/v1/modules/fastchat:v0.0.1/runs"
ASKED = {"parameters": {"question": "What is a chatbot?"}}
PAGE_CID = "QmcPjQwVcJiFge3yNjVL2NoZsTQ3GBpXAZe21S2Ncg16Gt"
SHOUT = """
name: shout
version: v2
description: Says it loudly.
model: toy
template: "{greeting}, {who}!"
parameters: {greeting: Hello}
options: {tokens: 7, stop: ["."], temperature: 0.5, raw: true}
"""


@pytest.fixture
def with_modules(settings: Settings, tmp_path: Path) -> Settings:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "shout.yaml").write_text(SHOUT, "utf-8")
    return settings.model_copy(update={"modules_dir": tmp_path / "modules"})


@pytest.fixture
async def front(with_modules: Settings) -> AsyncIterator[Front]:
    async with open_front(with_modules) as front:
        yield front


async def started(front: Front, body: dict[str, Any], path: str = RUNS, **headers: str) -> dict[str, Any]:
    reply = await front.client.post(path, json=body, headers=headers)
    assert reply.status_code == 202, reply.text
    job: dict[str, Any] = reply.json()
    assert reply.headers["location"] == f"/v1/modules/runs/{job['id']}"
    return job


async def read(front: Front, job_id: str, wait: int = 0) -> dict[str, Any]:
    reply = await front.client.get(f"/v1/modules/runs/{job_id}", params={"wait": wait} if wait else {})
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


async def test_a_run_is_a_job_and_its_result_has_a_cid(front: Front) -> None:
    job = await started(front, ASKED | {"tokens": 20})
    assert (job["status"], job["tokens"], job["fee"]) == ("queued", 20, 30)
    assert await read(front, job["id"]) == {"module": "fastchat:v0.0.1", "cid": None, "job": read_job(job)}
    lease = await front.lease()
    template = json.loads(QUESTION)["template"]
    question = template.replace("{question}", "What is a chatbot?")
    assert lease.brief.prompt == f"<user>{question}</user><assistant>"
    await front.settle(lease, ' A "chätbot"\n', 4)
    ended = await read(front, job["id"])
    assert ended["job"]["captured"] == 14
    assert ended == await read(front, job["id"]), "the same again"
    reply = await front.client.get(f"/ipfs/{ended['cid']}/output/result.json")
    assert reply.headers["content-type"] == "application/json"
    assert reply.text == '{"question": "What is a chatbot?", "text": " A \\"chätbot\\"\\n"}'
    blocks: dict[Any, bytes] = {}
    output = directory_of({"result.json": file_of([reply.content], blocks.__setitem__)}, blocks.__setitem__)
    assert ended["cid"] == str(directory_of({"output": output}, blocks.__setitem__).cid)
    assert [root.name for root in front.herd.store.roots(9)] == [f"fastchat:v0.0.1 {job['id']}"]


def read_job(job: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in job.items() if name != "balance"}


async def test_an_input_is_named_by_its_cid(front: Front, tmp_path: Path) -> None:
    (tmp_path / "question.json").write_text(QUESTION, "utf-8")
    assert str(front.herd.store.add(tmp_path / "question.json").cid) == PAGE_CID
    by_cid, inline = await started(front, {"cid": PAGE_CID}), await started(front, json.loads(QUESTION))
    assert by_cid["tokens"] == inline["tokens"] == 256
    prompts = [(await front.lease()).brief.prompt for _ in range(2)]
    assert prompts[0] == prompts[1]
    v1 = str(front.herd.store.add(tmp_path / "question.json", V1).cid)
    await started(front, {"cid": v1})
    assert (await front.lease()).brief.prompt == prompts[0]


async def test_a_wait_ends_with_the_answer_and_its_cid(front: Front) -> None:
    job = await started(front, ASKED)
    waiting = asyncio.create_task(read(front, job["id"], wait=30))
    await front.until_waiting(1)
    await front.answer("blue")
    assert (await waiting)["cid"].startswith("Qm")


async def test_a_module_has_a_model_defaults_and_options_and_a_run_may_say_otherwise(front: Front) -> None:
    path = "/v1/modules/shout:v2/runs"
    job = await started(front, {"parameters": {"who": "world"}}, path)
    lease = await front.lease()
    assert (lease.brief.prompt, lease.brief.stop, lease.tokens) == ("Hello, world!", (".",), 7)
    assert lease.brief.sampling.temperature == 0.5
    await front.settle(lease, "hi", 1)
    cid = (await read(front, job["id"]))["cid"]
    result = (await front.client.get(f"/ipfs/{cid}/output/result.json")).json()
    assert list(result.items()) == [("who", "world"), ("greeting", "Hello"), ("text", "hi")]
    other = {
        "parameters": {"greeting": "Hey"}, "template": "{greeting}?", "tokens": 9, "stop": "x", "temperature": 0,
        "seed": 7, "multiplier": 1.5, "max_fee": 500, "model": MODEL, "metadata": {"a": "b"},
    }  # fmt: skip
    job = await started(front, other, path)
    assert (job["multiplier"], job["metadata"], job["fee"]) == (1.5, {"a": "b"}, 29)
    lease = await front.lease()
    assert (lease.brief.prompt, lease.brief.stop, lease.tokens) == ("Hey?", ("x",), 9)
    assert (lease.brief.sampling.temperature, lease.brief.sampling.seed) == (0, 7)


@pytest.mark.parametrize(
    ("body", "field", "told"),
    [
        ({}, "parameters.question", "is missing; the template's are: question"),
        ({"parameters": {}}, "parameters.question", "is missing"),
        ({"parameters": {"question": "x", "more": "y"}}, "parameters.more", "is no variable"),
        ({"parameters": {"question": 5}}, "parameters.question", "must be a string"),
        ({"parameters": {"question": "a\0"}}, "parameters.question", "must not contain NUL"),
        ({"parameters": []}, "parameters", "must be an object"),
        ({"template": "{question.x}", **ASKED}, "template", "a variable is {name}"),
        ({"template": "{text}", "parameters": {"text": "x"}}, "template", "cannot be called text"),
        (
            {"template": "{a}" * 300, "parameters": {"a": "x" * 2_000}},
            "parameters",
            "longer than 500000 bytes",
        ),
        ({**ASKED, "cid": PAGE_CID}, "cid", "leave `template` and `parameters` away"),
        ({"cid": "question.json"}, "cid", "no CID"),
        ({"cid": ""}, "cid", "must not be empty"),
        ({**ASKED, "n": 2}, "n", "must be 1"),
        ({**ASKED, "tokens": 0}, "tokens", "must be greater than or equal to 1"),
        ({**ASKED, "tokens": 9_000}, "tokens", "more than 512 (the context of toy"),
        ({**ASKED, "fee": 9, "multiplier": 2}, "multiplier", "exclude each other"),
        ({**ASKED, "multiplier": 1.0001}, "multiplier", "at most 3 decimals"),
        ({**ASKED, "prompt": "x"}, "prompt", "unknown field"),
        ({**ASKED, "run": "x"}, "run", "unknown field"),
    ],
)
async def test_what_cannot_be_run_names_its_field_and_costs_nothing(
    front: Front, body: dict[str, Any], field: str, told: str
) -> None:
    found = problem(await front.client.post(RUNS, json=body), 422, "invalid_request")
    assert [error["field"] for error in found["errors"]] == [field]
    assert told in found["errors"][0]["message"]
    assert await front.balances() == (1_000, 0)
    assert (await front.client.get("/v1/jobs")).json()["jobs"] == []


@pytest.mark.parametrize(
    ("content", "refusal"),
    [
        (b"{", (400, "bad_request", "the input {cid} is not JSON")),
        (b"[]", (400, "bad_request", "must be a JSON object")),
        (
            b'{"parameters": {"question": "a"}, "tokens": 5}',
            (422, "invalid_request", "tokens: unknown field"),
        ),
        (b'{"parameters": {}}', (422, "invalid_request", "parameters.question: is missing")),
        (b" " * 4_000_001, (413, "too_large", "larger than HERDER_BODY_BYTES_MAX")),
    ],
)
async def test_an_input_in_the_store_is_checked_like_any_other(
    front: Front, tmp_path: Path, content: bytes, refusal: tuple[int, str, str]
) -> None:
    (tmp_path / "input").write_bytes(content)
    cid = str(front.herd.store.add(tmp_path / "input").cid)
    status, code, told = refusal
    found = problem(await front.client.post(RUNS, json={"cid": cid}), status, code)
    assert told.replace("{cid}", cid) in found["detail"]
    assert await front.balances() == (1_000, 0)


async def test_an_input_that_is_not_there_is_fetched_from_nowhere(front: Front, tmp_path: Path) -> None:
    found = problem(await front.client.post(RUNS, json={"cid": PAGE_CID}), 404, "not_found")
    assert "is not in this store; nothing is fetched from elsewhere; `herder store add`" in found["detail"]
    (tmp_path / "question.json").write_text(QUESTION, "utf-8")
    folder = str(front.herd.store.add(tmp_path).cid)
    found = problem(await front.client.post(RUNS, json={"cid": folder}), 422, "invalid_request")
    assert "is a folder" in found["detail"]
    front.herd.store.add(tmp_path / "question.json")
    damage(front)
    found = problem(await front.client.post(RUNS, json={"cid": PAGE_CID}), 503, "store_unavailable")
    assert "is damaged" in found["detail"]
    assert await front.balances() == (1_000, 0)


def damage(front: Front) -> None:
    for path in (front.herd.store.folder / "blocks").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes() + b"x")


async def test_the_modules_there_are(front: Front) -> None:
    found = (await front.client.get("/v1/modules")).json()["modules"]
    assert [module["id"] for module in found] == ["fastchat:v0.0.1", "shout:v2"]
    assert found[1] == {
        "id": "shout:v2", "name": "shout", "version": "v2", "description": "Says it loudly.", "model": "toy",
        "template": "{greeting}, {who}!", "variables": ["greeting", "who"], "parameters": {"greeting": "Hello"},
        "options": {"tokens": 7, "stop": ["."], "temperature": 0.5, "raw": True},
    }  # fmt: skip
    unknown = problem(await front.client.post("/v1/modules/fastchat:v9/runs", json=ASKED), 404, "not_found")
    assert unknown["detail"] == "no module fastchat:v9 here; there are: fastchat:v0.0.1, shout:v2"
    problem(await front.client.post("/v1/modules/fastchat/runs", json=ASKED), 404, "not_found")


async def test_an_idempotency_key_is_one_run(front: Front) -> None:
    first = await started(front, ASKED, **{"Idempotency-Key": "k"})
    again = await started(front, ASKED, **{"Idempotency-Key": "k"})
    assert first["id"] == again["id"]
    assert (await front.balances())[1] == first["fee"]
    # The same prompt by other means is another run: its result has other parameters.
    other = {"template": json.loads(QUESTION)["template"].replace("{question}", "What is a chatbot?")}
    problem(
        await front.client.post(RUNS, json=other, headers={"Idempotency-Key": "k"}),
        409,
        "idempotency_conflict",
    )


async def test_a_run_without_an_answer_has_no_result(front: Front) -> None:
    failed, stopped, cancelled = [await started(front, ASKED) for _ in range(3)]
    await front.settle(await front.lease(), "", 0, Outcome.FAILED)
    lease = await front.lease()
    await front.client.delete(f"/v1/jobs/{stopped['id']}")
    await front.settle(lease, "half an ans", 3, Outcome.CANCELLED)
    await front.client.delete(f"/v1/jobs/{cancelled['id']}")
    for job, status in ((failed, "failed"), (stopped, "cancelled"), (cancelled, "cancelled")):
        found = await read(front, job["id"])
        assert (found["cid"], found["job"]["status"]) == (None, status)
    assert front.herd.store.roots(1) == []


async def test_reasoning_is_no_part_of_the_result(front: Front) -> None:
    await front.worker(replace(CARD, template=THINKS))
    job = await started(front, ASKED)
    await front.answer("<think>hm</think>42")
    cid = (await read(front, job["id"]))["cid"]
    assert (await front.client.get(f"/ipfs/{cid}/output/result.json")).json()["text"] == "42"


async def test_whose_run_it_is(front: Front) -> None:
    job, plain = await started(front, ASKED), await front.submit()
    bob = await front.account("bob", 0)
    async with bob:
        problem(await bob.get(f"/v1/modules/runs/{job['id']}"), 404, "not_found")
    found = problem(await front.client.get(f"/v1/modules/runs/{plain['id']}"), 404, "not_found")
    assert "is no run of a module" in found["detail"]
    problem(await front.client.get("/v1/modules/runs/x"), 404, "not_found")
    problem(await front.anonymous.post(RUNS, json=ASKED), 401, "missing_key")
    problem(await front.anonymous.get("/v1/modules"), 401, "missing_key")


async def test_a_result_that_cannot_be_stored_is_not_lost(front: Front) -> None:
    store, job = front.herd.store, await started(front, ASKED)
    await front.answer("blue")
    front.herd.store = Store(store.folder, free_bytes_min=2**60)
    found = problem(await front.client.get(f"/v1/modules/runs/{job['id']}"), 503, "store_unavailable")
    assert "the answer is there" in found["detail"]
    assert (await front.client.get(f"/v1/jobs/{job['id']}")).json()["result"]["text"] == "blue"
    front.herd.store = store
    assert (await read(front, job["id"]))["cid"]


async def test_another_herder_with_a_store_of_its_own_makes_the_same_result(
    front: Front, with_modules: Settings, tmp_path: Path
) -> None:
    job = await started(front, ASKED)
    await front.answer("blue")
    cid = (await read(front, job["id"]))["cid"]
    other = create_app(with_modules.model_copy(update={"store_dir": tmp_path / "other"}))
    async with other.router.lifespan_context(other):
        client = httpx.AsyncClient(
            transport=httpx.ASGITransport(other), base_url="http://herd", headers=front.client.headers
        )
        async with client:
            problem(await client.get(f"/ipfs/{cid}/output/result.json"), 404, "not_found")
            assert (await client.get(f"/v1/modules/runs/{job['id']}")).json()["cid"] == cid
            found = (await client.get(f"/ipfs/{cid}/output/result.json")).json()
    assert found == {"question": "What is a chatbot?", "text": "blue"}
