"""How llama.cpp is to work: what a worker asks of it beside the file, in numbers and words. Pure: it loads nothing.

What contradicts itself is refused where settings are read; what a model or a machine cannot do, by llama.cpp.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from herder.settings import KvType, OnOff, Settings


@dataclass(frozen=True)
class Tuning:
    """Names and meanings are those of the settings. `gpus`: how many the worker must see; 0 for any number."""

    threads_prompt: int = 0
    batch_tokens: int = 2_048
    ubatch_tokens: int = 512
    flash_attention: OnOff = "auto"
    kv_type_k: KvType = "f16"
    kv_type_v: KvType = "f16"
    kv_unified: OnOff = "auto"
    split_mode: str = "layer"
    tensor_split: tuple[float, ...] = ()
    main_gpu: int = 0
    gpus: int = 0

    @property
    def unusual(self) -> str:
        """The settings that are not the default, as a person would look for them; empty where all are."""
        default = Tuning()
        changed = (f.name for f in fields(self) if getattr(self, f.name) != getattr(default, f.name))
        return ", ".join("--gpu" if name == "gpus" else f"--{name.replace('_', '-')}" for name in changed)


@dataclass(frozen=True)
class Wanted:
    """Everything with which a model is loaded. `context` 0 is the model's own, `threads` 0 every core."""

    slots: int = 1
    context: int = 32
    threads: int = 0
    gpu_layers: int = 0
    tuning: Tuning = Tuning()

    @property
    def arguments(self) -> dict[str, Any]:
        """For LlamaEngine, by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


def wanted_of(settings: Settings) -> Wanted:
    """What a worker with these settings asks for."""
    named = {f.name: getattr(settings, f.name) for f in fields(Tuning) if f.name != "gpus"}
    gpus = len(settings.gpu[0].split("+")) if settings.gpu else 0
    tuning = Tuning(**named, gpus=gpus)
    return Wanted(settings.slots, settings.ctx, settings.threads, settings.gpu_layers, tuning)


def to_text(wanted: Wanted) -> str:
    """For the command line of a child."""
    return json.dumps(asdict(wanted))


def from_text(text: str) -> Wanted:
    """What `to_text` has written."""
    found = json.loads(text)
    tuning = found.pop("tuning")
    return Wanted(**found, tuning=Tuning(**tuning | {"tensor_split": tuple(tuning["tensor_split"])}))
