"""What is done for a leased job beside the running step: its prompt is cut into tokens, its schema is made ready."""

from __future__ import annotations

from worker.engine import Engine
from worker.sequence import SCHEMA_ERROR, Sequence


def read(engine: Engine, answers: list[Sequence]) -> list[int]:
    """The prompt's tokens. Where no answer can fit the job's schema, its answers have failed. May take long."""
    lease = answers[0].lease
    schema = lease.brief.schema
    refusal = None if schema is None else engine.ready(schema, lease.tokens)
    if refusal is not None:
        for answer in answers:
            answer.fail(SCHEMA_ERROR, refusal)
    return engine.tokenize(lease.brief.prompt)
