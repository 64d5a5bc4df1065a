"""`python -m worker.fetch SOURCE FOLDER`: find a model, download it where need be; print its path, or what is wrong.

A process of its own, so that no thread of a download stays in a worker that is about to be shut in. A worker that is
not takes `fetched` itself.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from worker.engine import ModelUnusable
from worker.models import ModelSpec, locate

HUB = "https://huggingface.co"


def fetched(spec: ModelSpec, folder: Path) -> Path:
    """As `locate`; a download that fails is one line, and it names what failed. Raises ModelUnusable."""
    # The hub's library prints each try of its own accord, and hands it to our log besides.
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    # Its line for each request; nobody else here speaks through this one.
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    try:
        return locate(spec, folder)
    except ModelUnusable as error:
        why = error.__cause__
        # So it says, in three sentences for every reason, that the hub gave nothing: the reason is behind it.
        if not isinstance(why, FileNotFoundError) or why.__cause__ is None:
            raise
        reason = (str(why.__cause__).strip().splitlines() or [type(why.__cause__).__name__])[0]
        raise ModelUnusable(
            f"{spec.source}: cannot be downloaded from {os.environ.get('HF_ENDPOINT') or HUB} just now "
            f"({reason[:200].rstrip('.')}); try again later, or name a .gguf file that is here"
        ) from error


def main() -> int:
    """0 and the path, or 1 and one line, on stdout."""
    source, folder = sys.argv[1:]
    try:
        print(fetched(ModelSpec("model", source), Path(folder)))
    except ModelUnusable as error:
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
