"""Everything beside the body of a job: headers, cursors, ids of events, queries of a batch, the doors of webhooks."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

from tests.e2e.attack_bodies import FORBIDDEN_URLS
from tests.e2e.attacks import BAD, INVALID, JOBS, SUCCEEDED, Attack, raw, written

FINE = written({"prompt": "hi", "tokens": 4})
LISTS = (JOBS, "/v1/batches", "/v1/account/ledger", "/v1/webhooks/deliveries")
NOT_CURSORS = (
    "-1",
    "1e3",
    "9" * 400,
    "9" * 5_000,
    "%D9%A3",
    "%00",
    "0x10",
    "1_0",
    "+1",
    "%2B1",
    "1%0A",
    "inf",
    "(1",
    "-",
)
LINES = "application/jsonl"


def attacks() -> Iterator[Attack]:
    """All of them."""
    yield from _cursors()
    yield from _headers()
    yield from _queries()
    yield from _webhooks()


def _cursors() -> Iterator[Attack]:
    for path in LISTS:
        for cursor in NOT_CURSORS:
            yield Attack(
                f"{path} after {cursor[:12]}", b"", frozenset({INVALID}), "GET", f"{path}?cursor={cursor}"
            )
    for cursor in NOT_CURSORS:
        path = f"/v1/batches/batch_0aZ3hK9xQvTn5WdE8rYb2c/results?cursor={cursor}"
        yield Attack(f"results after {cursor[:12]}", b"", frozenset({INVALID, "404 not_found"}), "GET", path)
    for event in (
        "-1",
        "1-1-1",
        "9" * 400 + "-0",
        "a-b",
        "$",
        "+",
        "*",
        "1-",
        "0x1-0",
        "(1-0",
        "18446744073709551616-0",
    ):
        becomes = frozenset({INVALID, "404 not_found"})
        headers = {"Last-Event-ID": event}
        yield Attack(f"events after {event[:12]}", b"", becomes, "GET", f"{JOBS}/job_x/events", headers)


def _headers() -> Iterator[Attack]:
    for name, value in {
        "X-Request-Id": "x" * 5_000, "X-Forwarded-For": "127.0.0.1, ::1, a" * 100,
        "Content-Type": "text/html; charset=utf-7",
        "Accept": "*/" * 1_000, "Origin": "null", "Range": "bytes=0-" + "9" * 400, "Cookie": "a=b;" * 1_000,
        "Forwarded": "for=_hidden", "If-None-Match": "*", "X-Http-Method-Override": "DELETE", "Host": "a.example:99999",
        "Accept-Encoding": "gzip;q=nan", "Traceparent": "00-" + "0" * 32,
    }.items():  # fmt: skip
        yield raw(f"header {name}", FINE, SUCCEEDED, headers={name: value})


def _queries() -> Iterator[Attack]:
    line = b'{"prompt":"hi"}\n'
    for name, query in {
        "deep tools": "tools=" + quote("[" * 2_000), "tools that close": "tools=" + quote('[]},{"a":1'),
        "huge number": "multiplier=1e99999999999999999999",
        "huge integer": "temperature=" + "9" * 400, "nan": "top_p=nan",
        "digits": "tokens=" + "9" * 5_000, "unicode digits": "tokens=%D9%A3",
        "twice": "tokens=4", "unknown": "max_tokens=4",
        "deep form": "output_type=" + quote('{"a":' * 300 + '"int"' + "}" * 300),
        "half a form": "output_type=" + quote('{"a"'),
        "form as text": "output_type=int", "bias": "logit_bias=" + quote('{"5":1e400}'),
        "surrogate": "stop=%ED%A0%80", "latin-1": "stop=%E9", "NUL": "stop=a%00",
        "65 stops": "&".join(f"stop=s{i}" for i in range(65)), "messages": "messages=[]",
        "format": "response_format=" + quote('{"type":"json_schema","json_schema":{"schema":{"$ref":"#"}}}'),
    }.items():  # fmt: skip
        headers = {"Content-Type": LINES}
        path = f"/v1/batches?tokens=4&{query}"
        yield raw(f"lines with {name}", line, INVALID, BAD, path=path, headers=headers)


def _webhooks() -> Iterator[Attack]:
    for url in FORBIDDEN_URLS:
        shown = url.encode("ascii", "backslashreplace").decode()[:40]
        content = written({"url": url})
        yield raw(f"endpoint {shown!r}", content, INVALID, path="/v1/webhooks/endpoints")
        yield raw(f"default {shown!r}", content, INVALID, path="/v1/webhooks/default", method="PUT")
        body = written({"prompts": ["hi"], "tokens": 4, "webhook_url": url})
        yield raw(f"batch with {shown!r}", body, INVALID, path="/v1/batches")
    for path in (
        "/v1/admin/accounts",
        "/v1/admin/audit",
        "/v1/admin/accounts/demo/keys",
        "/v1/admin/accounts/%00/ledger",
    ):
        yield Attack(f"GET {path} by a client", b"", frozenset({"403 forbidden"}), "GET", path)
    for deposit in ({"amount": 10**6}, {"amount": -1}, {}):
        path = "/v1/admin/accounts/demo/deposit"
        yield raw(f"a deposit of {deposit}", written(deposit), "403 forbidden", path=path)
