"""What a prompt that comes over HTTP leaves in Redis of its beginnings: links that only its own like have."""

from __future__ import annotations

import json

from herder.chains import BLOCK_BYTES, chain_of
from tests.integration.api import Front
from tests.integration.batch_calls import posted, until_fed

LONG = "Tell me of the sea. " * 40


async def chain(front: Front, job: str) -> list[str]:
    """The links of a job."""
    broker = front.herd.broker
    stored = await broker.fetch(broker.redis.hget(broker.keys("job", job), "chain"))
    return [] if stored is None else list(json.loads(stored))


async def test_a_job_has_the_chain_of_its_rendered_prompt(front: Front) -> None:
    job = (await front.submit(prompt=LONG))["id"]
    lease = await front.lease()
    links = chain_of(front.herd.chain_key, "alice", lease.brief.prompt, shared=False)
    assert await chain(front, job) == list(links)
    assert len(links) > 1


async def test_a_short_prompt_has_none(front: Front) -> None:
    job = (await front.submit(prompt="x" * (BLOCK_BYTES // 2)))["id"]
    assert await chain(front, job) == []


async def test_accounts_have_links_in_common_only_where_both_share(front: Front) -> None:
    other = await front.account("bob", 1_000)
    links = {}
    async with other:
        for name, client in (("alice", front.client), ("bob", other)):
            for shared in (False, True):
                body = {"prompt": LONG, "tokens": 20, "share_prefix": shared}
                reply = await client.post("/v1/jobs", json=body)
                links[name, shared] = {*await chain(front, reply.json()["id"])}
    assert links["alice", True] == links["bob", True]
    assert links["alice", True]
    apart = [links["alice", False], links["bob", False], links["alice", True]]
    assert len(set.union(*apart)) == sum(map(len, apart))


async def test_the_items_of_a_batch_have_theirs(front: Front) -> None:
    alone = (await front.submit(prompt=LONG))["id"]
    batch = await posted(front, {"prompts": [LONG, "short"], "tokens": 20})
    await until_fed(front, batch)
    first, second = (f"job_{batch['id'].removeprefix('batch_')}n{i}" for i in (0, 1))
    assert await chain(front, first) == await chain(front, alone) != []
    assert await chain(front, second) == []


async def test_a_job_that_wants_nothing_of_a_cache_has_none(front: Front) -> None:
    refused = (await front.submit(prompt=LONG, cache_prompt=False))["id"]
    assert await chain(front, refused) == []
    # With a seed it is the worker's choice.
    seeded = (await front.submit(prompt=LONG, seed=7))["id"]
    assert await chain(front, seeded) != []
