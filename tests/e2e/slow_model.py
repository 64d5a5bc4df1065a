"""A model that takes its time: random weights on herd-tiny's vocabulary, large enough to be killed in mid-answer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

from llama_herder import Herder
from tests.engines.random_model import Shape, build

NAME = "slow"
CONTEXT = 4096
SPECIAL = 5  # of herd-tiny's tokens, the one that ends an answer among them: never the likeliest
SHAPE = Shape(embedding=384, layers=6, heads=6, feed_forward=1024, mute=SPECIAL)
PROBE_TOKENS = 48
PROBE_S = 120.0


def slow_model(folder: Path) -> str:
    """Write it; returns what `--model` takes."""
    vocabulary = Path(str(files("herder") / "models" / "herd-tiny.gguf"))
    return f"{NAME}={build(folder / 'slow.gguf', vocabulary, context=CONTEXT, shape=SHAPE)}"


def tokens_for(herder: Herder, seconds: float, at_once: int) -> int:
    """How many tokens an answer takes so long for, with so many jobs at once; measured, since machines differ."""

    def warm_up(_: int) -> float:
        job = herder.run("Warm up.", tokens=PROBE_TOKENS, temperature=0.8, ignore_eos=True, timeout=PROBE_S)
        assert job.result
        return ((job.ended_ms or 0) - (job.started_ms or 0)) / max(1, job.result.completion_tokens)

    with ThreadPoolExecutor(at_once) as pool:
        ms_per_token = max(pool.map(warm_up, range(at_once)))
    return max(PROBE_TOKENS, min(CONTEXT * 3 // 4, round(seconds * 1000 / max(1.0, ms_per_token))))
