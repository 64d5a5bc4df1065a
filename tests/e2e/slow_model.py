"""A model that takes its time: random weights on herd-tiny's vocabulary, large enough to be killed in mid-answer."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

from llama_herder import Herder
from tests.engines.random_model import Shape, build

NAME = "slow"
CONTEXT = 2048
SHAPE = Shape(embedding=384, layers=6, heads=6, feed_forward=1024)
PROBE_TOKENS = 32


def slow_model(folder: Path) -> str:
    """Write it; returns what `--model` takes."""
    vocabulary = Path(str(files("herder") / "models" / "herd-tiny.gguf"))
    return f"{NAME}={build(folder / 'slow.gguf', vocabulary, context=CONTEXT, shape=SHAPE)}"


def tokens_for(herder: Herder, seconds: float, at_once: int) -> int:
    """How many tokens an answer takes so long for, with so many jobs at once; measured, since machines differ."""
    began = time.monotonic()
    with ThreadPoolExecutor(at_once) as pool:
        jobs = list(
            pool.map(lambda _: herder.run("Warm up.", tokens=PROBE_TOKENS, timeout=120), range(at_once))
        )
    took = time.monotonic() - began
    produced = max(job.result.completion_tokens for job in jobs if job.result)
    return max(PROBE_TOKENS, min(CONTEXT // 2, round(seconds * produced / took)))
