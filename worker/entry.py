"""Where the console script `herder-worker` enters. Must run, and say what is missing, on the bare client install."""

from __future__ import annotations

import sys


def main() -> None:
    """Serve one model; exits with 2 where the worker's packages are not installed."""
    try:
        from worker.main import main as serve
    except ModuleNotFoundError as error:
        sys.stderr.write(f"error: {error.name} is missing: install 'llama-herder[worker]'\n")
        sys.exit(2)
    serve()
