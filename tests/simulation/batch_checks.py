"""Batches in Redis beside the reference, which counts every number of a batch from its items."""

from __future__ import annotations

from typing import Any

from herder.lifecycle import TERMINAL, Status
from tests.simulation.states import Batch, Violation, expect
from tests.simulation.world import Look, World

NUMBERS = (
    "total", "refused", "fed", "running", "succeeded", "failed", "cancelled", "expired", "ended", "tokens",
    "completion_tokens", "base", "fee", "hold", "unfed_fee", "captured", "refunded", "created_ms",
)  # fmt: skip
FIELDS = (*NUMBERS, "account", "status", "cancel", "ended_ms", "webhook_url", "purged", "presence_ms")


def look(world: World) -> Look:
    """The list of those that wait, each batch that goes on, those that were touched, and one that has ended."""
    reference, keys = world.reference.batches, world.broker.keys
    ended = [name for name, batch in reference.batches.items() if batch.ended_ms is not None]
    names = {name for name in reference.batches if name not in ended}
    names |= {name for name in world.touched if name in reference.batches}
    if ended:
        names.add(world.rng.choice(ended))
    commands = [["ZRANGE", keys("batches"), "0", "-1"]]
    for name in sorted(names):
        commands += [
            ["HMGET", keys("batch", name), *FIELDS],
            ["LRANGE", keys("batch_results", name), "0", "-1"],
            ["HLEN", keys("batch_items", name)],
        ]
    for name in reference.storing:
        commands += [["HMGET", keys("batch", name), "status"], ["HLEN", keys("batch_items", name)]]

    def compare(said: list[Any]) -> None:
        expect([name.decode() for name in said[0]], reference.waiting(), "batches that wait")
        rest = iter(said[1:])
        for name in sorted(names):
            _check_batch(name, reference.batches[name], next(rest), next(rest), next(rest))
        for name, stored in reference.storing.items():
            expect([next(rest), next(rest)], [[b"storing"], len(stored)], f"what is stored of {name}")

    return commands, compare


def _check_batch(
    name: str, batch: Batch, fields: list[bytes | None], results: list[bytes], items: int
) -> None:
    """One batch: its hash, its list of ends, its items that are not jobs yet."""
    _check_sums(name, batch)
    seen = {field: text.decode() for field, text in zip(FIELDS, fields, strict=True) if text is not None}
    expect(seen, _predicted(batch), f"{name} in Redis")
    expect([int(index) for index in results], batch.results, f"results of {name}")
    unfed = batch.stored - batch.fed if batch.fed < batch.charge.total else 0
    expect(items, unfed, f"items of {name} that are not jobs yet")


def _predicted(batch: Batch) -> dict[str, str]:
    """A batch's hash as it must be."""
    c, fed = batch.charge, batch.jobs
    numbers = {
        "total": c.total, "refused": c.refused, "fed": batch.fed, "ended": len(batch.results),
        "tokens": c.tokens, "completion_tokens": sum(job.used for job in fed),
        "base": c.base, "fee": c.fee, "hold": batch.hold, "unfed_fee": batch.unfed_fee,
        "captured": sum(job.captured or 0 for job in fed),
        "refunded": sum(job.ask.terms.fee - (job.captured or 0) for job in fed if job.captured is not None),
        "created_ms": batch.created_ms,
        **{status.value: batch.count(status) for status in (Status.RUNNING, *TERMINAL)},
    }  # fmt: skip
    fields = {name: str(number) for name, number in numbers.items()}
    fields |= {"account": c.account, "status": "running" if batch.ended_ms is None else "ended"}
    if batch.cancel:
        fields["cancel"] = "1"
    if batch.ended_ms is not None:
        fields["ended_ms"] = str(batch.ended_ms)
    if c.webhook:
        fields["webhook_url"] = c.webhook.url
    if c.presence_ms:
        fields["presence_ms"] = str(c.presence_ms)
    if batch.purged:
        fields["purged"] = str(batch.purged)
    return fields


def _check_sums(name: str, batch: Batch) -> None:
    """What must hold of any batch, whatever the history: each index ends once, credits go nowhere else."""
    ended = [job for job in batch.jobs if not job.live]
    expect(sorted(batch.results), sorted(job.index for job in ended), f"ends of {name}")
    captured = sum(job.captured or 0 for job in ended)
    refunded = sum(job.ask.terms.fee - (job.captured or 0) for job in ended)
    expect(batch.hold + captured + refunded, batch.charge.fee, f"fee of {name}")
    if batch.ended_ms is None and len(ended) == batch.charge.total:
        raise Violation(f"all items of {name} have ended, it has not")
