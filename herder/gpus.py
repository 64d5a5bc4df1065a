"""Which GPUs a worker sees: the variables of its environment by which the drivers show it those and no others.

Pure, and for everybody: `herder up` sets them for its workers, a worker that was started by hand for itself.
"""

from __future__ import annotations

from collections.abc import Mapping

VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "GGML_VK_VISIBLE_DEVICES")
"""NVIDIA's, AMD's, and that of llama.cpp's Vulkan backend. Each hides all that it does not name."""


def seen_by(gpus: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The variables for a worker on `gpus` (`0`, or `0+1` for two), over those of `environment`.

    Where the environment shows a part of the machine's GPUs already, they are counted from 0 within it. Raises
    ValueError where one is not among them.
    """
    numbers = [int(number) for number in gpus.split("+")]
    # The order in which nvidia-smi counts; CUDA's own puts the fastest first.
    found = {"CUDA_DEVICE_ORDER": environment.get("CUDA_DEVICE_ORDER", "PCI_BUS_ID")}
    for variable in VISIBLE:
        shown = environment.get(variable)
        if shown is None:
            found[variable] = ",".join(map(str, numbers))
            continue
        names = [name.strip() for name in shown.split(",") if name.strip()]
        missing = next((number for number in numbers if number >= len(names)), None)
        if missing is not None:
            raise ValueError(
                f"GPU {missing} is not among the {len(names)} of {variable}={shown}, which are counted from 0"
            )
        found[variable] = ",".join(names[number] for number in numbers)
    return found
