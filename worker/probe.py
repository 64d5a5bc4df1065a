"""`python -m worker.probe FILE`: load a model, decode one token, exit 0. Run as a child, since llama.cpp may abort."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from herder.brief import Sampling
from worker.engine import EngineError, ModelUnusable, Opening, Row, Step
from worker.llama import LlamaEngine


def main() -> int:
    """0 when the model works; 1 and a line on stderr when it does not."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    path = Path(sys.argv[1])
    try:
        engine = LlamaEngine(path, slots=1, context=32)
        prompt = tuple(engine.tokenize("a")[:8]) or (0,)
        engine.step(Step((Row(0, 0, prompt, sample=True),), opens=(Opening(0, Sampling()),)))
    except ModelUnusable as error:
        print(error, file=sys.stderr)
        return 1
    except EngineError as error:
        print(f"{path}: it loads but does not decode ({error})", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
