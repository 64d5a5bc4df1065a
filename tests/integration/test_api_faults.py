"""How refusals are worded: the field that is to be changed, once, in plain words; and what a query may not have."""

from __future__ import annotations

import json

import pytest

from tests.integration.api import Front, problem

WORDED: list[tuple[str, str, str]] = [
    ('"raw":true,"system":"s"', "system", "raw and system exclude each other"),
    ('"raw":true,"template":"chatml"', "template", "raw and template exclude each other"),
    (
        '"system":"s","prompt":null,"messages":[{"role":"system","content":"t"}]',
        "system",
        "exclude each other",
    ),
    ('"logit_bias":{"5":1,"5":2}', "logit_bias.5", "is given twice"),
    ('"logit_bias":{"-1":1}', "logit_bias.-1", "must be a token id, from 0 on"),
    ('"logit_bias":{"0\\n":1}', "logit_bias.0\n", "must be a token id, from 0 on"),
    ('"output_type":{"a":[1,NaN]}', "output_type.a.1", "NaN is not a number"),
    (f'"temperature":0.{"1" * 80}', "temperature", "a number has more than 64 characters"),
    ('"tools":[]', "tools", "must not be empty"),
    (
        json.dumps({"logit_bias": {str(i): 1 for i in range(257)}})[1:-1],
        "logit_bias",
        "must have a length of at most 256",
    ),
    ('"response_format":"json"', "response_format", "must be an object"),
    (
        '"prompt":null,"messages":[{"role":"user","content":[{"type":"text","text":"a"}]}]',
        "messages.0.content",
        "must be a text; lists of parts are not taken",
    ),
    *(
        (
            f'"prompt":null,"messages":[{{"role":"assistant","tool_calls":[{{"function":{{"name":"f","arguments":{a}}}}}]}}]',
            "messages.0.tool_calls.0.function.arguments",
            "must be an object, or a text with JSON in it",
        )
        for a in ("[]", "5", '"{\\"a\\":1"', '""')
    ),
]


@pytest.mark.parametrize(("more", "field", "message"), WORDED, ids=[more[:40] for more, _, _ in WORDED])
async def test_the_field_that_is_wrong_is_named_once_in_plain_words(
    front: Front, more: str, field: str, message: str
) -> None:
    prompt = "" if '"prompt"' in more else '"prompt":"a",'
    reply = await front.client.post("/v1/jobs", content=f'{{{prompt}"tokens":5,{more}}}')
    (fault,) = problem(reply, 422, "invalid_request")["errors"]
    assert (fault["field"], message in fault["message"]) == (field, True), fault


async def test_a_query_parameter_that_a_get_does_not_have_is_refused_with_those_it_has(front: Front) -> None:
    """A filter that was ignored would show what was not asked for; probes may add what they like."""
    job = await front.submit()
    for path, known in (
        ("/v1/jobs", "there are: cursor, limit"),
        (f"/v1/jobs/{job['id']}", "there are: wait"),
        (f"/v1/jobs/{job['id']}/events", "there are: cancel_on_disconnect"),
        ("/v1/account", "it has none"),
        ("/v1/batches", "there are: after, cursor, limit"),
        ("/info", "it has none"),
    ):
        document = problem(await front.client.get(path, params={"status": "failed"}), 422, "invalid_request")
        assert document["errors"][0]["field"] == "status"
        assert known in document["detail"]
    assert (await front.client.get("/v1/jobs?limit=1")).status_code == 200
    for again in (
        await front.client.get("/v1/jobs?limit=5&limit=6"),
        await front.client.post("/v1/jobs?stream=true&stream=false", json={}),
    ):
        assert problem(again, 422, "invalid_request")["detail"].endswith(": is given twice")
    for path, detail in (
        ("/v1/jobs?cursor=garbage", "cursor: must be the `next` of the page before"),
        (f"/v1/jobs/{job['id']}?wait=abc", "wait: must be a number"),
    ):
        assert problem(await front.client.get(path), 422, "invalid_request")["detail"] == detail
    for path in ("/healthz", "/readyz", "/metrics"):
        assert (await front.client.get(path, params={"t": "1"})).status_code == 200
