"""A reader that is cut again and again, at two herders in turn, ends with the real model's answer, byte for byte."""

from __future__ import annotations

import http.client
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from herder.broker import Broker
from tests.e2e.herd import DEMO
from tests.e2e.parts import Parts, in_parts
from tests.integration.streaming import Event, events_of, text_of

CUTS = 50
PIECE_BYTES_MAX = 400  # of a stream, before it is cut: up to three events
PLACES_LEAST = 20  # in the answer, at which it was cut
PROMPT = "Count from 1 to 80."
COMPANY = 48  # jobs beside it, so that its tokens come one by one and not forty at once
TOKENS = 300
READ_S = 60
SEED = 20_261_121


@dataclass
class Cut:
    """A reader by hand: what it has of one answer, and how often it was cut before it had all."""

    key: str
    job: str
    events: list[Event] = field(default_factory=list)
    cuts: int = 0

    @property
    def whole(self) -> bool:
        """Whether the last event is there."""
        return bool(self.events) and self.events[-1].kind in ("done", "error")

    def read(self, url: str, limit: int | None) -> None:
        """Come back for what follows; close the socket after so many bytes of it (None: read on to the end)."""
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=READ_S)
        ids = [event.event_id for event in self.events if event.event_id]
        headers = {"X-API-Key": self.key} | ({"Last-Event-ID": ids[-1]} if ids else {})
        try:
            connection.request("GET", f"/v1/jobs/{self.job}/events", headers=headers)
            reply = connection.getresponse()
            assert reply.status == 200, reply.read()
            raw = b"".join(_pieces(reply, limit))
        finally:
            connection.close()
        # What was cut in the middle of an event, or of a letter, was not read.
        self.events += events_of(raw[: raw.rfind(b"\n\n") + 2].decode())
        self.cuts += not self.whole


def _pieces(reply: http.client.HTTPResponse, limit: int | None) -> Iterator[bytes]:
    if limit is None:
        yield reply.read()
        return
    while limit and (piece := reply.read1(limit)):
        limit -= len(piece)
        yield piece


async def _ids(broker: Broker, job: str) -> list[str]:
    return [event.event_id for event in await broker.events(job, limit=10_000)]


def submitted(parts: Parts, url: str) -> str:
    """The job's id; others stand before and behind it."""
    parts.url = url
    with parts.client() as herder:
        jobs = [
            herder.submit(
                PROMPT if i == COMPANY // 2 else "Tell me a long story about a llama.", tokens=TOKENS
            )
            for i in range(COMPANY + 1)
        ]
    return jobs[COMPANY // 2].id


def test_fifty_cuts_in_one_answer_at_two_herders_lose_and_repeat_nothing() -> None:
    places = random.Random(SEED)
    with in_parts() as parts:
        urls = [parts.herder()[1] for _ in range(2)]
        parts.worker("--model", "herd-tiny", "--slots", str(COMPANY + 1))
        reader = Cut(parts.keys[DEMO], submitted(parts, urls[0]))
        places_cut = set()
        while reader.cuts < CUTS:
            assert not reader.whole, f"all was read after {reader.cuts} cuts"
            reader.read(urls[reader.cuts % 2], places.randint(1, PIECE_BYTES_MAX))
            places_cut.add(len(reader.events))
        assert len(places_cut) >= PLACES_LEAST, places_cut
        reader.read(urls[CUTS % 2], None)
        assert reader.cuts == CUTS, "the last one was read to its end, and all before were not"

        with parts.client() as herder:
            job = herder.wait(reader.job, timeout=READ_S)
        assert job.status == "succeeded"
        assert job.result
        assert text_of(reader.events).encode() == job.result.text.encode()
        assert len(job.result.text) > 200
        ids = [event.event_id for event in reader.events if event.event_id]
        assert ids == parts.ask(lambda broker: _ids(broker, reader.job)), "each once, in order, none left out"
