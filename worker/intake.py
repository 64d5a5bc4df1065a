"""What has come in while a step was running: new jobs, cancels, attempts that are not wanted any more.

Pure. The scheduler may only change between two steps, since the engine is at work on its slots; until then it waits
here. Must not know of the engine or of Redis.
"""

from __future__ import annotations

from worker.scheduler import Scheduler
from worker.sequence import Key, Sequence


class Intake:
    """Collects at any time, empties into the scheduler between two steps."""

    def __init__(self) -> None:
        self._arrived: list[Sequence] = []
        self._cancels: set[str] = set()
        self._lost: set[Key] = set()

    def __len__(self) -> int:
        """Answers whose jobs have arrived and are not admitted yet."""
        return len(self._arrived)

    @property
    def reserved(self) -> int:
        """KV cells that the arrived jobs will take."""
        return sum(sequence.reserved for sequence in self._arrived)

    def arrive(self, answers: list[Sequence], prompt: list[int]) -> None:
        """A job has been leased, with so many answers to make; these are its prompt's tokens."""
        for sequence in answers:
            sequence.read(list(prompt))
        self._arrived += answers

    def cancel(self, job_id: str) -> None:
        """A job is to be stopped."""
        self._cancels.add(job_id)

    def lose(self, key: Key) -> None:
        """An attempt is another's now, or its job has ended."""
        self._lost.add(key)

    def empty_into(self, scheduler: Scheduler, *, more: bool = False) -> list[Sequence]:
        """Let all of it happen; returns the sequences that ended by it.

        `more`: jobs are on their way. What was said of a job that is not here may be of one of them, and is kept.
        """
        ended: list[Sequence] = []
        for key in self._lost:
            ended += scheduler.drop(key)
        for sequence in self._arrived:
            if sequence.key in self._lost:
                sequence.fail("lost", "another attempt owns the job")
            elif not sequence.ended:
                scheduler.admit(sequence)
            ended += [sequence] if sequence.ended else []
        for job_id in self._cancels:
            ended += scheduler.cancel(job_id)
        self._arrived = []
        if not more:
            self._cancels, self._lost = set(), set()
        return ended
