"""Workers in their sandbox: they load a model and answer, over a unix socket and over TCP.

Where the kernel has no Landlock, the herd must say so and stop: nobody who asked for a sandbox runs without one.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from herder.broker import Broker
from herder.embedded import answers, server_command
from herder.ports import free_port
from tests.e2e.books import closed_books
from tests.e2e.herd import clean_environment, herd, run_command, short_folder, until
from tests.e2e.parts import HOST, WORKER, Part, in_parts
from worker.sandbox import ABI_LEAST, landlock_abi


def shut_in(pid: int) -> bool:
    """Whether the process has entered a sandbox: it has given up gaining privileges."""
    return "NoNewPrivs:\t1" in Path(f"/proc/{pid}/status").read_text("ascii")


@pytest.mark.parametrize("asked", ["true", "false"])
def test_a_herd_answers_from_inside(asked: str) -> None:
    if asked == "true" and landlock_abi() < ABI_LEAST:
        with short_folder() as folder:
            done = run_command("up", "--port", "0", folder=folder, environment={"HERDER_SANDBOX": asked})
        assert done.returncode == 2
        assert "Landlock" in done.stderr
        return
    with herd(sandbox=asked) as up:
        with up.client() as herder:
            job = herder.run("What is a chatbot?", tokens=40, timeout=60)
        assert job.text
        assert shut_in(up.pid_of("worker-1")) == (asked == "true")
        closed_books(up, [job.id])
        up.stop()


def test_redis_over_tcp_is_reached_from_inside() -> None:
    with in_parts() as parts:
        port = free_port(HOST)
        parts.settings["HERDER_REDIS_URL"] = url = f"redis://{HOST}:{port}/0"
        with short_folder() as folder:
            redis = Part("redis", folder, clean_environment(), *server_command(folder), "--port", str(port))
            parts.parts.append(redis)
            until(lambda: asyncio.run(answers(url)), "Redis answers over TCP")
            if landlock_abi() < ABI_LEAST:
                refused = Part("refused", folder, clean_environment() | parts.settings, *WORKER, "--sandbox")
                assert refused.process.wait(60) == 2
                assert "Landlock" in refused.told()
                redis.end()
                return
            worker = parts.worker("--engine", "fake", "--sandbox")
            assert shut_in(worker.process.pid)

            async def seen(broker: Broker) -> int:
                return len(await broker.worker_states())

            assert parts.ask(seen) == 1
            worker.terminate()
            worker.ended()
            redis.end()
