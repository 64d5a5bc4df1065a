"""`herder-worker` on an installation without the worker's packages: one line, code 2."""

from __future__ import annotations

import subprocess
import sys


def test_what_is_missing_is_said_in_one_line() -> None:
    code = "import sys; sys.modules['pydantic'] = None; from worker.entry import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (
        2,
        "error: pydantic is missing: install 'llama-herder[worker]'\n",
    )


def test_with_everything_installed_it_is_the_worker() -> None:
    code = "import sys; sys.argv = ['herder-worker', '--help']; from worker.entry import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0
    assert "--slots" in done.stdout
