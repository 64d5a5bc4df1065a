"""`python -m worker.probe FILE WANTED`: load a model as it is wanted, decode one token, exit 0.

Run as a child, since llama.cpp may abort. Memory that is not there is an allocation that fails here, where the real
worker's would be granted and its process, or another, be killed for it later.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from herder.brief import Sampling
from worker.engine import EngineError, ModelUnusable, Opening, Row, Step
from worker.llama import LlamaEngine
from worker.parameters import gpus_seen
from worker.tuning import from_text

MEMORY = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")


def main() -> int:
    """0 when the model works; 1 and a line on stderr when it does not."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    path, wanted = Path(sys.argv[1]), from_text(sys.argv[2])
    free = free_bytes()
    if free and not (wanted.gpu_layers and gpus_seen()):  # the drivers of GPUs reserve more than they use
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        soft = free if most == resource.RLIM_INFINITY else min(free, most)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, most))
    try:
        engine = LlamaEngine(path, **wanted.arguments)
        prompt = tuple(engine.tokenize("a")[:8]) or (0,)
        engine.step(Step((Row(0, 0, prompt, sample=True),), opens=(Opening(0, Sampling()),)))
    except ModelUnusable as error:
        print(error, file=sys.stderr)
        return 1
    except EngineError as error:
        print(f"{path}: it loads but does not decode ({error})", file=sys.stderr)
        return 1
    return 0


def free_bytes() -> int:
    """Memory that a new process can have: the machine's, or what is left to the container; 0 where none says so."""
    try:
        lines = MEMORY.read_text("ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return 0
    try:
        most = int((CGROUP / "memory.max").read_text("ascii"))
        used = int((CGROUP / "memory.current").read_text("ascii"))
        counts = dict(line.split() for line in (CGROUP / "memory.stat").read_text("ascii").splitlines())
        return min(free, max(most - used + int(counts["inactive_file"]) + int(counts["active_file"]), 0))
    except (OSError, KeyError, ValueError):  # no container, or one without a limit ("max")
        return free


if __name__ == "__main__":
    sys.exit(main())
