"""What a webhook says, whatever is in the job, and what an answer comes to. Nothing is sent."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from herder.api.shapes import Job
from herder.api.shown import job_fields
from herder.batch_records import BatchRecord
from herder.egress import Answer
from herder.lifecycle import Status
from herder.protocol import FinishReason, JobRecord
from herder.webhook_records import Attempted, Delivery, DeliveryStatus, Endpoint
from herder.webhooks import (
    BODY_BYTES_MAX,
    body_of_batch,
    body_of_job,
    body_of_lost,
    delivery_id,
    judged,
    link_to,
    undeliverable,
)

LINK = "https://herd.example/v1/jobs/job_1"
SCHEDULE = (0.0, 5.0, 300.0)
JOB = JobRecord(
    job_id="job_1", account="alice", model="toy", status=Status.SUCCEEDED, tokens=20, base=30, fee=45,
    multiplier_milli=1_500, attempt=1, submitted_ms=1_000, started_ms=2_000, ended_ms=1_795_251_615_900,
    cancel_requested=False, captured=23, refunded=22, text="blue", finish_reason=FinishReason.STOP,
    prompt_tokens=3, completion_tokens=1, cached_tokens=0, error_code=None, error_message=None, metadata={},
    webhook_url="https://example.com/hook",
)  # fmt: skip
DELIVERY = Delivery(
    delivery="msg_1", account="alice", endpoint="ep_1", url="https://example.com/hook", lane="alice@example.com:443",
    type="job.succeeded", subject="job_1", at_ms=1, body="{}", status=DeliveryStatus.PENDING, attempt=4, tries=0,
    created_ms=1, next_ms=1, last_ms=None, last_status=None, last_error=None, ended_ms=None,
)  # fmt: skip
ENDPOINT = Endpoint("ep_1", "alice", "https://example.com/hook", "whsec_", (), 0, 0, "", 1)

# Characters that grow when they are written as JSON or as UTF-8.
WIDE = st.sampled_from(["\x01", '"', "\\", "\n", "é", "€", "😀", "a", "\u2028", "\x7f"])
# (part, times), and {key: what its value is 512 times}: short to write down, long in the body.
LONG = st.tuples(st.text(WIDE, max_size=8), st.integers(0, 30_000))
METADATA = st.dictionaries(st.text(WIDE, min_size=1, max_size=64), WIDE, max_size=16)


def long_of(metadata: dict[str, str]) -> dict[str, str]:
    return {key: char * 512 for key, char in metadata.items()}


def event_of(body: bytes) -> dict[str, Any]:
    """A body that is small enough, read."""
    assert len(body) < BODY_BYTES_MAX
    event: dict[str, Any] = json.loads(body)
    return event


def shown(record: JobRecord) -> dict[str, Any]:
    return Job(**job_fields(record, None, None)).model_dump(mode="json")  # type: ignore[arg-type]


# --- bodies ----------------------------------------------------------------------------------------------


def test_a_job_is_told_as_it_is_shown() -> None:
    event = event_of(body_of_job(JOB, LINK))
    assert event["type"] == "job.succeeded"
    assert event["timestamp"] == "2026-11-21T09:00:15.900Z"
    assert event["data"] == shown(JOB) | {"url": LINK, "truncated": False}
    assert list(event) == ["type", "timestamp", "data"]


@given(text=LONG, metadata=METADATA, message=LONG)
@example(text=("\x01", 20_000), metadata={}, message=("", 0))
@example(text=("x", 100_000), metadata={"k": "v"}, message=("", 0))
@example(text=("", 0), metadata={str(n): "\x01" for n in range(16)}, message=("\x01", 100_000))
def test_no_body_is_too_large_and_none_is_cut_for_nothing(
    text: tuple[str, int], metadata: dict[str, str], message: tuple[str, int]
) -> None:
    answer, told, error = text[0] * text[1], long_of(metadata), message[0] * message[1]
    failed = replace(JOB, text=None, error_code="x", error_message=error, metadata=told)
    for record in (
        replace(JOB, text=answer, metadata=told),
        replace(failed, status=Status.FAILED),
        replace(failed, status=Status.CANCELLED, text=answer),
    ):
        data = event_of(body_of_job(record, LINK))["data"]
        whole = shown(record) | {"url": LINK}
        size = len(body_of_job(replace(record, text=record.text and "", metadata={}, error_message=""), LINK))
        size += sum(len(json.dumps(part, ensure_ascii=False).encode()) - 2 for part in (
            record.text or "", record.metadata, record.error_message or "" if record.error_code else ""))  # fmt: skip
        if not data.pop("truncated"):
            assert data == whole
            continue
        assert size > BODY_BYTES_MAX - 100, "cut though it would have fitted"
        if whole["result"]:
            assert whole["result"]["text"].startswith(data["result"]["text"])
        if whole["error"]:
            assert whole["error"]["message"].startswith(data["error"]["message"])
        assert data["metadata"] in ({}, whole["metadata"])
        kept = {name: value for name, value in data.items() if name not in ("result", "error", "metadata")}
        assert kept == {name: whole[name] for name in kept}


def test_a_long_text_loses_as_little_as_need_be() -> None:
    for char in ("x", "\x01", "😀", '"'):
        body = body_of_job(replace(JOB, text=char * 30_000, metadata={"story": "12"}), LINK)
        data = event_of(body)["data"]
        one = len(json.dumps(char, ensure_ascii=False).encode()) - 2
        assert BODY_BYTES_MAX - one <= len(body) < BODY_BYTES_MAX
        assert (data["truncated"], data["metadata"]) == (True, {"story": "12"})
        assert set(data["result"]["text"]) == {char}


def test_metadata_goes_before_the_body_is_too_large() -> None:
    metadata = {f"key-{n}": "\x01" * 512 for n in range(16)}
    data = event_of(body_of_job(replace(JOB, metadata=metadata), LINK))["data"]
    assert (data["metadata"], data["truncated"], data["result"]["text"]) == ({}, True, "blue")


@given(metadata=METADATA)
def test_a_batch_is_told_as_it_is_shown(metadata: dict[str, str]) -> None:
    record = BatchRecord(
        batch="batch_1", account="alice", model="toy", status="ended", cancel_requested=False, total=7,
        refused=2, fed=7, running=0, succeeded=4, failed=1, cancelled=2, expired=0, ended=7, tokens=140,
        completion_tokens=50,
        base=210, fee=300, hold=0, unfed_fee=0, captured=120, refunded=180, created_ms=1_000, ended_ms=9_000,
        metadata=long_of(metadata), webhook_url=None,
    )  # fmt: skip
    event = event_of(body_of_batch(record, LINK))
    data = event["data"]
    assert (event["type"], event["timestamp"]) == ("batch.ended", "1970-01-01T00:00:09.000Z")
    assert data["counts"] == {
        "waiting": 0, "queued": 0, "running": 0, "succeeded": 4, "failed": 1, "cancelled": 2, "expired": 0,
    }  # fmt: skip
    assert (data["id"], data["captured"] + data["refunded"], data["held"]) == ("batch_1", data["fee"], 0)
    assert (data["results_url"], data["url"]) == ("/v1/batches/batch_1/results", LINK)
    assert data["metadata"] in ({}, long_of(metadata))


def test_a_lost_record_is_told_in_short() -> None:
    event = event_of(body_of_lost("job.failed", "job_1", "failed", 9_000, LINK))
    assert event == {
        "type": "job.failed", "timestamp": "1970-01-01T00:00:09.000Z",
        "data": {"id": "job_1", "status": "failed", "ended_ms": 9_000, "url": LINK, "truncated": True},
    }  # fmt: skip


def test_ids_and_links() -> None:
    assert (delivery_id("job_ab12"), delivery_id("batch_ab12")) == ("msg_ab12", "msg_ab12")
    assert delivery_id("job_ab12n7") == "msg_ab12n7"
    assert link_to("", "job_1") == "/v1/jobs/job_1"
    assert link_to("https://herd.example/", "batch_1") == "https://herd.example/v1/batches/batch_1"


# --- verdicts --------------------------------------------------------------------------------------------


def verdict(answer: Answer, tries: int = 0, jitter: float = 1.0) -> Attempted:
    return judged(replace(DELIVERY, tries=tries), answer, SCHEDULE, lambda _, __: jitter)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 226, 299])
def test_2xx_is_delivered(status: int) -> None:
    result = verdict(Answer(status, 30.0))
    assert (result.outcome, result.pause_ms, result.error) == (DeliveryStatus.DELIVERED, None, None)
    assert (result.delivery, result.attempt, result.response_status) == ("msg_1", 4, status)


@pytest.mark.parametrize(
    "answer",
    [
        *(
            Answer(status)
            for status in (100, 199, 300, 301, 307, 400, 401, 404, 408, 409, 429, 500, 503, 599)
        ),
        Answer(None, error="timed out after 15 s"),
        Answer(None, error="127.0.0.1 is loopback", refused=True),
    ],
)
def test_everything_else_is_tried_again_until_the_schedule_is_over(answer: Answer) -> None:
    assert [verdict(answer, tries).pause_ms for tries in range(3)] == [5_000, 300_000, None]
    last = verdict(answer, 2)
    assert (last.outcome, last.disable) == (DeliveryStatus.DEAD, None)
    assert last.error
    assert (answer.error is None) or last.error == answer.error


def test_410_is_the_end_at_once_and_of_the_endpoint() -> None:
    result = verdict(Answer(410, 30.0))
    assert (result.outcome, result.pause_ms, result.response_status) == (DeliveryStatus.DEAD, None, 410)
    assert result.disable


def test_retry_after_makes_it_later_and_never_sooner_and_a_day_at_most() -> None:
    assert verdict(Answer(503, 60.0)).pause_ms == 60_000
    assert verdict(Answer(503, 1.0)).pause_ms == 5_000
    assert verdict(Answer(503, 10.0**9)).pause_ms == 86_400_000
    assert verdict(Answer(503, 60.0), tries=2).pause_ms is None


def test_pauses_have_jitter() -> None:
    assert [verdict(Answer(500), jitter=jitter).pause_ms for jitter in (0.9, 1.1)] == [4_500, 5_500]
    bounds: list[tuple[float, float]] = []

    def jitter(least: float, most: float) -> float:
        bounds.append((least, most))
        return least

    judged(DELIVERY, Answer(500), SCHEDULE, jitter)
    assert bounds == [(0.9, 1.1)]


def test_what_has_no_endpoint_is_dead() -> None:
    assert undeliverable(DELIVERY, ENDPOINT) is None
    for endpoint, word in (
        (None, "deleted"),
        (replace(ENDPOINT, disabled_ms=5, disabled_why="it answered 410"), "disabled: it answered 410"),
        (replace(ENDPOINT, disabled_ms=5), "disabled"),
        (replace(ENDPOINT, account="bob"), "its endpoint is"),
    ):
        result = undeliverable(DELIVERY, endpoint)
        assert result is not None
        assert (result.outcome, result.pause_ms, result.attempt) == (DeliveryStatus.DEAD, None, 4)
        assert word in (result.error or "")
