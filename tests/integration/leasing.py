"""A ring whose jobs have prompts with chains, and several workers that say what they have in all."""

from __future__ import annotations

from dataclasses import replace

from herder.broker import connect
from herder.chains import chain_key, chain_of
from herder.clock import SimulatedClock
from herder.protocol import Taken
from herder.settings import Settings
from tests.integration.ring import MODEL, Ring

KEY = chain_key(b"a secret for the tests only")
OPENING = "You are a patient teacher. " * 40
WORKERS = ("w1", "w2", "w3", "w4")


class Bench(Ring):
    """A ring whose jobs have prompts, and whose workers say what they have in all."""

    async def prompt(self, account: str, text: str, **more: object) -> str:
        """Submit a prompt with its chain; the job."""
        ask = await self.ask(account, **more)  # type: ignore[arg-type]
        links = chain_of(KEY, account, text, shared=False)
        brief = replace(ask.brief, prompt=text)
        return (await self.broker.submit(replace(ask, brief=brief, chain=links))).job_id

    async def take(self, worker: str = "w1", slots: int = 1, slots_total: int = 4) -> Taken:
        return await self.broker.take(
            worker, MODEL, slots=slots, slots_total=slots_total, kv_free=10**6, kv_total=10**6
        )

    async def jobs(self, worker: str = "w1", slots: int = 1) -> list[str]:
        return [lease.job_id for lease in (await self.take(worker, slots)).leases]

    async def done(self, worker: str, text: str, account: str = "ann") -> None:
        """This worker has answered this prompt."""
        job = await self.prompt(account, text)
        taken = await self.take(worker)
        assert [lease.job_id for lease in taken.leases] == [job]
        await self.settle(taken.leases[0], 5, worker=worker)


async def opened(settings: Settings, clock: SimulatedClock, **changed: object) -> Bench:
    """A bench with other settings; the test closes its broker."""
    broker = await connect(settings.model_copy(update=changed), clock)
    await broker.set_prices(settings.set_prompt_fee, settings.fee_per_token)
    bench = Bench(broker)
    await bench.open("ann", "bob", "cay", "dan", workers=WORKERS, funds=10**9)
    return bench
