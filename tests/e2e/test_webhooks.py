"""A short run of kills beside a bad receiver; the long one is `python -m tests.e2e.webhook_chaos`."""

from __future__ import annotations

import pytest

from tests.e2e import webhook_chaos


@pytest.mark.timeout(300)
def test_every_webhook_arrives_signed_while_parts_of_the_herd_are_killed() -> None:
    numbers = webhook_chaos.run(seconds=12.0, jobs=60)
    assert (numbers.jobs, numbers.delivered) == (60, 60)
    assert (numbers.forged, numbers.ids_of_a_job) == (0, 1)
    assert sum(numbers.kills.values()) >= 2
    assert numbers.most_requests >= 5
