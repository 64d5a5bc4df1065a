"""The worker's loop: lease → admit → plan → decode → apply → report.

Eight tasks share one event loop. One of them hands steps to the engine's own thread, one after the other; the others
talk to the broker meanwhile. The scheduler is touched only between steps. Must not know of llama_cpp or of Redis.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from herder.logs import get_logger
from herder.protocol import ChunkReply, RenewReply, SettleReply, WorkerStats
from worker.bells import LISTEN_S, on_message, on_queue
from worker.drain import Drain
from worker.engine import Engine, KvFull, Step, StepFailed
from worker.intake import Intake
from worker.leases import Doorbell, Leases
from worker.outbox import Outbox
from worker.progress import Progress
from worker.pulse import Pulse, wait
from worker.reading import read
from worker.recycle import Recycling
from worker.scheduler import Scheduler
from worker.sequence import Key, Sequence, sequences_of
from worker.turn import Turn
from worker.watchdog import Watchdog

POLL_S = 2.0
QUIET_S = 5.0
"""How long a stop waits for last calls."""
UNSETTLED_MAX = 2
"""No new leases while more than this many times the slots wait for their settlement to be answered."""

log = get_logger(__name__)


@dataclass(frozen=True)
class Options:
    """Times in milliseconds, the two channels to listen on, and when to end by itself (0: never), in its `turn`."""

    lease_ms: int
    drain_ms: int
    queue_bell: str
    worker_bell: str
    watchdog_ms: int = 0
    recycle_jobs: int = 0
    recycle_growth_mb: int = 0
    turn: Turn = Turn()  # noqa: RUF009 (it has no state of its own)


class Runner:
    """One engine at work. `run` returns when `stop` was called and nothing is held any more."""

    def __init__(
        self,
        engine: Engine,
        leases: Leases,
        bell: Doorbell,
        options: Options,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine, self._leases = engine, leases
        self._bell, self._options = bell, options
        self._scheduler = Scheduler(engine.facts)
        self._outbox, self._intake = Outbox(), Intake()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._jobs_done, self._leasing = 0, False
        self._progress = Progress(now)
        self._work, self._room, self._fresh, self._urgent = (asyncio.Event() for _ in range(4))
        self._pulse = Pulse(self, leases, options.lease_ms)
        self._drain = Drain(options.drain_ms)
        self._watchdog = Watchdog(self._progress, lambda: self._unfinished, options.watchdog_ms)
        self._recycling = Recycling(options.recycle_jobs, options.recycle_growth_mb, turn=options.turn)

    # --- from outside ------------------------------------------------------------------------------------

    def stop(self) -> None:
        """The first call drains: lease nothing new, finish what runs. A second one hands everything back at once."""
        self._drain.tell()
        self._wake()

    def _wake(self) -> None:
        for event in (self._room, self._work, self._fresh, self._urgent):
            event.set()

    @property
    def retired(self) -> bool:
        """Whether it makes room for a fresh process."""
        return self._drain.retired

    @property
    def stats(self) -> WorkerStats:
        """What the next heartbeat says."""
        facts = self._engine.facts
        slots, busy = self.occupancy
        return WorkerStats(
            slots=slots,
            busy=busy,
            tokens_per_second=round(self._scheduler.speed.tokens_per_second, 3),
            jobs_done=self._jobs_done,
            kv_tokens=facts.kv_tokens,
            kv_used=self._scheduler.kv_reserved,
        )

    @property
    def occupancy(self) -> tuple[int, int]:
        """Slots that may be in use, and slots in use: a draining worker's free ones will take nothing any more."""
        slots = self._engine.facts.slots
        busy = slots - self._scheduler.free_slots + len(self._intake)
        return (busy if self._drain.told else slots), busy

    @property
    def held(self) -> list[Key]:
        """The attempts that are ours, from their lease until their settlement is answered."""
        return self._outbox.held

    @property
    def mid_step(self) -> bool:
        """Whether the engine is in the middle of a step (a wedged one always is)."""
        return self._progress.mid_step

    @property
    def wedged(self) -> bool:
        """Whether a step has taken so long that another worker had better run its jobs."""
        return self._progress.step_s > self._options.lease_ms / 2000

    @property
    def _unfinished(self) -> bool:
        """Whether anything is yet to come of the engine."""
        return self.mid_step or len(self._outbox) > self._outbox.unsettled

    async def run(self) -> None:
        """Serve until stopped. Raises RedisGone, or whatever broke: a worker that is in doubt ends."""
        await self._leases.register(self.stats)
        self._recycling.fresh()
        loops = [self._decode_loop(), self._report_loop(), self._pulse.renewing(), self._pulse.telling()]
        loops += [on_queue(self._bell, self._options.queue_bell, self._room.set), self._watchdog.watching()]
        loops += [on_message(self._bell, self._options.worker_bell, self._cancel, self._pulse.hurry)]
        try:
            async with asyncio.TaskGroup() as group:
                leasing = group.create_task(self._lease_loop())
                tasks = [leasing, *(group.create_task(loop) for loop in loops)]
                await self._drain.until_told()
                log.info("draining", held=len(self._outbox))
                await self._drain.until_over()
                await self._quiet(leasing)
                for task in tasks:
                    task.cancel()
            await self._leases.hand_back(self._outbox.held)
            log.info("left", handed_back=len(self._outbox), jobs_done=self._jobs_done)
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _quiet(self, leasing: asyncio.Task[None]) -> None:
        """Take in jobs that are on their way (unseen, they would lapse), settle what has ended, send no more beats."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(QUIET_S):
                await asyncio.wait([leasing])
                await self._report()
                await self._pulse.hush()

    # --- lease → admit -----------------------------------------------------------------------------------

    async def _lease_loop(self) -> None:
        """Fill free slots. A ring or a freed slot wakes it; while slots are free it also looks every POLL_S."""
        while not self._drain.told:
            self._room.clear()
            free = self._scheduler.free_slots - len(self._intake)
            if self._outbox.unsettled > UNSETTLED_MAX * self._engine.facts.slots:
                free = 0
            if free > 0:
                self._leasing = True
                leased = await self._lease(free)
                self._leasing = False
                if leased:
                    continue
            await wait(self._room, self._leases.look_s(POLL_S) if free > 0 else LISTEN_S)
        self._fresh.set()
        self._urgent.set()

    async def _lease(self, free: int) -> int:
        """Lease for `free` slots; how many came."""
        kv_free = self._scheduler.kv_free - self._intake.reserved
        leases = await self._leases.take(self._engine.facts, slots=free, kv_free=max(kv_free, 0))
        attempts = [sequences_of(lease) for lease in leases or ()]
        self._watchdog.look()
        # Before anything else, since renewing and handing back begin now.
        self._outbox.track(*(answer for answers in attempts for answer in answers))
        self._watchdog.look()
        for answers in attempts:
            await self._accept(answers)
        return len(attempts)

    async def _accept(self, answers: list[Sequence]) -> None:
        """Count the prompt's tokens, beside the running step, and put the job where the next step finds it."""
        self._intake.arrive(answers, await asyncio.to_thread(read, self._engine, answers))
        self._work.set()
        log.debug("leased", job=answers[0].lease.job_id, prompt_tokens=answers[0].prompt_tokens)

    # --- plan → decode → apply ---------------------------------------------------------------------------

    async def _decode_loop(self) -> None:
        """One step after the other, for as long as anything is admitted."""
        while True:
            # The one moment at which sequences come and go.
            self._tell(self._intake.empty_into(self._scheduler, more=self._leasing))
            self._pulse.notice()
            step = self._scheduler.plan()
            if step is not None:
                await self._run_step(step)
                continue
            self._work.clear()
            await self._work.wait()

    async def _run_step(self, step: Step) -> None:
        self._progress.began()
        running = asyncio.get_running_loop().run_in_executor(self._thread, self._engine.step, step)
        try:
            sampled = await running
        except KvFull:
            self._progress.ended()
            log.warning("kv cache full", rows=len(step.rows))
            told = self._scheduler.refused(step)
        except StepFailed as error:
            self._progress.ended()
            log.error("step failed", rows=len(step.rows), reason=str(error))
            told = self._scheduler.failed(step, str(error))
        else:
            # Not in a `finally`: a step that was abandoned is still under way in the engine's thread.
            elapsed_ms = self._progress.ended()
            told = self._scheduler.apply(step, sampled, elapsed_ms, self._engine.piece, self._engine.ends)
        self._tell(told)

    def _tell(self, sequences: list[Sequence]) -> None:
        """Wake whoever reports and leases: at once for a first token or an end, else in good time."""
        if not sequences:
            return
        self._fresh.set()
        if any(s.ended or (s.text and not s.held and not s.reported_chars) for s in sequences):
            self._urgent.set()
        if any(s.ended for s in sequences):
            self._room.set()

    # --- report ------------------------------------------------------------------------------------------

    async def _report_loop(self) -> None:
        """Send text and settlements: a first token or an end at once, the rest with what comes within a moment."""
        while True:
            await self._fresh.wait()
            if not self._urgent.is_set() and self._progress.last_s < self._outbox.gather_s:
                await wait(self._urgent, self._outbox.gather_s)
            self._fresh.clear()
            self._urgent.clear()
            if not await self._report():
                self._fresh.set()
                await asyncio.sleep(self._leases.pause_s)
            if self._drain.told and not self._leasing and not self._outbox:
                self._drain.emptied()

    async def _report(self) -> bool:
        """One round; False when something is left to send again."""
        stop = await self._leases.report(self._outbox)
        if stop is None:
            return False
        for key, reply in stop:
            if reply is ChunkReply.STALE:
                self._give_up(key)
            else:
                self._cancel(key[0])
        for settlement, word in await self._leases.settle(self._outbox):
            self._jobs_done += word is SettleReply.OK
            # Other answers of one that failed may still be under way.
            self._give_up((settlement.job_id, settlement.attempt))
        if not self._drain.told and self._recycling.due(self._jobs_done):
            self._drain.retire()
            self._wake()
        return self._outbox.clear

    def _cancel(self, job_id: str) -> None:
        self._intake.cancel(job_id)
        self._work.set()

    def _give_up(self, key: Key) -> None:
        """Another attempt owns the job, or it has ended: drop ours in silence."""
        self._outbox.forget(key)
        self._intake.lose(key)
        self._work.set()

    def renewed(self, key: Key, reply: RenewReply) -> None:
        """What a renewal said of an attempt."""
        if reply is RenewReply.CANCEL:
            self._cancel(key[0])
        elif reply is RenewReply.LOST and key in self._outbox.held:
            self._give_up(key)
