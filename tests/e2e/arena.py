"""Where attacks are sent: over HTTP, each answer compared with what OpenAPI declares and what may become of it.

Knows nothing of what the attacks mean. A fault is written down and the next attack is sent.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from typing import Any

import httpx

from tests.e2e.attacks import JOBS, Attack

ANSWER_S = 180.0
WAIT_S = 20
OVERLOADED = "503 overloaded"
TRIES = 5


class Arena:
    """One caller. `accepted` and `items` are its jobs; `faults` what was not as it must be, in words."""

    def __init__(self, http: httpx.AsyncClient, key: str, stranger: str) -> None:
        self.http = http
        self.url = str(http.base_url)
        self.key, self.stranger = key, stranger
        self.accepted: set[str] = set()
        self.items: list[str] = []
        self.faults: list[str] = []
        self.became: Counter[str] = Counter()
        self.sent = self.controls = self.overloads = 0
        self._declared: list[tuple[str, re.Pattern[str], dict[str, Any]]] = []

    async def ready(self) -> None:
        """Learn what the herd declares."""
        paths = (await self.http.get("/openapi.json")).json()["paths"]
        for path, methods in paths.items():
            pattern = re.compile(re.sub(r"\{\w+\}", "[^/]+", path))
            self._declared += [(method.upper(), pattern, it["responses"]) for method, it in methods.items()]

    def expect(self, true: object, what: str) -> None:
        """Write down what is not so."""
        if not true:
            self.faults.append(what[:600])

    async def send(self, attack: Attack) -> None:
        """One attack, to the end of its job."""
        await self._judged(attack)

    async def answered(self, attack: Attack) -> Any:
        """The same; the job. Raises AssertionError where there is none."""
        shown = await self._judged(attack)
        assert shown.get("result"), f"{attack.name}: {shown}"
        return shown

    async def posted(self, attack: Attack) -> Any:
        """Only until it was accepted. Raises AssertionError where it is not."""
        self._count(attack)
        response = await self._response(attack)
        assert response.status_code == 202, f"{attack.name}: {response.text[:500]}"
        self.became["accepted"] += 1
        shown = response.json()
        if attack.path.startswith(JOBS):
            self.accepted.add(shown["id"])
        return shown

    async def ended(self, job_id: str) -> Any:
        """A job at its end. Raises TimeoutError where that does not come."""
        async with asyncio.timeout(ANSWER_S):
            while True:
                response = await self.http.get(
                    f"{JOBS}/{job_id}?wait={WAIT_S}", headers={"X-API-Key": self.key}
                )
                shown = response.json()
                if shown.get("status") not in ("queued", "running"):
                    return shown

    async def status(self, method: str, path: str, key: str | None = None) -> int:
        """The status of a request without a body."""
        response = await self.http.request(method, path, headers={"X-API-Key": key or self.key})
        self._as_declared(f"{method} {path[:40]}", method, path, response)
        return response.status_code

    async def text(self, path: str) -> str:
        """What stands there."""
        return (await self.http.get(path, headers={"X-API-Key": self.key}, timeout=ANSWER_S)).text

    def _count(self, attack: Attack) -> None:
        self.sent += 1
        self.controls += attack.control

    async def _response(self, attack: Attack) -> httpx.Response:
        headers = {} if "Authorization" in attack.headers else {"X-API-Key": self.key}
        for _ in range(TRIES):
            response = await self.http.request(
                attack.method, attack.path, content=attack.content, headers=headers | dict(attack.headers)
            )
            self._as_declared(attack.name, attack.method, attack.path, response)
            if response.status_code != 503:
                return response
            self.overloads += 1  # schemas and chats have their turns, and these may be taken
        raise AssertionError(f"{TRIES} times {OVERLOADED}")

    def _as_declared(self, name: str, method: str, path: str, response: httpx.Response) -> None:
        status = response.status_code
        routes = [it for made_for, pattern, it in self._declared
                  if made_for == method and pattern.fullmatch(path.partition("?")[0])]  # fmt: skip
        known = not routes or any(str(status) in it for it in routes)
        self.expect(known, f"{name}: {status} is not declared")
        problem = response.headers.get("content-type", "").startswith("application/problem+json")
        self.expect(
            status < 400 or problem, f"{name}: {status} {response.text[:100]!r} is no problem document"
        )
        self.expect(status < 500 or _code(response) == OVERLOADED, f"{name}: {status} {response.text[:300]}")

    async def _judged(self, attack: Attack) -> Any:
        self._count(attack)
        try:
            response = await self._response(attack)
            became, shown = _code(response), _json(response)
            if response.status_code == 202 and attack.path.startswith(JOBS):
                self.accepted.add(shown["id"])
                shown = await self.ended(shown["id"])
                became = shown.get("status", "unknown")
                became += f" {shown['error']['code']}" if shown.get("error") else ""
            self.became[became] += 1
            wanted = " or ".join(sorted(attack.becomes))
            self.expect(
                became in attack.becomes, f"{attack.name}: {became}, not {wanted}: {str(shown)[:300]}"
            )
            if attack.check is not None and became in attack.becomes:
                self.expect(attack.check(shown), f"{attack.name}: is wrong: {str(shown)[:300]}")
            return shown
        except Exception as error:  # one attack that goes wrong must not end the others
            self.faults.append(f"{attack.name}: {type(error).__name__} {str(error)[:300]}")
            return {}


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except json.JSONDecodeError:
        return {}


def _code(response: httpx.Response) -> str:
    return f"{response.status_code} {_json(response).get('code', '')}".strip()
