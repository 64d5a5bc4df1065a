"""Typed answers over HTTP: what a worker is given to fit, what comes back, and all that is refused before a charge."""

from __future__ import annotations

import json
from typing import Any

import pytest

from herder.protocol import Outcome
from herder.webhooks import BODY_BYTES_MAX, body_of_job
from tests.hostile_schemas import HOSTILE
from tests.integration.api import Front, problem

AGE = {"age": "int", "units": "str"}


def in_format(schema: Any) -> dict[str, Any]:
    """OpenAI's way to send a schema."""
    wanted = {"name": "it", "strict": True, "schema": schema}
    return {"response_format": {"type": "json_schema", "json_schema": wanted}}


async def test_an_output_type_comes_to_the_worker_as_a_schema(front: Front) -> None:
    job = await front.submit(output_type=AGE, tokens=30)
    lease = await front.lease()
    assert lease.brief.schema is not None
    schema = json.loads(lease.brief.schema)
    assert list(schema["properties"]) == ["age", "units"]
    assert schema["required"] == ["age", "units"]
    assert schema["properties"]["age"]["type"] == "integer"
    await front.settle(lease, '{"age":25,"units":"years"}', 9)
    ended = (await front.client.get(f"/v1/jobs/{job['id']}")).json()
    assert ended["result"]["output"] == {"age": 25, "units": "years"}
    assert ended["result"]["text"] == '{"age":25,"units":"years"}'
    assert ended["result"]["choices"][0]["output"] == {"age": 25, "units": "years"}


async def test_the_formats_of_openai(front: Front) -> None:
    await front.submit(response_format={"type": "text"})
    assert (await front.lease()).brief.schema is None
    await front.submit(response_format={"type": "json_object"})
    schema = (await front.lease()).brief.schema
    assert schema is not None
    assert json.loads(schema)["type"] == "object"
    await front.submit(**in_format({"type": "array", "items": {"type": "boolean"}, "minItems": 1}))
    schema = (await front.lease()).brief.schema
    assert schema is not None
    assert json.loads(schema) == {"type": "array", "items": {"enum": [False, True]}, "minItems": 1}


async def test_an_untyped_answer_has_no_output_though_it_is_json(front: Front) -> None:
    job = await front.submit()
    await front.answer('{"age":25}')
    assert (await front.client.get(f"/v1/jobs/{job['id']}")).json()["result"]["output"] is None


async def test_an_item_of_a_batch_may_be_typed(front: Front) -> None:
    reply = await front.client.post(
        "/v1/batches",
        json={"items": [{"prompt": "a", "tokens": 30, "output_type": AGE}, {"prompt": "b", "tokens": 5}]},
    )
    assert reply.status_code == 202, reply.text
    texts = {"a": '{"age":1,"units":"y"}', "b": "blue"}
    for _ in texts:
        lease = await front.lease()
        named = "a" if lease.brief.schema else "b"
        await front.settle(lease, texts[named], 4)
    results = await front.client.get(f"/v1/batches/{reply.json()['id']}/results")
    rows = {row["index"]: row for row in map(json.loads, results.text.splitlines())}
    assert rows[0]["result"]["output"] == {"age": 1, "units": "y"}
    assert rows[1]["result"]["output"] is None


async def test_a_batch_has_one_form_for_all_but_those_with_their_own(front: Front) -> None:
    own = {"prompt": "b", "response_format": {"type": "text"}}
    body = {"items": [{"prompt": "a"}, own], "tokens": 30, "output_type": AGE}
    assert (await front.client.post("/v1/batches", json=body)).status_code == 202
    assert [(await front.lease()).brief.schema is None for _ in range(2)] == [False, True]
    lines = '{"prompt": "a"}\n{"prompt": "b", "output_type": {"b": "nothing"}}\n'
    reply = await front.client.post(
        "/v1/batches",
        params={"tokens": 30, "output_type": json.dumps(AGE)},
        content=lines,
        headers={"Content-Type": "application/jsonl"},
    )
    document = problem(reply, 422, "invalid_request")
    assert [fault["field"] for fault in document["errors"]] == ["line 2: output_type.b"], document


