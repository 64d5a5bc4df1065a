"""A redis-server for tests and simulations, on a unix socket in a folder of its own, gone afterwards."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import redis

from herder.embedded import server_command, socket_url

TRIES = 3_000
IN_MEMORY = ("--appendfsync", "no", "--appendonly", "no")


@contextlib.contextmanager
def private_redis(*more: str) -> Iterator[str]:
    """The URL of a server that is stopped at the end; `more` are options that override the embedded server's.

    With IN_MEMORY it writes nothing down.
    """
    with tempfile.TemporaryDirectory(prefix="herd-test-") as folder:
        command = [*server_command(Path(folder)), *more]
        log = (Path(folder) / "redis.log").open("wb")
        process = subprocess.Popen(command, stdout=log, stderr=log)
        log.close()
        url = socket_url(Path(folder))
        client = redis.Redis.from_url(url)
        try:
            for _ in range(TRIES):
                if process.poll() is not None:
                    raise RuntimeError("redis-server ended at once")
                with contextlib.suppress(redis.exceptions.ConnectionError):
                    if client.ping():
                        break
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.01)
            yield url
        finally:
            client.close()
            process.terminate()
            process.wait(20)
