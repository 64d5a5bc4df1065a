"""Answers that must fit a schema, on real vocabularies and models that would write anything: none is cut off."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from herder.brief import Brief, Sampling
from herder.counting import Counter
from herder.pricing import Terms
from herder.protocol import FinishReason, Lease
from herder.schema_tree import as_text, shortest
from herder.schema_words import SchemaRefused
from herder.schemas import tree_from
from tests.engines.bench import MeasuredEngine
from tests.random_schemas import random_schema
from worker.scheduler import Scheduler
from worker.sequence import SCHEMA_ERROR, Sequence, sequences_of

PERSON = {
    "type": "object",
    "properties": {"age": {"type": "integer"}, "units": {"type": "string"}},
    "required": ["age", "units"],
}
RANDOM_SCHEMAS = 24


def typed(
    schema: object, tokens: int, *, temperature: float = 1.5, seed: int = 1, n: int = 1, **more: object
) -> Lease:
    """A lease of an answer that must fit."""
    sampling = Sampling(temperature=temperature, seed=seed, **more)  # type: ignore[arg-type]
    brief = Brief("How old are you?", sampling=sampling, n=n, schema=as_text(tree_from(schema, "$")))
    return Lease(f"typed_{seed}_{tokens}", 1, "alice", brief, tokens, Terms(10, 1, 34, 34))


def answered(engine: MeasuredEngine, *leases: Lease) -> list[Sequence]:
    """The jobs' answers, all made together, on an emptied cache."""
    scheduler = Scheduler(engine.facts)
    sequences = [sequence for lease in leases for sequence in sequences_of(lease)]
    for sequence in sequences:
        sequence.read(engine.tokenize(sequence.lease.brief.prompt))
        scheduler.admit(sequence)
    clean = tuple((slot, 0) for slot in range(engine.facts.sequences))
    while (step := scheduler.plan()) is not None:
        drawn = engine.step(replace(step, trims=clean + step.trims))
        clean = ()
        scheduler.apply(step, drawn, 5.0, engine.piece, engine.ends)
    return sequences


def least_tokens(engine: MeasuredEngine, schema: object) -> int:
    """How many tokens a shortest answer has here, as `ready` says it."""
    why = engine.ready(as_text(tree_from(schema, "$")), 0)
    assert why is not None
    return int(why.split("has ")[1].split()[0])


async def test_the_herder_counts_a_shortest_answer_as_the_worker_does(
    engine: MeasuredEngine, model_file: Path
) -> None:
    async def fetch(model: str) -> bytes:
        return await asyncio.to_thread(model_file.read_bytes)

    schemas = [PERSON]
    for seed in range(10):
        with contextlib.suppress(SchemaRefused):
            tree_from(random_schema(seed), "$")
            schemas.append(random_schema(seed))
    assert len(schemas) > 3
    counter = Counter(fetch)
    try:
        counted = [await counter.cut("any", shortest(tree_from(schema, "$")).decode()) for schema in schemas]
    finally:
        await counter.close()
    assert counted == [least_tokens(engine, schema) for schema in schemas]


@pytest.mark.parametrize("temperature", [0.0, 1.0, 2.0])
def test_whatever_the_budget_the_answer_is_whole(engine: MeasuredEngine, temperature: float) -> None:
    """From the tokens that the shortest answer has, one by one: none is cut off, and all end by themselves."""
    least = least_tokens(engine, PERSON)
    for first in range(least, least + 12, 4):
        leases = [
            typed(PERSON, tokens, temperature=temperature, seed=tokens) for tokens in range(first, first + 4)
        ]
        for sequence in answered(engine, *leases):
            assert sequence.failure is None, sequence.failure
            assert sequence.finish is FinishReason.STOP
            assert sequence.produced <= sequence.lease.tokens
            answer = json.loads(sequence.text)
            assert list(answer) == ["age", "units"]
            assert type(answer["age"]) is int


def test_too_small_a_budget_is_said_before_anything_is_decoded(engine: MeasuredEngine) -> None:
    """One token less than the shortest answer has."""
    least = least_tokens(engine, PERSON)
    text = as_text(tree_from(PERSON, "$"))
    assert engine.ready(text, least) is None
    assert engine.ready(text, least - 1) == (
        f"the shortest answer that fits the schema has {least} tokens here, tokens is {least - 1}"
    )
    (sequence,) = answered(engine, typed(PERSON, least - 1))
    assert sequence.failure is not None
    assert sequence.failure.code == SCHEMA_ERROR


def test_random_schemas_are_kept_to(engine: MeasuredEngine) -> None:
    """Twice the tokens of the shortest answer, random weights or a tiny model, hot: every answer is valid."""
    rng = random.Random(7)
    leases, wanted = [], []
    for seed in range(RANDOM_SCHEMAS):
        schema = random_schema(seed)
        try:
            tokens = 2 * least_tokens(engine, schema)
        except SchemaRefused:
            continue
        leases.append(typed(schema, tokens, temperature=rng.uniform(1, 2), seed=seed))
        wanted.append(schema)
    assert len(leases) > RANDOM_SCHEMAS * 0.8
    for first in range(0, len(leases), 4):
        for sequence, schema in zip(
            answered(engine, *leases[first : first + 4]), wanted[first : first + 4], strict=True
        ):
            assert sequence.failure is None, (schema, sequence.failure)
            Draft202012Validator(schema).validate(json.loads(sequence.text))


def test_every_one_of_several_answers_fits(engine: MeasuredEngine) -> None:
    """n answers, each with its own random stream."""
    answers = answered(engine, typed(PERSON, 40, n=3))
    assert len(answers) == 3
    for sequence in answers:
        assert set(json.loads(sequence.text)) == {"age", "units"}


def test_neither_bias_nor_a_forbidden_end_leads_astray(engine: MeasuredEngine) -> None:
    """A bias that wants another token everywhere, and `ignore_eos`: the grammar has the last word."""
    favourite = ((engine.tokenize("the")[-1], 100.0),)
    (sequence,) = answered(engine, typed(PERSON, 30, logit_bias=favourite, ignore_eos=True))
    assert sequence.finish is FinishReason.STOP
    assert set(json.loads(sequence.text)) == {"age", "units"}


def test_a_neighbour_is_not_touched_by_a_grammar(engine: MeasuredEngine) -> None:
    """The same untyped job alone and beside a typed one gives the same text."""
    free = Lease("free", 1, "alice", Brief("Tell me about llamas"), 16, Terms(10, 1, 34, 34))
    alone = answered(engine, free)[0]
    beside, _ = answered(engine, free, typed(PERSON, 30))
    assert beside.text[:8] == alone.text[:8]


def test_a_schema_that_is_none_fails_that_job_only(engine: MeasuredEngine) -> None:
    """What a herder of another version might send."""
    for schema in ('{"type": "pattern"}', "{", '{"x-guidance": {}}', "[" * 100_000):
        assert engine.ready(schema, 100)
    brief = Brief("Hello", schema='{"type": "pattern"}')
    broken = Lease("broken", 1, "alice", brief, 10, Terms(10, 1, 34, 34))
    failed, well = answered(engine, broken, typed(PERSON, 30))
    assert failed.failure is not None
    assert failed.failure.code == SCHEMA_ERROR
    assert well.failure is None
    assert json.loads(well.text)
