"""Is this container's process at work? `health.py api | courier | worker`: exit 0 and a line, or 1 and the reason.

The image's health checks. Each looks at what the process does, not at whether it still exists: the API must be ready,
the worker of this host must have sent a heartbeat (which comes from its decode loop, so that a wedged engine has
none), and the chores of the courier must be coming due and not lie undone.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

import httpx

from herder.broker import Broker, connect
from herder.settings import Settings

LOOK_S_MAX = 4.0
CHORE_LATE_S_MAX = 2.0


async def api(settings: Settings) -> str:
    """The API of this container says that it can take prompts."""
    scheme = "https" if settings.tls_cert else "http"
    async with httpx.AsyncClient(verify=False, timeout=LOOK_S_MAX) as client:
        answer = await client.get(f"{scheme}://127.0.0.1:{settings.port}/readyz")
    assert answer.status_code == httpx.codes.OK, answer.text
    return answer.text


async def worker(settings: Settings) -> str:
    """A worker whose id begins with this host's name sent a heartbeat within a lease."""
    broker = await connect(settings, attempts=1)
    try:
        now = await broker.now_ms()
        mine = [w for w in await broker.worker_states() if w.worker.startswith(socket.gethostname() + "-")]
    finally:
        await broker.close()
    assert mine, "no worker of this host has registered"
    silent_ms = now - max(w.last_seen_ms for w in mine)
    assert silent_ms <= settings.lease_ms, f"the last heartbeat was {silent_ms} ms ago"
    return f"heartbeat {silent_ms} ms ago"


async def courier(settings: Settings) -> str:
    """Within a few seconds a chore is seen that is due about now: a courier plans them, and does them in time."""
    broker = await connect(settings, attempts=1)
    try:
        late_s = await _chore_late_s(broker, f"{settings.redis_prefix}:arq:queue")
    finally:
        await broker.close()
    return f"a chore is due in {-late_s:.1f} s" if late_s < 0 else f"a chore is {late_s:.1f} s late"


async def _chore_late_s(broker: Broker, queue: str) -> float:
    end = time.monotonic() + LOOK_S_MAX
    while time.monotonic() < end:
        now_s = await broker.now_ms() / 1000
        for _, due_ms in await broker.redis.zrange(queue, -1, -1, withscores=True):
            late_s = now_s - float(due_ms) / 1000
            if abs(late_s) <= CHORE_LATE_S_MAX:
                return late_s
        await asyncio.sleep(0.1)
    raise AssertionError("no chore has come due")


CHECKS: dict[str, Callable[[Settings], Coroutine[Any, Any, str]]] = {
    "api": api,
    "courier": courier,
    "worker": worker,
}


def main(arguments: list[str]) -> int:
    """The exit code."""
    if len(arguments) != 1 or arguments[0] not in CHECKS:
        print(f"health.py {' | '.join(CHECKS)}", file=sys.stderr)
        return 2
    try:
        print(asyncio.run(CHECKS[arguments[0]](Settings())))
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
