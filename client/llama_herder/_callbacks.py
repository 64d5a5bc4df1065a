"""Waiting for many jobs in a few threads, and calling back when their answers are there.

Knows threads and how a wait is judged, no HTTP. Nothing is lost without a word: what was not waited for, and what went
wrong where nobody is called, is logged under `llama_herder`, which without any logging set up is standard error.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from llama_herder._calls import OUTAGE_S, answered
from llama_herder.errors import HerderError, WaitTimeout
from llama_herder.problems import InvalidRequest
from llama_herder.types import Job

THREADS_MAX = 16
WAITING_MAX = 10_000
TURN_S = 5.0  # of one wait, after which another job may have its turn
CROWDED_TURN_S = 1.0
IDLE_S = 5.0
LEAVE_S_MAX = 600.0
TELL_S = 5.0
LOOK_S = 0.02

log = logging.getLogger("llama_herder")

Wait = Callable[[str, float], Job]
OnAnswer = Callable[[Job], object]
OnError = Callable[[HerderError], object]


@dataclass(frozen=True)
class Expected:
    """A job that is waited for, whom to tell, and since when the herder has not been heard."""

    job_id: str
    callback: OnAnswer
    on_error: OnError | None = None
    silent_since: float | None = None

    def later(self, error: WaitTimeout, now: float) -> Expected:
        """The same after a turn without an end. Raises the error once the herder was away for too long."""
        if error.job is not None:
            return replace(self, silent_since=None)
        since = now if self.silent_since is None else self.silent_since
        if now - since >= OUTAGE_S:
            raise error
        return replace(self, silent_since=since)

    def failed(self, error: Exception) -> None:
        """Tell whoever wants to be told, otherwise the log."""
        if self.on_error is not None and isinstance(error, HerderError):
            called(self.on_error, error, self.job_id)
        else:
            log.error("no answer of %s: %s", self.job_id, error)


def called(callback: Callable[..., object], argument: object, job_id: str) -> None:
    """A callback's own mistake is logged and ends nothing; nor does `sys.exit` in it, as in any other thread."""
    try:
        callback(argument)
    except (Exception, SystemExit):
        log.exception("the callback for %s failed", job_id)


def left_behind(job_ids: Iterable[str]) -> None:
    """Say of which jobs nobody was told."""
    ids = sorted(set(job_ids))
    shown = ", ".join(ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
    if ids:
        log.warning("not waited for: %s; paid for all the same, read them later by their ids", shown)


class Callbacks:
    """The jobs that one client waits for in the background."""

    def __init__(self, wait: Wait) -> None:
        self._wait = wait
        self._line: deque[Expected] = deque()
        self._open: list[str] = []
        self._threads: set[threading.Thread] = set()
        self._idle = 0
        self._closed = False
        self._changed = threading.Condition()
        self._process = os.getpid()
        atexit.register(self.leave)

    def check_room(self) -> None:
        """Raises InvalidRequest where too many are waited for already."""
        if len(self._open) >= WAITING_MAX:
            raise InvalidRequest(f"{WAITING_MAX} answers are waited for already: for more, take `map`")

    def add(self, expected: Expected) -> None:
        """Wait for one more, of which `check_room` was asked before it was paid for. Raises RuntimeError (closed)."""
        with self._changed:
            if self._closed:
                job_id = expected.job_id
                raise RuntimeError(
                    f"the client is closed, so nobody waits for {job_id}: read it later by its id"
                )
            self._open.append(expected.job_id)
            self._line.append(expected)
            if self._idle < len(self._line) and len(self._threads) < THREADS_MAX:
                self._start()
            self._changed.notify()

    def _start(self) -> None:
        thread = threading.Thread(target=self._work, name="llama_herder callbacks", daemon=True)
        self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:  # at the end of the interpreter the threads that there are have to do
            self._threads.discard(thread)
            if not self._threads:
                self._open.pop()
                self._line.pop()
                raise

    def leave(self, limit_s: float = LEAVE_S_MAX) -> None:
        """Wait until everybody was told, or `limit_s` or Ctrl-C; then stop, and say who was not.

        In a process that was forked off there is nobody to wait for: the threads stayed behind, and tell all the same.
        """
        if os.getpid() != self._process:
            return
        try:
            if threading.current_thread() not in self._threads and not self._drained(min(TELL_S, limit_s)):
                many = len(self._open)
                log.warning("waiting for %d answer%s; Ctrl-C leaves", many, "" if many == 1 else "s")
                self._drained(limit_s - TELL_S)
        except KeyboardInterrupt:
            pass
        finally:
            self.stop()

    def stop(self) -> None:
        """Wait for nothing any more."""
        with self._changed:
            self._closed = True
            left = list(self._open)
            self._open.clear()
            self._line.clear()
            self._changed.notify_all()
        atexit.unregister(self.leave)
        left_behind(left)

    def _drained(self, limit_s: float) -> bool:
        # Not a wait for the condition: where Ctrl-C comes in the middle of one, its lock may be nobody's.
        deadline = time.monotonic() + limit_s
        while self._open:
            if time.monotonic() >= deadline:
                return False
            time.sleep(LOOK_S)
        return True

    def _work(self) -> None:
        try:
            while (expected := self._next()) is not None:
                again = self._attend(expected)
                with self._changed:
                    if again is not None and not self._closed:
                        self._line.append(again)
                    elif expected.job_id in self._open:
                        self._open.remove(expected.job_id)
                    self._changed.notify_all()
        finally:
            with self._changed:
                self._threads.discard(threading.current_thread())

    def _next(self) -> Expected | None:
        """Whose turn it is; None where nobody came for a while, or it is over."""
        with self._changed:
            self._idle += 1
            try:
                self._changed.wait_for(lambda: self._line or self._closed, IDLE_S)
                found = self._line.popleft() if self._line and not self._closed else None
                if found is None:
                    self._threads.discard(threading.current_thread())
                return found
            finally:
                self._idle -= 1

    def _attend(self, expected: Expected) -> Expected | None:
        """One turn; the same again where the job has not ended."""
        try:
            job = self._wait(expected.job_id, CROWDED_TURN_S if self._line else TURN_S)
        except WaitTimeout as error:
            try:
                return expected.later(error, time.monotonic())
            except WaitTimeout:
                expected.failed(error)
        except Exception as error:
            if not self._closed:
                expected.failed(error)
        else:
            deliver(expected, job)
        return None


def deliver(expected: Expected, job: Job) -> None:
    """Tell of a job that has ended."""
    try:
        answered(job)
    except HerderError as error:
        expected.failed(error)
    else:
        called(expected.callback, job, expected.job_id)
