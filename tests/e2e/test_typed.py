"""Typed answers through a whole herd: from the command line, of a batch, refunded where none can be."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from llama_herder import InvalidRequest, Tokens
from tests.e2e import schemas
from tests.e2e.books import closed_books
from tests.e2e.herd import DEMO, ROOT, Up, herd

SOME = 30


@pytest.fixture(scope="module")
def up() -> Iterator[Up]:
    with herd(rate_limit_per_minute=1_000_000) as running:
        yield running
        running.stop()


def test_from_the_command_line(up: Up) -> None:
    flags = ["--tokens", "30", "--output-type", '{"age": "int", "units": "str"}', "--url", up.url]
    ran = subprocess.run(
        [sys.executable, "-m", "llama_herder.cli.main", "run", "How old are you?", *flags],
        env=os.environ | {"HERDER_API_KEY": up.keys[DEMO], "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    answer = json.loads(ran.stdout)
    assert list(answer) == ["age", "units"]
    assert type(answer["age"]) is int


def test_of_a_batch_and_of_several_answers_every_one_fits(up: Up) -> None:
    with up.client() as herder:
        jobs = [
            herder.run("hi", 24, n=3, temperature=2.0, output_type={"ok": "bool", "why": "str"}, timeout=60),
            *herder.map(["a", "b"], tokens=16, output_type={"color": ["red", "green"]}),
        ]
    assert jobs[0].result is not None
    for choice in jobs[0].result.choices:
        assert type(choice.output["ok"]) is bool
        assert type(choice.output["why"]) is str
    for job in jobs[1:]:
        assert job.result is not None
        assert job.result.output["color"] in ("red", "green")


def test_a_stream_is_silent_until_the_answer_is_whole(up: Up) -> None:
    with up.client() as herder, herder.stream("hi", 40, output_type={"a": "str", "b": "int"}) as events:
        texts = [event.text for event in events if isinstance(event, Tokens)]
    assert len(texts) == 1
    assert list(json.loads(texts[0])) == ["a", "b"]


def test_too_few_tokens_are_refused_with_the_number_that_is_enough(up: Up) -> None:
    """The herder counts as the worker does: one fewer is refused and held nothing, and so many are answered."""
    wanted = {"age": "int", "units": "str"}
    with up.client() as herder:
        before = herder.account().available
        with pytest.raises(InvalidRequest) as refused:
            herder.submit("hi", 6, output_type=wanted)
        with pytest.raises(InvalidRequest, match="the shortest answer"):
            herder.quote("hi", 6, output_type=wanted)
        with pytest.raises(InvalidRequest, match="the shortest answer") as quoted:
            herder.quote("hi", 1, output_type=wanted)
        assert quoted.value.extra["limit"] == refused.value.extra["limit"]
        assert herder.account().available == before
        needed = int(refused.value.extra["limit"])
        with pytest.raises(InvalidRequest):
            herder.submit("hi", needed - 1, output_type=wanted)
        job = herder.run("hi", needed, output_type=wanted, timeout=60)
        assert list(job.output) == list(wanted)
    closed_books(up, [job.id])


def test_random_schemas(up: Up) -> None:
    path = schemas.model_of(None, up.folder)
    wanted = schemas.questions(path, SOME)
    told = asyncio.run(schemas.asked(up.url, schemas.funded(up), wanted))
    assert sum(told.values()) == SOME
    schemas.judged(told)
