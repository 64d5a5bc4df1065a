"""Random schemas through a whole herd, hot: `python -m tests.e2e.schemas --count 1000 [--vocabulary llama-spm]`.

Each job has twice the tokens of the shortest answer. The herd runs the built-in model, or random weights on a real
vocabulary, which would write anything. Prints what became of the jobs, and fails for one invalid answer.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from collections import Counter
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from herder.schema_tree import as_text
from herder.schema_words import SchemaRefused
from herder.schemas import tree_from
from llama_herder import AsyncHerder, Job
from tests.e2e.herd import DEMO, Up, herd, short_folder
from tests.engines.random_model import VOCABULARIES, build, vocabulary_file
from tests.random_schemas import random_schema
from worker.llama import LlamaEngine

BUILT_IN = "herd-tiny"
AT_ONCE = 16
ANSWER_S = 300.0
TOKENS_MAX = 400
SUCCEED_LEAST = 0.95


@dataclass(frozen=True)
class Question:
    """A schema, and twice the tokens of its shortest answer."""

    seed: int
    schema: dict[str, Any]
    tokens: int


def model_of(vocabulary: str | None, folder: Path) -> Path:
    """The built-in model, or random weights on this vocabulary."""
    if vocabulary is None:
        return Path(str(files("herder") / "models" / f"{BUILT_IN}.gguf"))
    return build(folder / f"{vocabulary}.gguf", vocabulary_file(vocabulary))


def questions(path: Path, count: int) -> list[Question]:
    """So many supported schemas, from seed 0 on."""
    engine = LlamaEngine(path, slots=1, context=256, threads=1)
    found: list[Question] = []
    seed = 0
    while len(found) < count:
        schema, seed = random_schema(seed), seed + 1
        try:
            text = as_text(tree_from(schema, "$"))
        except SchemaRefused:
            continue
        least = int((engine.ready(text, 0) or "").split("has ")[1].split()[0])
        if 2 * least <= TOKENS_MAX:
            found.append(Question(seed - 1, schema, 2 * least))
    engine.close()
    return found


async def asked(url: str, key: str, wanted: list[Question]) -> Counter[str]:
    """What became of the jobs, in words."""
    told: Counter[str] = Counter()
    turns = asyncio.Semaphore(AT_ONCE)
    async with AsyncHerder(url, api_key=key) as herder:

        async def one(question: Question) -> None:
            async with turns:
                job = await herder.submit(
                    "Say something.",
                    question.tokens,
                    temperature=random.Random(question.seed).uniform(1, 2),
                    seed=question.seed,
                    response_format={"type": "json_schema", "json_schema": {"schema": question.schema}},
                )
                told[became(question, await herder.wait(job, ANSWER_S))] += 1

        await asyncio.gather(*map(one, wanted))
    return told


def became(question: Question, job: Job) -> str:
    """`valid`, `invalid`, or why it failed; money is checked on the way."""
    assert job.result is not None or job.refunded == job.fee, job.raw
    if job.result is None:
        return f"failed: {job.error.code if job.error else job.status}"
    assert job.result.finish_reason == "stop", job.raw
    assert job.captured is not None
    try:
        Draft202012Validator(question.schema).validate(job.output)
    except ValidationError:
        return "invalid"
    return "valid"


def judged(told: Counter[str]) -> None:
    """Raises AssertionError unless no answer was invalid and nearly all came."""
    total = sum(told.values())
    assert told["invalid"] == 0, told
    assert told["valid"] >= SUCCEED_LEAST * total, told


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--vocabulary", choices=VOCABULARIES)
    plan = parser.parse_args()
    with short_folder() as folder:
        path = model_of(plan.vocabulary, folder)
        wanted = questions(path, plan.count)
        with herd("--model", f"asked={path}", slots=8, rate_limit_per_minute=1_000_000) as up:
            told = asyncio.run(asked(up.url, funded(up), wanted))
            up.stop()
    print(f"{plan.vocabulary or BUILT_IN}: {dict(told)}")
    judged(told)


def funded(up: Up) -> str:
    """The demo account's key, with enough credits for any number of small jobs."""
    with up.client("admin") as herder:
        herder.admin.deposit("demo", 10**9)
    return up.keys[DEMO]


if __name__ == "__main__":
    main()
