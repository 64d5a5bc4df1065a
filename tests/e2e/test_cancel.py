"""A hundred running jobs are cancelled. The acceptance run, half a second each: `python -m tests.e2e.cancels`."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.e2e import cancels

COUNT = 100
FREE_S_MAX = 5.0  # loose: this machine may have other things to do; the print says what it was


@pytest.mark.timeout(600)
def test_each_cancel_frees_its_slot_and_refunds_what_was_not_produced() -> None:
    done = cancels.run(COUNT)
    print(cancels.told(done))
    assert len({cancel.job for cancel in done}) == COUNT
    assert {
        moment: count >= COUNT // 4 for moment, count in Counter(c.moment for c in done).items()
    } == dict.fromkeys(cancels.MOMENTS, True)
    late = [cancel for cancel in done if cancel.free_s > FREE_S_MAX]
    assert late == []
