"""Everything that is refused: one clear problem document each, and nothing charged, held or queued."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from herder.apikeys import new_key
from herder.settings import Settings
from tests.integration.api import CARD, MODEL, Front, open_front, problem
from tests.integration.post import for_webhooks

FINE = {"prompt": "hello", "tokens": 20}


@pytest.fixture
async def front(settings: Settings) -> AsyncIterator[Front]:
    """Every test here must leave the money as it was."""
    async with open_front(settings) as front:
        yield front
        assert await front.balances() == (1_000, 0)
        assert (await front.client.get("/v1/jobs")).json() == {"jobs": [], "next": None}


async def test_the_positive_control(settings: Settings) -> None:
    async with open_front(settings) as front:
        assert (await front.client.post("/v1/jobs", json=FINE)).status_code == 202
        assert await front.balances() == (970, 30)


async def test_no_key_and_wrong_keys(front: Front) -> None:
    reply = await front.anonymous.post("/v1/jobs", json=FINE)
    problem(reply, 401, "missing_key")
    assert reply.headers["www-authenticate"].startswith("Bearer")
    for key in (new_key(), "hk_short", "é", "x" * 1_000):
        headers = [(b"Authorization", b"Bearer " + key.encode())]
        problem(await front.anonymous.post("/v1/jobs", json=FINE, headers=headers), 401, "invalid_key")


async def test_an_empty_balance_names_what_is_needed_and_what_there_is(front: Front) -> None:
    poor = await front.account("poor", 25)
    document = problem(await poor.post("/v1/jobs", json=FINE), 402, "insufficient_funds")
    assert (document["needed"], document["balance"], document["max_affordable_tokens"]) == (30, 25, 15)
    assert _listed(document) == (30, 10, 1)
    assert (await poor.post("/v1/jobs", json={"prompt": "a", "tokens": 15})).status_code == 202
    document = problem(await poor.post("/v1/jobs", json=FINE), 402, "insufficient_funds")
    assert (document["balance"], document["max_affordable_tokens"]) == (0, 0)


def _listed(document: dict[str, Any]) -> tuple[int, int, int]:
    """The base fee, and the prices that it is made of."""
    return document["base_fee"], document["set_prompt_fee"], document["fee_per_token"]


async def test_an_unknown_model_names_the_known_ones(front: Front) -> None:
    document = problem(
        await front.client.post("/v1/jobs", json={**FINE, "model": "nope"}), 404, "unknown_model"
    )
    assert document["models"] == [MODEL]


async def test_an_empty_herd_knows_no_model(settings: Settings) -> None:
    async with open_front(settings, worker=False) as front:
        document = problem(await front.client.post("/v1/jobs", json=FINE), 404, "unknown_model")
        assert document["models"] == []


async def test_prices_below_above_and_out_of_reach(front: Front) -> None:
    document = problem(await front.client.post("/v1/jobs", json={**FINE, "fee": 29}), 402, "fee_too_low")
    assert (document["needed"], document["fee"], _listed(document)) == (30, 29, (30, 10, 1))
    body: dict[str, Any] = {**FINE, "multiplier": 2, "max_fee": 59}
    document = problem(await front.client.post("/v1/jobs", json=body), 402, "max_fee_exceeded")
    assert (document["needed"], document["max_fee"], _listed(document)) == (60, 59, (30, 10, 1))
    document = problem(
        await front.client.post("/v1/jobs", json={**FINE, "max_fee": 29}), 402, "max_fee_exceeded"
    )
    assert document["needed"] == 30
    problem(
        await front.client.post("/v1/jobs", json={**FINE, "fee": 40, "max_fee": 39}), 402, "max_fee_exceeded"
    )


async def test_what_can_never_fit_names_its_limit(front: Front) -> None:
    document = problem(
        await front.client.post("/v1/jobs", json={**FINE, "tokens": 512}), 422, "context_exceeded"
    )
    assert (document["limit"], document["context"], document["tokens"]) == (512, 512, 512)
    long = {"prompt": "a" * 5_000, "tokens": 5}
    problem(await front.client.post("/v1/jobs", json=long), 422, "context_exceeded")
    for path in ("/v1/jobs", "/v1/quote"):
        reply = await front.client.post(path, json={**FINE, "tokens": 8_193})
        document = problem(reply, 422, "invalid_request")
        assert (document["limit"], document["errors"][0]["field"]) == (512, "tokens")
        assert "more than 512 (the context of toy" in document["detail"]
    await front.worker(replace(CARD, context=10_000))
    document = problem(
        await front.client.post("/v1/jobs", json={**FINE, "tokens": 8_193}), 422, "invalid_request"
    )
    assert (document["limit"], document["errors"][0]["field"]) == (8_192, "tokens")
    assert "HERDER_TOKENS_MAX" in document["detail"]


async def test_a_megabyte_of_prompt_and_a_body_over_the_cap(front: Front) -> None:
    document = problem(
        await front.client.post("/v1/jobs", json={"prompt": "a" * 1_000_000, "tokens": 5}), 413, "too_large"
    )
    assert document["limit"] == 500_000
    document = problem(await front.client.post("/v1/jobs", content=b"x" * 4_000_001), 413, "too_large")
    assert document["limit"] == 4_000_000

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b" " * 1_000_000

    problem(await front.client.post("/v1/jobs", content=pieces()), 413, "too_large")


BROKEN = [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"prompt": "a", "tokens": 5', b"[" * 50_000,
          b'{"a":' * 20_000, b"1" * 5_000, b'{"prompt":"a","tokens":' + b"9" * 5_000 + b"}"]  # fmt: skip


@pytest.mark.parametrize("body", BROKEN, ids=lambda body: repr(body[:16]))
async def test_what_is_not_a_json_object(front: Front, body: bytes) -> None:
    problem(await front.client.post("/v1/jobs", content=body), 400, "bad_request")


async def test_a_byte_order_mark_is_called_by_its_name(front: Front) -> None:
    body = json.dumps(FINE).encode("utf-8-sig")
    document = problem(await front.client.post("/v1/jobs", content=body), 400, "bad_request")
    assert document["detail"] == "the body begins with a byte order mark: send UTF-8 without one"


WRONG: list[tuple[str, str]] = [
    ('{"prompt":"a"}', "tokens"),
    ('{"prompt":"a","tokens":0}', "tokens"),
    ('{"prompt":"a","tokens":-1}', "tokens"),
    ('{"prompt":"a","tokens":"5"}', "tokens"),
    ('{"prompt":"a","tokens":5.0}', "tokens"),
    ('{"prompt":"a","tokens":true}', "tokens"),
    ('{"prompt":"a","tokens":null}', "tokens"),
    ('{"prompt":"a","tokens":99999999999999999999}', "tokens"),
    ('{"tokens":5}', ""),
    ('{"prompt":"a","messages":[{"role":"user","content":"b"}],"tokens":5}', "messages"),
    ('{"prompt":"","tokens":5}', "prompt"),
    ('{"prompt":5,"tokens":5}', "prompt"),
    ('{"prompt":"a\\u0000b","tokens":5}', "prompt"),
    ('{"prompt":"\\ud800","tokens":5}', "prompt"),
    ('{"messages":[],"tokens":5}', "messages"),
    ('{"messages":[{"role":"function","content":"b"}],"tokens":5}', "messages.0.role"),
    ('{"messages":[{"role":"user"}],"tokens":5}', "messages.0.content"),
    ('{"messages":[{"role":"user","content":"b","name":"x"}],"tokens":5}', "messages.0.name"),
    ('{"messages":[{"role":"user","content":"b"}],"raw":true,"tokens":5}', "raw"),
    ('{"prompt":"a","tokens":5,"max_fe":10}', "max_fe"),
    ('{"prompt":"a","tokens":5,"tokens":6}', "tokens"),
    ('{"prompt":"a","tokens":5,"\\udfff":1}', ""),
    ('{"prompt":"a","tokens":5,"multiplier":0.999}', "multiplier"),
    ('{"prompt":"a","tokens":5,"multiplier":1.0001}', "multiplier"),
    ('{"prompt":"a","tokens":5,"multiplier":100.001}', "multiplier"),
    ('{"prompt":"a","tokens":5,"multiplier":1e999999}', "multiplier"),
    ('{"prompt":"a","tokens":5,"multiplier":NaN}', "multiplier"),
    ('{"prompt":"a","tokens":5,"multiplier":Infinity}', "multiplier"),
    ('{"prompt":"a","tokens":5,"multiplier":"2"}', "multiplier"),
    ('{"prompt":"a","tokens":5,"multiplier":true}', "multiplier"),
    ('{"prompt":"a","tokens":5,"multiplier":2,"fee":30}', "multiplier"),
    ('{"prompt":"a","tokens":5,"fee":1501}', "fee"),
    ('{"prompt":"a","tokens":5,"fee":-1}', "fee"),
    ('{"prompt":"a","tokens":5,"fee":9007199254740992}', "fee"),
    ('{"prompt":"a","tokens":5,"max_fee":1.5}', "max_fee"),
    ('{"prompt":"a","tokens":5,"seed":4294967296}', "seed"),
    ('{"prompt":"a","tokens":5,"temperature":2.1}', "temperature"),
    ('{"prompt":"a","tokens":5,"temperature":"0"}', "temperature"),
    ('{"prompt":"a","tokens":5,"temperature":1e400}', "temperature"),
    ('{"prompt":"a","tokens":5,"temperature":1e99999999999999999999}', "temperature"),
    (f'{{"prompt":"a","tokens":5,"temperature":{10**400}}}', "temperature"),
    ('{"prompt":"a","tokens":5,"top_p":0}', "top_p"),
    ('{"prompt":"a","tokens":5,"stop":[""]}', "stop"),
    ('{"prompt":"a","tokens":5,"stop":[1]}', "stop"),
    ('{"prompt":"a","tokens":5,"metadata":{"a":1}}', "metadata.a"),
    ('{"prompt":"a","tokens":5,"metadata":{"a":{"b":"c"}}}', "metadata.a"),
    ('{"prompt":"a","tokens":5,"metadata":[]}', "metadata"),
    (json.dumps({"prompt": "a", "tokens": 5, "metadata": {"a": "é" * 257}}), "metadata"),
    (json.dumps({"prompt": "a", "tokens": 5, "metadata": {"k" * 65: "v"}}), "metadata"),
    (json.dumps({"prompt": "a", "tokens": 5, "metadata": {str(i): "" for i in range(17)}}), "metadata"),
    ('{"prompt":"a","tokens":5,"stop":""}', "stop"),
    ('{"prompt":"a","tokens":5,"stop":5}', "stop"),
    (json.dumps({"prompt": "a", "tokens": 5, "stop": ["x"] * 17}), "stop"),
    (json.dumps({"prompt": "a", "tokens": 5, "stop": "é" * 129}), "stop"),
]


@pytest.mark.parametrize(("body", "field"), WRONG, ids=[body[:60] for body, _ in WRONG])
async def test_a_wrong_field_is_named(front: Front, body: str, field: str) -> None:
    document = problem(await front.client.post("/v1/jobs", content=body), 422, "invalid_request")
    assert any(error["field"].startswith(field) for error in document["errors"]), document
    assert not any(mark in json.dumps(document["errors"]) for mark in ("function", " at 0x")), document


@pytest.mark.parametrize(
    ("stop", "field", "message"),
    [
        ("", "stop", "must not be empty"),
        ([""], "stop.0", "must not be empty"),
        (5, "stop", "must be a string or a list of strings"),
    ],
)
async def test_a_wrong_stop_is_one_fault(front: Front, stop: Any, field: str, message: str) -> None:
    document = problem(
        await front.client.post("/v1/jobs", json={**FINE, "stop": stop}), 422, "invalid_request"
    )
    assert document["errors"] == [{"field": field, "message": message}]


async def test_a_multiplier_below_1_is_told_its_range(front: Front) -> None:
    document = problem(
        await front.client.post("/v1/jobs", json={**FINE, "multiplier": 0.5}), 422, "invalid_request"
    )
    assert document["detail"] == "multiplier: must be 1 or more, and at most 100"


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256, "é"])
async def test_an_idempotency_key_that_is_none(front: Front, key: str) -> None:
    headers = [(b"Idempotency-Key", key.encode())]
    document = problem(
        await front.client.post("/v1/jobs", json=FINE, headers=headers), 422, "invalid_request"
    )
    assert document["errors"][0]["field"] == "Idempotency-Key"
    assert "pattern" not in document["detail"]


@pytest.mark.parametrize("field", ["response_format.json_schema.schema", "output_type"])
async def test_a_form_too_deep_to_be_remembered_by_its_key(front: Front, field: str) -> None:
    form: Any = {"default": json.loads("[" * 300 + "]" * 300)}
    for name in reversed(field.split(".")):
        form = {name: form} if name != "response_format" else {name: form | {"type": "json_schema"}}
    reply = await front.client.post("/v1/jobs", json=FINE | form, headers={"Idempotency-Key": "k"})
    assert problem(reply, 422, "invalid_request")["errors"][0]["field"] == field


async def test_a_suspended_account_can_read_but_not_submit(front: Front) -> None:
    await front.herd.ledger.suspend("alice", True)
    problem(await front.client.post("/v1/jobs", json=FINE), 403, "account_suspended")
    assert (await front.client.get("/v1/account")).json()["suspended"] is True


async def test_another_accounts_job_is_not_there(front: Front) -> None:
    bob = await front.account("bob", 100)
    job = (await bob.post("/v1/jobs", json=FINE)).json()
    assert (await bob.get(f"/v1/jobs/{job['id']}")).status_code == 200
    for call in (front.client.get, front.client.delete):
        problem(await call(f"/v1/jobs/{job['id']}"), 404, "not_found")
        problem(await call("/v1/jobs/job_0000000000000000000000"), 404, "not_found")
        problem(await call("/v1/jobs/x:y%00{}"), 404, "not_found")
    assert (await bob.get("/v1/jobs")).json()["jobs"][0]["status"] == "queued"


async def test_a_template_that_refuses_says_so(front: Front, settings: Settings) -> None:
    await front.worker(replace(CARD, template="{{ raise_exception('roles must alternate') }}"))
    document = problem(await front.client.post("/v1/jobs", json=FINE), 422, "invalid_request")
    assert "roles must alternate" in document["detail"]
    await front.worker(replace(CARD, template=None))
    chat = {"messages": [{"role": "user", "content": "a"}], "tokens": 5}
    document = problem(await front.client.post("/v1/jobs", json=chat), 422, "invalid_request")
    assert "no chat template" in document["detail"]


async def test_a_misplaced_option_is_refused_and_costs_nothing(front: Front) -> None:
    for query in ("max_fee=1", "strem=true", "stream=true&cancel_on_disconect=true"):
        reply = await front.client.post(f"/v1/jobs?{query}", json={"prompt": "hello", "tokens": 4})
        document = problem(reply, 422, "invalid_request")
        assert "no query parameter" in document["detail"]
    problem(await front.client.post("/v1/quote?max_fee=1", json={"tokens": 4}), 422, "invalid_request")
    assert await front.balances() == (1_000, 0)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/jobs", {"prompt": "a", "tokens": 600}, 422),
        ("/v1/jobs", {"prompt": "a", "tokens": 20, "fee": 1}, 402),
        ("/v1/jobs", {"prompt": "a", "tokens": 20, "max_fee": 1}, 402),
        ("/v1/batches", {"prompts": ["a"], "tokens": 20, "fee": 1}, 402),
        ("/v1/batches", {"prompts": ["a"] * 100, "tokens": 400}, 402),
    ],
)
async def test_what_is_refused_leaves_no_webhook_endpoint(
    settings: Settings, path: str, body: dict[str, Any], status: int
) -> None:
    async with open_front(for_webhooks(settings)) as front:
        reply = await front.client.post(path, json={**body, "webhook_url": "http://127.0.0.1:9/hook"})
        assert reply.status_code == status, reply.text
        assert (await front.client.get("/v1/webhooks/endpoints")).json()["endpoints"] == []
