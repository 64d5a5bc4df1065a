"""All that a herder named as wrong with a request, for one line: its detail has the first few. Prints nothing."""

from __future__ import annotations

import re

from llama_herder.problems import InvalidRequest

FAULTS_CHARS_MAX = 4_000  # of one error; a herder names at most 20 faults
_UNNAMED = re.compile(r"; and (?:at least )?(\d{1,9}) more$")


def faults(error: InvalidRequest) -> list[str]:
    """The detail, then the faults that it leaves out, in place of their number."""
    named = [(f"{name}: {message}" if name else message, message) for name, message in error.errors]
    among = len(named) > 1  # one message may be said of several fields
    more = [each for each, message in named if (each if among else message) not in error.detail]
    detail = error.detail.rstrip(".")
    counted = _UNNAMED.search(detail)
    if counted and more:
        left = int(counted[1]) - len(more)
        detail = detail[: counted.start()]
        more += [f"and {left} more"] if left > 0 else []
    return [detail, *more]
