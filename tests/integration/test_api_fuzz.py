"""Schemathesis against a live herder: whatever is sent, no 5xx and no response that OpenAPI does not declare.

What it prints at the end is how many of the requests reached the happy path, route by route: a fuzzer that only ever
meets refusals would prove nothing, so too small a share fails.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import httpx
import pytest

from herder.audit import audit
from herder.broker import connect
from herder.records import AuditReport
from herder.settings import Settings
from tests.integration.live import Live, live

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,unsupported_method,allow_header_conformance,ignored_auth"
)
CLIENT_S, ADMIN_S = 40, 15
SHARE_MIN = 0.10
# Each of these must have been answered with a 2xx at least once.
REACHED = (
    "POST /v1/jobs",
    "POST /v1/quote",
    "GET /v1/jobs",
    "GET /v1/jobs/{job_id}",
    "GET /v1/account/ledger",
)

_SAMPLE = re.compile(
    r'^herder_requests_total\{method="(\w+)",route="(.*?)",status="(\d+)"\} (\S+)$', re.MULTILINE
)


def fuzz(herder: Live, key: str, seconds: int, folder: Path, *options: str) -> None:
    """One run in a process of its own; fails with what it printed."""
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", f"{herder.url}/openapi.json",
        "--header", f"Authorization: Bearer {key}", "--checks", CHECKS, "--max-time", str(seconds),
        "--continue-on-failure", "--no-shrink", "--seed", "1", "--request-timeout", "20", "--warnings", "off",
        "--suppress-health-check", "all", *options,
    ]  # fmt: skip
    env = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    done = subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=seconds * 3 + 30, check=False
    )
    assert done.returncode == 0, done.stdout[-12_000:] + done.stderr[-4_000:]


def tally(herder: Live) -> dict[str, dict[int, int]]:
    """The herder's own count: status → requests, by method and route."""
    text = httpx.get(f"{herder.url}/metrics", trust_env=False).text
    counts: dict[str, dict[int, int]] = defaultdict(dict)
    for method, route, status, value in _SAMPLE.findall(text):
        # Probes for methods that a route does not have are right to be refused.
        if route.startswith("/v1/") and status != "405":
            counts[f"{method} {route}"][int(status)] = int(float(value))
    return counts


async def books(settings: Settings) -> AuditReport:
    """The audit, from beside the herder: the fuzzer may have revoked every key there was."""
    broker = await connect(settings)
    try:
        return await audit(broker)
    finally:
        await broker.close()


@pytest.mark.timeout(240)
def test_schemathesis_finds_no_5xx_and_nothing_undeclared(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Small caps, so that time goes into many requests and not into making a few huge ones.
    limits = {
        "wait_s_max": 1,
        "prompt_bytes_max": 2_000,
        "body_bytes_max": 20_000,
        "rate_limit_per_minute": 10**6,
        "auth_failures_per_minute": 10**6,
    }
    with live(settings.model_copy(update=limits)) as herder:
        # 1. A funded client, on everything; stateful too: jobs that are read, waited for, cancelled.
        fuzz(herder, herder.key, CLIENT_S, tmp_path, "--exclude-path-regex", "^/v1/admin")
        # 2. An administrator. Not stateful, since it would find and revoke its own key at once.
        fuzz(herder, herder.admin_key, ADMIN_S, tmp_path, "--include-path-regex", "^/v1/admin",
             "--phases", "examples,coverage,fuzzing")  # fmt: skip
        counts = tally(herder)
        report = asyncio.run(books(settings))
    sent = sum(sum(statuses.values()) for statuses in counts.values())
    fine = {route: sum(n for status, n in found.items() if status < 300) for route, found in counts.items()}
    with capsys.disabled():
        print(f"\nschemathesis: {sum(fine.values())} of {sent} requests reached the happy path")
        for route, statuses in sorted(counts.items()):
            total = sum(statuses.values())
            share, by_status = f"{fine[route] / total:.0%}", dict(sorted(statuses.items()))
            print(f"  {route:<52} {fine[route]:>5} of {total:>5} {share:>5}  {by_status}")
    assert not [status for statuses in counts.values() for status in statuses if status >= 500]
    assert all(fine[route] for route in REACHED), "some route never got past its refusals"
    assert sum(fine.values()) / sent >= SHARE_MIN
    assert report.clean, report.problems
    assert report.revenue > 0, "no job was ever paid for"
