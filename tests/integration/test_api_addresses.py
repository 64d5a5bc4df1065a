"""Addresses, methods and parameters of queries that are not there, or are wrong."""

from __future__ import annotations

from tests.integration.api import MODEL, Front, problem


async def test_an_address_where_nothing_is(front: Front) -> None:
    nothing = problem(await front.client.get("/v1/job"), 404, "not_found")
    assert nothing["detail"].startswith("there is nothing at this address")
    for path in ("/v1/embeddings", "/v1/responses/resp_1", "/v1/images/generations"):
        nothing = problem(await front.client.post(path, json={"model": MODEL}), 404, "not_found")
        assert "is not served here: " in nothing["error"]["message"]
    problem(await front.client.get("/v1/jobs/"), 404, "not_found")


async def test_a_method_that_is_not_possible(front: Front) -> None:
    reply = await front.client.put("/v1/jobs")
    problem(reply, 405, "method_not_allowed")
    assert reply.headers["allow"] == "GET, POST"


async def test_parameters_that_are_none(front: Front) -> None:
    for query in (
        "limit=0",
        "limit=101",
        "limit=x",
        "limit=2.0",
        "limit=1_0",
        "cursor=abc",
        "cursor=" + "9" * 30,
    ):
        problem(await front.client.get(f"/v1/jobs?{query}"), 422, "invalid_request")
    for query in ("cursor=x", "cursor=1-", "cursor=99999999999999999999-1", "cursor=0-0"):
        problem(await front.client.get(f"/v1/account/ledger?{query}"), 422, "invalid_request")
    for query in ("cancel_on_disconnect=yes", "cancel_on_disconnect=1", "cancel_on_disconnect=True"):
        reply = await front.client.get(f"/v1/jobs/job_x/events?{query}")
        assert problem(reply, 422, "invalid_request")["detail"].endswith("must be true or false")
    for query in ("wait=-1", "wait=nan", "wait=inf", "wait=9999", "wait=x"):
        problem(await front.client.get(f"/v1/jobs/job_x?{query}"), 422, "invalid_request")