async def test_a_webhook_that_is_too_large_has_the_answer_once(front: Front) -> None:
    job = await front.submit(output_type={"a": "str"}, tokens=400)
    text = json.dumps({"a": "x" * (BODY_BYTES_MAX // 2)})
    await front.settle(await front.lease(), text, 400)
    record = await front.herd.broker.job(job["id"])
    assert record is not None
    told = json.loads(body_of_job(record, "/v1/jobs/x"))["data"]
    assert (told["truncated"], told["result"]["output"], told["result"]["text"]) == (True, None, text)


async def test_every_hostile_schema_is_refused_and_costs_nothing(front: Front) -> None:
    """As far as JSON can carry it: with its path, as 422 or (a lone surrogate) before that."""
    refused = 0
    for path, schema, _ in HOSTILE:
        body = json.dumps(
            {"prompt": "a", "tokens": 20, **in_format(schema)}, default=lambda value: f"<{value}>"
        )
        body = body.replace('"<', "").replace('>"', "")  # exact numbers are written as they are
        reply = await front.client.post("/v1/jobs", content=body)
        document = problem(reply, 422, "invalid_request")
        field = document["errors"][0]["field"] if document["errors"] else ""
        if path and "\\ud" not in body:
            assert field == "response_format.json_schema.schema" + path[1:]
            refused += 1
    assert refused > 60
    assert await front.balances() == (1_000, 0)
    assert (await front.client.get("/v1/jobs")).json()["jobs"] == []


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"output_type": AGE, "response_format": {"type": "text"}}, "response_format"),
        ({"output_type": AGE, "stop": "}"}, "stop"),
        ({**in_format({"type": "string"}), "stop": ["a"]}, "stop"),
        ({"output_type": {}}, "output_type"),
        ({"output_type": {"age": "number"}}, "output_type.age"),
        ({"output_type": "int"}, "output_type"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": {"type": "json_object", "json_schema": {"schema": {}}}}, "response_format"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
            "response_format.json_schema.schema",
        ),
    ],
)
async def test_bodies_that_cannot_be_meant(front: Front, more: dict[str, Any], field: str) -> None:
    reply = await front.client.post("/v1/jobs", json={"prompt": "a", "tokens": 20, **more})
    document = problem(reply, 422, "invalid_request")
    assert document["errors"][0]["field"] == field
    assert await front.balances() == (1_000, 0)


async def test_too_few_tokens_for_any_answer_are_refused_with_the_number(front: Front) -> None:
    """A token of this model has at most 8 bytes, so 200 characters are at least 26 of them."""
    long = in_format({"type": "string", "minLength": 200})
    reply = await front.client.post("/v1/jobs", json={"prompt": "a", "tokens": 25, **long})
    document = problem(reply, 422, "invalid_request")
    assert document["errors"][0]["field"] == "tokens"
    assert document["limit"] == 26
    assert (await front.client.post("/v1/quote", json={"tokens": 25, **long})).status_code == 422
    await front.submit(tokens=26, **long)


async def test_a_quote_is_refused_as_the_job_would_be(front: Front) -> None:
    body = in_format({"type": "string", "pattern": "a"})
    problem(await front.client.post("/v1/quote", json=body), 422, "invalid_request")
    assert (await front.client.post("/v1/quote", json={"output_type": AGE})).json()["feasible"]


async def test_what_only_the_compiler_finds_too_complex_is_refused_as_well(front: Front) -> None:
    """Thirty-two objects side by side that all begin alike, each with any of nine properties."""
    many = {"properties": {f"p{i}": {"type": ["string", "number"]} for i in range(9)}}
    body = {"prompt": "a", "tokens": 200, **in_format({"anyOf": [many] * 32})}
    document = problem(await front.client.post("/v1/jobs", json=body), 422, "invalid_request")
    assert document["errors"][0]["field"] == "response_format.json_schema.schema"
    assert "cannot be compiled" in document["detail"]
    assert await front.balances() == (1_000, 0)
    await front.submit(tokens=200, **in_format({"anyOf": [many] * 8}))


async def test_a_compiler_that_dies_or_hangs_is_a_refusal_and_the_next_schema_is_tried_afresh(
    front: Front,
) -> None:
    """What should never happen in the child costs that request, and nothing else."""
    child = front.herd.schemas._child
    await front.submit(output_type={"first": "int"})
    process = child._process
    assert process is not None
    process.kill()
    await process.wait()
    await front.submit(output_type={"second": "int"})
    assert child.starts == 2
    child._limit_s = 0.0
    body = {"prompt": "a", "tokens": 20, "output_type": {"third": "int"}}
    document = problem(await front.client.post("/v1/jobs", json=body), 422, "invalid_request")
    assert "took too long" in document["detail"]
    child._limit_s = 3.0
    await front.submit(output_type={"fourth": "int"})
    # What was tried is remembered; what took too long is not, since it may have been the machine.
    starts = child.starts
    await front.submit(output_type={"first": "int"})
    assert child.starts == starts
    await front.submit(output_type={"third": "int"})
    # A child that does not even start says nothing of the schema.
    await child.close()
    child._module = "herder.no_such_module"
    reply = await front.client.post("/v1/jobs", json=body | {"output_type": {"fifth": "int"}})
    problem(reply, 503, "overloaded")
    await front.submit(output_type={"first": "int"})


async def test_a_part_of_a_number_is_no_output(front: Front) -> None:
    """Cancelled after the first digit of 12."""
    job = await front.submit(tokens=20, **in_format({"type": "integer"}))
    lease = await front.lease()
    await front.client.delete(f"/v1/jobs/{job['id']}")
    await front.settle(lease, "1", 1, Outcome.CANCELLED)
    result = (await front.client.get(f"/v1/jobs/{job['id']}")).json()["result"]
    assert (result["text"], result["output"], result["choices"][0]["output"]) == ("1", None, None)
