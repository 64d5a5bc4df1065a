"""A short chaos run; the long one is `python -m tests.e2e.chaos --seconds 60`."""

from __future__ import annotations

import pytest

from tests.e2e import chaos


@pytest.mark.timeout(300)
def test_every_accepted_job_succeeds_while_workers_are_killed() -> None:
    numbers = chaos.run(seconds=10.0)
    assert numbers.succeeded == numbers.jobs > 0
    assert numbers.kills >= 2
    assert numbers.reruns >= 1
