"""What the children of `herder up` find in their environment. Who gets what is written once, here."""

from __future__ import annotations

import os

from herder.errors import SetupError
from herder.gpus import seen_by
from herder.settings import Settings, cores
from herder.sources import as_environment

_PASSED_ON = (
    "PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "NO_COLOR", "HF_", "SSL_", "OMP_", "GOMP_",
    "CUDA_", "HIP_", "ROCR_", "VK_", "GGML_",
)  # fmt: skip


def of_child(settings: Settings, workers: int) -> dict[str, str]:
    """The environment of a child: every setting as it is in force here, whatever its source was."""
    found = {k: v for k, v in os.environ.items() if k.startswith(_PASSED_ON)}
    if not settings.threads:
        settings = settings.model_copy(update={"threads": max(1, cores() // max(1, workers))})
    if settings.threads * workers > cores():
        found.setdefault(
            "GOMP_SPINCOUNT", "0"
        )  # a thread that spins would keep the one it waits for from its core
    for name, value in settings:
        if value is not None:
            found[f"HERDER_{name.upper()}"] = as_environment(value)
    return found | {"PYTHONUNBUFFERED": "1"}


def of_worker(child: dict[str, str], gpu: str) -> dict[str, str]:
    """The same for a worker on `gpu` (`0+1`: on two), which sees no others; empty for all."""
    return child | seen_by(gpu, child) | {"HERDER_GPU": gpu} if gpu else child


def check_gpus(gpus: tuple[str, ...]) -> None:
    """Raises SetupError where one of them is not there to be had."""
    try:
        for gpu in gpus:
            seen_by(gpu, os.environ)
    except ValueError as error:
        raise SetupError(f"HERDER_GPU: {error}") from error
