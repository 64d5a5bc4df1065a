"""Lists in pages: every entry once, and no cursor to a page with nothing on it."""

from __future__ import annotations

from herder.broker import Broker
from tests.integration.ring import Ring


async def test_a_last_page_that_is_full_has_no_next(broker: Broker) -> None:
    ring = await Ring(broker).open("alice")
    for _ in range(3):
        await ring.submit("alice")
    records, cursor = await broker.jobs("alice", before=None, limit=3)
    assert (len(records), cursor) == (3, None)
    records, cursor = await broker.jobs("alice", before=None, limit=2)
    rest, end = await broker.jobs("alice", before=cursor, limit=2)
    assert (len(records), len(rest), end) == (2, 1, None)
    entries, after = await ring.ledger.postings("alice", before=None, limit=4)
    assert (len(entries), after) == (4, None)
    entries, after = await ring.ledger.postings("alice", before=None, limit=3)
    assert (len(entries), len((await ring.ledger.postings("alice", before=after, limit=3))[0])) == (3, 1)
