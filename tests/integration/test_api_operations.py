"""Info, health, readiness, metrics, the OpenAPI document, and a Redis that goes away."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from herder.broker import Broker
from herder.embedded import EmbeddedRedis
from herder.errors import HerderError
from herder.settings import Settings
from tests.integration.api import MODEL, Front, open_front, problem


async def test_info_needs_no_key(front: Front) -> None:
    await front.submit()
    info = (await front.anonymous.get("/info")).json()
    assert info["name"] == "llama-herder"
    assert (info["set_prompt_fee"], info["fee_per_token"], info["last_multiplier"]) == (10, 1, 1.0)
    assert (info["queue_length"], info["models"], info["workers"], info["slots"]) == (1, [MODEL], 1, 4)


async def test_whoever_opens_the_address_in_a_browser_is_told_where_to_look(front: Front) -> None:
    reply = await front.anonymous.get("/")
    assert reply.headers["content-type"].startswith("text/plain")
    for path in ("/info", "/docs", "/openapi.json"):
        assert path in reply.text
        assert (await front.anonymous.get(path)).status_code == 200


async def test_models_and_workers(front: Front) -> None:
    (model,) = (await front.client.get("/v1/models")).json()["models"]
    assert (model["id"], model["context"], model["workers"], model["queue_length"]) == (MODEL, 512, 1, 0)
    (worker,) = (await front.client.get("/v1/workers")).json()["workers"]
    assert (worker["id"], worker["model"], worker["slots"], worker["busy"]) == ("w1", MODEL, 4, 0)
    problem(await front.anonymous.get("/v1/models"), 401, "missing_key")


async def test_models_in_the_words_of_openai(settings: Settings) -> None:
    named = {"model_alias": ("tgi", "meta/big=toy", f"{MODEL}=nope")}
    async with open_front(settings.model_copy(update=named)) as front:
        listed = (await front.client.get("/v1/models")).json()
        same = {"id": MODEL, "object": "model", "created": 0, "owned_by": "llama-herder"}
        assert (listed["object"], listed["data"]) == ("list", [same])
        for name in (MODEL, "tgi", "meta/big"):
            one = (await front.client.get(f"/v1/models/{name}")).json()
            assert one.items() >= {**listed["models"][0], **same}.items(), name
        document = problem(await front.client.get("/v1/models/a/b"), 404, "unknown_model")
        assert document["error"]["code"] == "model_not_found"
        problem(await front.anonymous.get(f"/v1/models/{MODEL}"), 401, "missing_key")


async def test_ready_only_with_a_model(settings: Settings) -> None:
    async with open_front(settings, worker=False) as front:
        document = problem(await front.anonymous.get("/readyz"), 503, "not_ready")
        assert document["reasons"] == ["no worker has registered a model yet"]
        await front.worker()
        assert (await front.anonymous.get("/readyz")).json() == {
            "status": "ready",
            "models": [MODEL],
            "workers": 1,
        }
        front.herd.stopping.set()
        problem(await front.anonymous.get("/readyz"), 503, "not_ready")


async def test_metrics_count_routes_not_addresses(front: Front) -> None:
    job = await front.submit()
    await front.client.get(f"/v1/jobs/{job['id']}")
    await front.client.get("/v1/jobs/job_0000000000000000000000")
    await front.client.get("/nowhere")
    text = (await front.anonymous.get("/metrics")).text
    assert 'herder_requests_total{method="GET",route="/v1/jobs/{job_id}",status="404"} 1.0' in text
    assert 'herder_refusals_total{code="not_found"} 2.0' in text
    assert f'herder_queue_length{{model="{MODEL}"}} 1.0' in text
    assert f'herder_workers{{model="{MODEL}"}} 1.0' in text
    assert "herder_redis_up 1.0" in text
    assert job["id"] not in text


async def test_every_response_carries_a_request_id(front: Front) -> None:
    for path in ("/healthz", "/nowhere", "/v1/jobs"):
        assert (await front.anonymous.get(path)).headers["x-request-id"].startswith("req_")
    mine = await front.anonymous.get("/healthz", headers={"X-Request-Id": "abc-1"})
    assert mine.headers["x-request-id"] == "abc-1"
    odd = await front.anonymous.get("/healthz", headers={"X-Request-Id": "a b\tc"})
    assert odd.headers["x-request-id"].startswith("req_")


async def test_what_nobody_caught_is_a_problem_too(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(self: Broker) -> None:
        raise RuntimeError("a secret detail")

    monkeypatch.setattr(Broker, "worker_states", broken)
    reply = await front.client.get("/v1/workers")
    problem(reply, 500, "internal")
    assert "secret" not in reply.text


async def test_openapi_declares_every_route_error_and_example(front: Front) -> None:
    document = (await front.anonymous.get("/openapi.json")).json()
    assert (await front.anonymous.get("/docs")).status_code == 200
    operations = [(p, m, o) for p, ms in document["paths"].items() for m, o in ms.items()]
    assert len(operations) >= 20
    for path, method, operation in operations:
        assert operation["summary"], path
        assert operation["tags"]
        if path.startswith("/v1/"):
            assert {"401", "429", "503"} <= set(operation["responses"]), (path, method)
            assert operation["security"]
        if "requestBody" in operation:
            content = operation["requestBody"]["content"]["application/json"]
            assert content["examples"]
            assert {"400", "413", "422"} <= set(operation["responses"])
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                assert list(response["content"]) == ["application/problem+json"], (path, status)
    text = str(document)
    for name in re.findall(r"#/components/schemas/(\w+)", text):
        assert name in document["components"]["schemas"]
    # The last is of other people's APIs, which are documented elsewhere.
    codes = {error.code for error in _leaves(HerderError)} - {"method_not_allowed", "answer_failed"}
    for code in codes:
        assert f"'{code}'" in text, f"{code} is declared nowhere"
    assert document["components"]["schemas"]["JobRequest"]["properties"]["tokens"]["maximum"] == 8_192


def _leaves(error: type[HerderError]) -> set[type[HerderError]]:
    """The kinds of errors; what a dialect makes of one is none."""
    children = [child for child in error.__subclasses__() if child.__module__ == error.__module__]
    return {leaf for child in children for leaf in _leaves(child)} if children else {error}


async def test_every_error_has_its_line_in_the_reference() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "errors.md").read_text("utf-8")
    for error in _leaves(HerderError):
        assert re.search(rf"^\| `{error.code}` \| {error.status} \|", page, re.MULTILINE), error.code


async def test_every_route_has_its_line_in_the_reference(front: Front) -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "http-api.md").read_text("utf-8")
    for path, operations in front.app.openapi()["paths"].items():
        for method in operations:
            assert f"`{method.upper()} {path}`" in page


async def test_without_redis_everything_says_so_and_comes_back(settings: Settings, tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path / "r")
    url = await server.start()
    try:
        async with open_front(settings.model_copy(update={"redis_url": url})) as front:
            await server.stop()
            assert (await front.anonymous.get("/healthz")).status_code == 200
            problem(await front.anonymous.get("/readyz"), 503, "not_ready")
            assert "herder_redis_up 0.0" in (await front.anonymous.get("/metrics")).text
            for path in ("/info", "/v1/jobs", "/v1/account"):
                reply = await front.client.get(path)
                problem(reply, 503, "redis_unavailable")
                assert int(reply.headers["retry-after"]) >= 1
            refused = await front.client.post("/v1/jobs", json={"prompt": "a", "tokens": 5})
            problem(refused, 503, "redis_unavailable")
            await server.start()
            assert (await front.client.get("/v1/account")).json()["available"] == 1_000
            await front.submit()
    finally:
        await server.stop()
