"""Checks of one client: named functions, run one after the other, told as JSON lines. Standard library only.

Where the herd is: CONFORMANCE_URL. Keys: CONFORMANCE_KEY, and CONFORMANCE_POOR_KEY of an account that cannot pay.
Another herd takes no more requests with its key: CONFORMANCE_BUSY_URL, CONFORMANCE_BUSY_KEY.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

URL = os.environ["CONFORMANCE_URL"]
BUSY_URL = os.environ["CONFORMANCE_BUSY_URL"]
KEY = os.environ["CONFORMANCE_KEY"]
BUSY_KEY = os.environ["CONFORMANCE_BUSY_KEY"]
POOR_KEY = os.environ["CONFORMANCE_POOR_KEY"]
WRONG_KEY = "hk_" + "0" * 28
MODEL = "herd-tiny"

Check = Callable[[], None]
_CHECKS: list[tuple[str, Check]] = []


def check(name: str) -> Callable[[Check], Check]:
    """Register a check; names are the columns of the table, or `document: what` for a snippet of a document."""

    def keep(function: Check) -> Check:
        _CHECKS.append((name, function))
        return function

    return keep


def spend() -> None:
    """The one request a minute that the busy herd takes with its key, unless it was made already."""
    request = urllib.request.Request(
        f"{BUSY_URL}/v1/account", headers={"Authorization": f"Bearer {BUSY_KEY}"}
    )
    with contextlib.suppress(urllib.error.HTTPError):
        urllib.request.urlopen(request, timeout=10).close()


def raises(
    kind: type[BaseException] | tuple[type[BaseException], ...], call: Callable[[], Any]
) -> BaseException:
    """The exception that a call raises, which must be of this very kind."""
    try:
        found = call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind} was raised, but this came back: {found!r}"[:300])


def at_once(call: Callable[[int], Any], count: int = 20) -> list[Any]:
    """What so many calls in so many threads return."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(call, range(count)))


def main() -> None:
    """Run all of them; one that fails does not stop the others."""
    for name, function in _CHECKS:
        try:
            if name == "429":
                spend()
            function()
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            detail = f"{type(error).__name__}: {error}"[:400] + f" ({where.name}:{where.lineno})"
            outcome = "fails"
        else:
            outcome, detail = "passes", ""
        print(json.dumps({"check": name, "outcome": outcome, "detail": detail}), flush=True)
    sys.stdout.flush()
    os._exit(0)  # some clients leave threads behind that never end
