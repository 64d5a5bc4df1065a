"""A part of the hostile set, and every attack that takes more than one request; the whole is `tests.e2e.hostile`."""

from __future__ import annotations

import random

import pytest

from tests.e2e import hostile

PART = 3  # every so manieth


@pytest.mark.timeout(300)
def test_hostile_requests_harm_nobody() -> None:
    chosen = hostile.attacks()
    random.Random(0).shuffle(chosen)
    summary = hostile.run(chosen[::PART])
    assert summary.faults == []
    assert summary.sent >= hostile.LEAST
    assert summary.controls >= summary.sent // 10
    assert summary.neighbours >= hostile.NEIGHBOURS


def test_the_whole_set_is_large_and_no_two_are_the_same() -> None:
    whole = hostile.attacks()
    assert len(whole) >= 5 * hostile.LEAST
    assert sum(attack.control for attack in whole) >= hostile.LEAST // 2
    assert len(
        {(each.method, each.path, each.content, *each.headers.items()) for each in whole}
    ) > 0.98 * len(whole)
