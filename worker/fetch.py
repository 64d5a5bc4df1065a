"""`python -m worker.fetch SOURCE FOLDER`: find a model, download it where need be; print its path, or what is wrong.

A process of its own, so that no thread of a download stays in a worker that is about to be shut in.
"""

from __future__ import annotations

import sys
from pathlib import Path

from worker.engine import ModelUnusable
from worker.models import ModelSpec, locate


def main() -> int:
    """0 and the path, or 1 and one line, on stdout."""
    source, folder = sys.argv[1:]
    try:
        print(locate(ModelSpec("model", source), Path(folder)))
    except ModelUnusable as error:
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
