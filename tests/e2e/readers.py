"""Clients of several herders at once, as behind a load balancer: they come back wherever they are let in.

Plain HTTP, so that what is proved is the herders' and not the library's: an idempotency key, and `Last-Event-ID`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

PAUSE_S = 0.05
TURNS_MAX = 4_000
READ_S = 30.0


@dataclass
class Read:
    """What somebody has who followed a job: the text since the last restart, every event's id, how often cut off."""

    text: str = ""
    ids: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    job: dict[str, Any] = field(default_factory=dict)
    cuts: int = 0


class Balanced:
    """One client; every request goes to the next herder in turn."""

    def __init__(self, urls: Sequence[str], key: str, first: int = 0) -> None:
        self._urls, self._turn = urls, first
        self._http = httpx.Client(headers={"Authorization": f"Bearer {key}"}, timeout=READ_S)
        self._tick = threading.Event()

    def close(self) -> None:
        """Hang up."""
        self._http.close()

    def submit(self, body: dict[str, Any], idempotency_key: str) -> str:
        """A job's id, paid once however often it was sent."""
        for url in self._turns():
            try:
                headers = {"Idempotency-Key": idempotency_key}
                reply = self._http.post(f"{url}/v1/jobs", json=body, headers=headers)
            except httpx.TransportError:
                continue
            if reply.status_code != 503:
                assert reply.status_code in (200, 201, 202), reply.text
                return str(reply.json()["id"])
        raise AssertionError("no herder takes it")

    def follow(self, job_id: str, read: Read | None = None) -> Read:
        """Every event of a job, wherever the line breaks; `read` may be watched meanwhile."""
        read = read or Read()
        for url in self._turns():
            headers = {"Last-Event-ID": read.ids[-1]} if read.ids else {}
            try:
                with self._http.stream("GET", f"{url}/v1/jobs/{job_id}/events", headers=headers) as reply:
                    if reply.status_code == 200:
                        for frame in _frames(reply.iter_lines()):
                            _take(read, frame)
                    else:
                        assert reply.status_code == 503, reply.read()
            except httpx.TransportError:
                pass
            if read.job:
                return read
            read.cuts += 1
        raise AssertionError(f"{job_id} has no end")

    def wait(self, job_id: str) -> dict[str, Any]:
        """The job as it ended, by long polls."""
        for url in self._turns():
            try:
                reply = self._http.get(f"{url}/v1/jobs/{job_id}", params={"wait": 20})
            except httpx.TransportError:
                continue
            if reply.status_code == 200 and reply.json()["ended_ms"]:
                job: dict[str, Any] = reply.json()
                return job
            assert reply.status_code in (200, 503), reply.text
        raise AssertionError(f"{job_id} has no end")

    def _turns(self) -> Iterator[str]:
        for _ in range(TURNS_MAX):
            self._turn += 1
            yield self._urls[self._turn % len(self._urls)]
            self._tick.wait(PAUSE_S)


def _frames(lines: Iterator[str]) -> Iterator[dict[str, str]]:
    frame: dict[str, str] = {}
    for line in lines:
        if not line:
            if "event" in frame:  # whole: what is cut off in the middle has not been said
                yield frame
            frame = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            frame[name] = value


def _take(read: Read, frame: dict[str, str]) -> None:
    kind, told = frame["event"], json.loads(frame["data"])
    read.kinds.append(kind)
    if "id" in frame:
        read.ids.append(frame["id"])
    if kind == "restarted":
        read.text = ""
    elif kind == "tokens":
        read.text += told["text"]
    elif kind in {"done", "error"}:
        read.job = told
