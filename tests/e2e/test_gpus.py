"""A worker for each GPU, and what each of them finds in its environment."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from herder.gpus import VISIBLE
from tests.e2e.scripted import MODEL, scripted_herd


def variables_of(pid: int) -> set[str]:
    """The environment with which a process was started."""
    return set(Path(f"/proc/{pid}/environ").read_text("utf-8").split("\0"))


async def test_a_herd_on_two_gpus_is_a_worker_on_each(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VISIBLE:
        monkeypatch.delenv(name, raising=False)
    async with scripted_herd(gpu=("0", "1")) as herd:
        assert herd.broker is not None
        assert len(await herd.broker.worker_states()) == 2
        workers = [child for child in herd.children if child.name.startswith("worker")]
        assert [worker.env["CUDA_VISIBLE_DEVICES"] for worker in workers] == ["0", "1"]
        for gpu, worker in zip("01", workers, strict=True):
            assert worker.process is not None
            if sys.platform == "linux":
                found = variables_of(worker.process.pid)
                assert {f"CUDA_VISIBLE_DEVICES={gpu}", f"HERDER_GPU={gpu}", "HERDER_GPU_LAYERS=-1"} <= found
        async with herd.client() as client:
            assert (await client.run("[[say:yes]]", tokens=5, model=MODEL)).text == "yes"
