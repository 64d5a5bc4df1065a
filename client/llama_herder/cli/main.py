"""Where the console script `herder` enters. Must run, and say what is missing, on the bare client install."""

from __future__ import annotations

import sys
from importlib.util import find_spec


def main() -> None:
    """Run the command line and exit with its code."""
    if find_spec("typer") is None or find_spec("rich") is None:
        sys.stderr.write("error: the herder command needs its extra: pip install 'llama-herder[cli]'\n")
        sys.exit(2)
    from llama_herder.cli.app import execute

    sys.exit(execute(sys.argv[1:]))


if __name__ == "__main__":
    main()
