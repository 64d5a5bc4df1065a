"""What a worker listens to: rings of its model's queue, and messages to itself alone, which name jobs to be stopped.

A ring only wakes; what it is about is asked of the broker. Must not know of the engine or of what is held.
"""

from __future__ import annotations

from collections.abc import Callable

from worker.leases import Doorbell

LISTEN_S = 30.0


async def on_queue(bell: Doorbell, channel: str, ring: Callable[[], None]) -> None:
    """Call `ring` for every ring of the queue, missed ones too."""
    async with bell.listen(channel) as listener:
        while True:
            if await listener.next(LISTEN_S) is not None:
                ring()


async def on_message(
    bell: Doorbell, channel: str, cancel: Callable[[str], None], missed: Callable[[], None]
) -> None:
    """Call `cancel` with each job that is to be stopped, `missed` when some of those messages were lost."""
    async with bell.listen(channel) as listener:
        while True:
            message = await listener.next(LISTEN_S)
            if message:
                cancel(message.decode("utf-8", "replace"))
            elif message is not None:
                missed()
