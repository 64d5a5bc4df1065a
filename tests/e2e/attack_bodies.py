"""Bodies that are none, and numbers, keys, addresses and paths that no honest caller would send."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator

from tests.e2e.attacks import BAD, INVALID, LARGE, SUCCEEDED, Attack, job, nested, number, raw, written

FORBIDDEN_URLS = (
    "http://127.0.0.1/", "http://127.1/", "http://2130706433/", "http://0x7f.1/", "http://0177.0.0.1/",
    "http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/", "http://[64:ff9b::7f00:1]/",
    "http://[2002:7f00:1::]/", "http://0.0.0.0/", "http://169.254.169.254/latest/meta-data/", "http://10.0.0.1/",
    "http://localhost/", "http://127.0.0.78/", "http://a.localhost/", "http://localhost./", "http://LOCALHOST/", "http://①②⑦.⓪.⓪.①/",
    "http://u:p@a.example/", "http://a.example\\@127.0.0.1/", "http://a.example#@127.0.0.1/", "http://a.example:22/",
    "http://a.example:0/", "http://a.example:99999/", "file:///etc/passwd", "gopher://a.example/",
    "javascript:alert(1)",
    "//a.example/", "http://", "http:///a", "http://a.example/\r\nHost: b.example", "http://a b.example/",
    "http://a.example/\x00", "http://[fe80::1%25eth0]/", "https://" + "a" * 254 + ".example/", "unix:///redis.sock",
    "http://a.example/" + "x" * 3_000,
)  # fmt: skip


def attacks() -> Iterator[Attack]:
    """All of them."""
    yield from _bytes()
    yield from _numbers()
    yield from _fields()
    yield from _addresses()
    yield from _paths()


def _bytes() -> Iterator[Attack]:
    fine = written({"prompt": "hi", "tokens": 4})
    for name, content in {
        "nothing": b"", "white space": b" " * 1_000, "NUL": b"\x00", "NULs": b"\x00" * 100_000, "one quote": b'"',
        "half a body": fine[:-3], "two bodies": fine + fine, "a list": b"[1]", "a text": b'"a"', "null": b"null",
        "latin-1": b'{"prompt":"\xe9","tokens":4}', "cut UTF-8": b'{"prompt":"\xf0\x9f\x98","tokens":4}',
        "overlong UTF-8": b'{"prompt":"\xc0\xaf","tokens":4}', "CESU-8": b'{"prompt":"\xed\xa0\x80","tokens":4}',
        "beyond Unicode": b'{"prompt":"\xf4\x90\x80\x80","tokens":4}', "UTF-16": fine.decode().encode("utf-16"),
        "UTF-8 with a mark": b"\xef\xbb\xbf" + fine, "gzip": gzip.compress(fine), "form": b"prompt=hi&tokens=4",
        "single quotes": b"{'prompt':'hi','tokens':4}", "comment": b'{"prompt":"hi",/* */"tokens":4}',
        "bad escape": b'{"prompt":"\\x41","tokens":4}', "raw control": b'{"prompt":"a\x01b","tokens":4}',
        "open lists": b"[" * 1_000_000, "open objects": b'{"a":' * 200_000, "deep list": b"[" * 10**5 + b"]" * 10**5,
        "long integer": b'{"prompt":"hi","tokens":' + b"9" * 5_000 + b"}",
    }.items():  # fmt: skip
        yield raw(f"body: {name}", content, BAD)
    for name, text in {
        "high surrogate": "\\ud800", "low surrogate": "\\udfff", "reversed pair": "\\ude00\\ud83d", "NUL": "a\\u0000b",
    }.items():  # fmt: skip
        for fields in ('"prompt":"%s"', '"prompt":"hi","stop":"%s"', '"prompt":"hi","metadata":{"a":"%s"}',
                       '"prompt":"hi","metadata":{"%s":"a"}',
                       '"messages":[{"role":"user","content":"%s"}]'):  # fmt: skip
            body = "{" + fields % text + ',"tokens":4}'
            yield raw(f"{name} in {fields[:24]}", body.encode(), INVALID)
    yield raw("a pair of surrogates", b'{"prompt":"\\ud83d\\ude00","tokens":4}', SUCCEEDED)
    yield raw("a body of 4 MB and one", b" " * 4_000_001, LARGE)
    yield raw("4 MB of white space around it", b" " * 3_900_000 + fine, SUCCEEDED)
    for name, content in {
        "tokens": b'{"prompt":"hi","tokens":4,"tokens":5}', "prompt": b'{"prompt":"a","prompt":"b","tokens":4}',
        "within": b'{"prompt":"hi","tokens":4,"metadata":{"a":"1","a":"2"}}',
        "escaped": b'{"prompt":"hi","tokens":4,"t\\u006fkens":5}',
        "bias": b'{"prompt":"hi","tokens":4,"logit_bias":{"5":1,"5":2}}',
    }.items():  # fmt: skip
        yield raw(f"twice: {name}", content, INVALID)


def _numbers() -> Iterator[Attack]:
    for text in (
        "1e400",
        "-1e400",
        "1e999999999",
        "1e99999999999999999999",
        "1e-99999999999999999999",
        "9" * 400,
        "NaN",
        "Infinity",
        "-Infinity",
    ):
        for name in ("temperature", "repeat_penalty", "multiplier", "fee", "tokens", "seed"):
            yield job(f"{name} is {text[:24]}", INVALID, **{name: number(text)})
        yield job(f"a bias is {text[:24]}", INVALID, logit_bias={"5": number(text)})
    for name, texts in {
        "temperature": ("-0.1", "2.0001", '"1"', "true", "[]"), "top_p": ("0", "1.1"), "min_p": ("-1", "2"),
        "typical_p": ("0", "-1"), "top_k": ("-1", "1000001", "1.0", "4294967296"),
        "repeat_penalty": ("0", "0.01", "11"),
        "frequency_penalty": ("-3", "3"), "presence_penalty": ("-3", "3"), "penalty_tokens": ("-1", "4097"),
        "seed": ("-1", "4294967296", "0.5", '"0"'), "n": ("0", "5", "-1", "1000000"), "logprobs": ("-1", "21"),
        "tokens": ("0", "-1", "8193", "4.0", '"4"', "true", "9007199254740993", "18446744073709551616"),
        "multiplier": ("0", "0.999", "1.0005", "100.001", "-1", '"2"'), "fee": ("-1", "9007199254740993", "1.5"),
    }.items():  # fmt: skip
        for text in texts:
            yield job(
                f"{name} is {text}", INVALID, **{name: json.loads(text) if text[0] == '"' else number(text)}
            )
    yield raw(
        "a number of 65 digits", b'{"prompt":"hi","tokens":4,"temperature":0.' + b"1" * 64 + b"}", INVALID
    )


def _fields() -> Iterator[Attack]:
    yield raw("10 000 unknown fields", written({f"f{i}": i for i in range(10_000)}), INVALID)
    yield job("an unknown field", INVALID, max_tokens=5)
    for name in ("__class__", "__proto__", "model_config", "\ud83d", "a" * 100_000, ""):
        yield job(f"a field called {name[:12]!r}", INVALID, **{name: 1})
    yield job("17 metadata", INVALID, metadata={f"m{i}": "v" for i in range(17)})
    yield job("long metadata", INVALID, metadata={"m": "é" * 257})
    yield job("a long name in metadata", INVALID, metadata={"m" * 65: "v"})
    yield job("100 000 metadata", INVALID, metadata={f"m{i}": "v" for i in range(100_000)})
    for depth in (10, 300, 900):
        yield job(f"metadata {depth} deep", INVALID, metadata=nested(depth, "v", "m"))
        yield job(f"a prompt {depth} deep", INVALID, prompt=nested(depth))
        yield job(f"a stop {depth} deep", INVALID, stop=nested(depth, "a"))
        yield job(f"a bias {depth} deep", INVALID, logit_bias=nested(depth, 1, "5"))
    yield job("metadata at its limits", SUCCEEDED, metadata={f"{i:0>64}": "é" * 256 for i in range(16)})
    yield job("an unknown model", "404 unknown_model", model="../../etc/passwd")
    yield job("a model of NUL", INVALID, model="herd-tiny\x00")
    yield job("a long model", INVALID, model="m" * 257)
    yield job("a model of keys", "404 unknown_model", model="herd-tiny}:queue{")
    yield job("fee and multiplier", INVALID, fee=100, multiplier=2)
    yield job("a fee too low", "402 fee_too_low", fee=1)
    yield job("a ceiling too low", "402 max_fee_exceeded", max_fee=1)
    yield job("more than there is", "402 insufficient_funds", tokens=900, n=4, multiplier=100)


def _addresses() -> Iterator[Attack]:
    for url in FORBIDDEN_URLS:
        shown = url.encode("ascii", "backslashreplace").decode()
        yield job(f"webhook {shown[:50]!r}", INVALID, webhook_url=url)


def _paths() -> Iterator[Attack]:
    for path in ("/v1/jobs/%00", "/v1/jobs/..%2f..%2fetc", "/v1/jobs/" + "j" * 5_000, "/v1/jobs/job_*",
                 "/v1/jobs/%ff%fe",
                 "/v1/jobs/job_0aZ3hK9xQvTn5WdE8rYb2c", "/v1/jobs/%7Bjob%7D", "/v1/batches/batch_%00", "/v2/jobs",
                 "/v1/jobs/a/events", "/v1/jobs//", "/v1/webhooks/endpoints/ep_%0d%0a"):  # fmt: skip
        yield Attack(f"GET {path[:40]}", b"", frozenset({"404 not_found"}), "GET", path)
    for query in ("wait=-1", "wait=nan", "wait=inf", "wait=1e9", "wait=a"):
        yield Attack(f"GET with {query}", b"", frozenset({INVALID}), "GET", f"/v1/jobs/job_x?{query}")
    for query in ("limit=0", "limit=101", "limit=-1", "limit=a", "limit=1e2"):
        yield Attack(f"GET with {query}", b"", frozenset({INVALID}), "GET", f"/v1/jobs?{query}")
    for query in ("max_fee=1", "tokens=5", "stream=maybe", "cancel_on_disconnect=true"):
        yield raw(
            f"POST with {query}", written({"prompt": "hi", "tokens": 4}), INVALID, path=f"/v1/jobs?{query}"
        )
    for method in ("PUT", "PATCH", "TRACE"):
        yield Attack(f"{method} of jobs", b"", frozenset({"405 method_not_allowed"}), method)
    for key in ("", "k" * 256, "k k", "k\tk"):
        content = written({"prompt": "hi", "tokens": 4})
        yield raw(f"Idempotency-Key {key[:4]!r}", content, INVALID, headers={"Idempotency-Key": key})
    for header in ({"Authorization": "Bearer hk_" + "x" * 36}, {"Authorization": "Bearer " + "x" * 9_000},
                   {"Authorization": "Basic ****"}, {"Authorization": "Digest a"}, {"Authorization": ""}):  # fmt: skip
        becomes = frozenset({"401 invalid_key", "401 missing_key"})
        yield Attack(f"{str(header)[:40]}", b"{}", becomes, headers=header)
