"""How long a call is kept trying: how often, until when, and with which pauses. Knows no requests and no replies."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

TRIES = 5
BACKOFF_S = 0.25
BACKOFF_S_MAX = 8.0
RETRY_AFTER_S_MAX = 60.0

# A herder that is started again is back within five seconds, on a machine that is busy later.
REFUSED_S = 20.0
# Where nobody was ever there the URL is more likely to be wrong; but a restart is sat out then, too.
FIRST_REFUSED_S = 6.0
REFUSED_PAUSE_S_MAX = 2.0


@dataclass
class Contact:
    """Whether anybody was ever there for one client; shared by all its calls."""

    made: bool = False


@dataclass(frozen=True)
class Patience:
    """How long to keep trying: so many tries, or with `endless` any number, none of them after `until` of `clock`.

    A refused connection is no try: nothing was sent. It is sat out for `refused_s` seconds of a call. Where nobody was
    ever there, and so the URL may be wrong, nothing is endless, and refusals are sat out for FIRST_REFUSED_S. With a
    single try nothing at all is tried again.
    """

    tries: int = TRIES
    refused_s: float = REFUSED_S
    until: float = math.inf
    endless: bool = False
    clock: Callable[[], float] = time.monotonic
    jitter: Callable[[], float] = random.random
    contact: Contact = field(default_factory=Contact)

    def within(self, until: float) -> Patience:
        """The same, but at most until a moment."""
        return replace(self, until=min(self.until, until))

    def lasting(self, until: float) -> Patience:
        """As often as it takes, until a moment."""
        return replace(self, endless=True, until=until)

    def tries_max(self) -> float:
        """How many tries one call has."""
        return math.inf if self.endless and self.contact.made else self.tries

    def refused_s_max(self) -> float:
        """How many seconds of refused connections one call sits out."""
        if not self.contact.made:
            return min(self.refused_s, FIRST_REFUSED_S) if self.tries > 1 or self.endless else 0.0
        if self.endless:
            return math.inf
        return self.refused_s if self.tries > 1 else 0.0


@dataclass
class Tries:
    """What became of one call so far: tries that failed, and connections that were refused."""

    failed: int = 0
    refused: int = 0
    refused_s: float = 0.0

    def pause_s(self, patience: Patience, *, refused: bool, asked_s: float | None = None) -> float | None:
        """Seconds before the next try; None when there shall be none.

        The herder's Retry-After (`asked_s`), up to a minute, otherwise exponential with jitter.
        """
        least_s = min(asked_s or 0.0, RETRY_AFTER_S_MAX)
        if refused:
            left_s = patience.refused_s_max() - self.refused_s
            pause_s = max(_backoff_s(self.refused, REFUSED_PAUSE_S_MAX, patience), least_s)
            self.refused += 1
        else:
            left_s = math.inf if self.failed + 1 < patience.tries_max() else 0.0
            pause_s = max(_backoff_s(self.failed, BACKOFF_S_MAX, patience), least_s)
            self.failed += 1
        left_s = min(left_s, patience.until - patience.clock())
        if left_s <= 0 or least_s > left_s:
            return None
        pause_s = min(pause_s, left_s)
        self.refused_s += pause_s if refused else 0.0
        return pause_s


def _backoff_s(before: int, most_s: float, patience: Patience) -> float:
    return min(most_s, BACKOFF_S * float(1 << min(before, 16))) * (0.5 + 0.5 * patience.jitter())
