"""Every setting of the herd: an environment variable `HERDER_…`, a line of `.env.example`, often a flag.

Flag over environment over file (`.env` in the working directory) over default. Times end in their unit.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import PurePath
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_settings import NoDecode

from herder.broker_settings import split_list
from herder.dialect_settings import DialectSettings

OnOff = Literal["auto", "on", "off"]
KvType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]
KV_TYPES: tuple[str, ...] = get_args(KvType)
THREADS_MAX = 512
"""GGML_MAX_N_THREADS: it aborts above."""
Share = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def model_name(model: str) -> str:
    """The name of a configured model: `name=anything`, or the file's name without its ending."""
    name, given, _ = model.partition("=")
    return name if given else re.sub(r"[^A-Za-z0-9._-]", "-", PurePath(name).name.removesuffix(".gguf"))


class Settings(DialectSettings):
    """One object for every process of the herd; each reads the part it needs."""

    # The workers
    workers: int = Field(
        default=1,
        ge=0,
        le=256,
        description="workers that `herder up` starts for each model, and of each GPU of HERDER_GPU",
    )
    model: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("herd-tiny",),
        description="comma-separated models: herd-tiny, a GGUF file, hf:owner/repo/file.gguf, or name=any of these; "
        "empty: the workers wait until an admin chooses",
    )
    model_sha256: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="comma-separated SHA-256 digests, or files of them, one a line: with any given, a worker serves "
        "only model files that are on the list",
    )
    template: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="comma-separated chat templates over those of the model files: llama-2, chatml or a file, for "
        "every model, or model=any of these for one",
    )
    slots: int = Field(default=4, ge=1, le=256, description="jobs a worker decodes at once")
    ctx: int = Field(
        default=0,
        ge=0,
        le=16_777_216,
        description="most tokens (prompt + answer) of one job; 0 takes the model's own, at most 4096",
    )
    threads: int = Field(
        default=0,
        ge=0,
        le=THREADS_MAX,
        description="threads of a worker; 0 shares the cores among the workers",
    )
    threads_prompt: int = Field(
        default=0,
        ge=0,
        le=THREADS_MAX,
        description="threads for steps that read prompts; 0 takes as many as HERDER_THREADS",
    )
    batch_tokens: int = Field(
        default=2_048, ge=1, le=65_536, description="most tokens of one step; at least the slots"
    )
    ubatch_tokens: int = Field(
        default=512,
        ge=1,
        le=65_536,
        description="tokens of a step that are computed at once, which costs memory",
    )
    flash_attention: OnOff = Field(
        default="auto", description="attention in one pass: auto (where llama.cpp can), on, off"
    )
    kv_type_k: KvType = Field(
        default="f16", description="type of the keys in the KV cache: " + ", ".join(KV_TYPES)
    )
    kv_type_v: KvType = Field(
        default="f16",
        description="type of the values in it; one that begins with q or iq needs flash attention",
    )
    kv_unified: OnOff = Field(
        default="auto",
        description="one KV cache for all jobs of a worker, in which beginnings are shared (on), or a part for each "
        "slot, between which they are copied (off); auto: one for up to 4 slots",
    )
    gpu_layers: int = Field(
        default=0, ge=-1, description="layers on the GPU; -1 for all, which is the default with HERDER_GPU"
    )
    gpu: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="comma-separated GPUs, counted as nvidia-smi does: 0,1 for workers on each of the two, 0+1,2+3 for "
        "workers over two each; empty leaves every worker all of them",
    )
    split_mode: Literal["layer", "row", "none"] = Field(
        default="layer", description="how a worker with several GPUs shares the model out among them"
    )
    tensor_split: Annotated[tuple[Share, ...], NoDecode] = Field(
        default=(),
        description="comma-separated shares of the model of a worker's GPUs, such as 3,1; empty goes by free memory",
    )
    main_gpu: int = Field(
        default=0,
        ge=0,
        description="of a worker's GPUs, counted from 0, the one that does what is not shared out (row), or all (none)",
    )
    drain_ms: int = Field(
        default=30_000, ge=0, description="how long a stopping worker finishes jobs before it hands them back"
    )
    watchdog_ms: int = Field(
        default=30_000,
        ge=0,
        description="a worker that has work and finishes no step for this long ends, so that another starts; more than "
        "the lease, 0 for never",
    )
    recycle_jobs: int = Field(
        default=0,
        ge=0,
        description="jobs after which a worker makes room for a fresh process, or up to a quarter more; 0 for never",
    )
    recycle_growth_mb: int = Field(
        default=2_048,
        ge=0,
        description="growth of a warm worker's own memory after which it makes room for a fresh process; 0 for never",
    )
    sandbox: bool = Field(
        default=False,
        description="workers write nowhere and connect to nothing but Redis's port; Linux 6.7 or later (Landlock)",
    )

    # Logs
    log_level: str = Field(
        default="info", pattern=r"^(debug|info|warning|error)$", description="least level that is logged"
    )
    log_json: bool = Field(default=False, description="log JSON lines")

    @model_validator(mode="before")
    @classmethod
    def _whole_on_the_gpu(cls, values: Any) -> Any:
        """Whoever names GPUs, and no layers, wants all there."""
        if isinstance(values, dict) and values.get("gpu") and "gpu_layers" not in values:
            return values | {"gpu_layers": -1}
        return values

    @field_validator("gpu")
    @classmethod
    def _each_once(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        """A GPU is one worker's, or with `workers` that of several alike; and something goes there."""
        wrong = next(
            (group for group in value if not re.fullmatch(r"\d{1,3}(\+\d{1,3})*", group, re.ASCII)), None
        )
        if wrong is not None:
            raise ValueError(f"{wrong!r} is no GPU; write 0,1 for a worker on each, 0+1 for one over both")
        numbers = [int(number) for group in value for number in group.split("+")]
        twice = next((number for number in numbers if numbers.count(number) > 1), None)
        if twice is not None:
            raise ValueError(f"GPU {twice} is there twice; for two workers on each GPU set HERDER_WORKERS=2")
        if value and info.data.get("gpu_layers") == 0:
            raise ValueError(
                "no layer goes to the GPU with HERDER_GPU_LAYERS=0; set it to -1, or name no GPU"
            )
        return value

    @field_validator("split_mode")
    @classmethod
    def _all_of_them(cls, value: str, info: ValidationInfo) -> str:
        several = [group for group in info.data.get("gpu", ()) if "+" in group]
        if value == "none" and several:
            raise ValueError(
                f"none uses one GPU of {several[0]}; set layer or row, or name one for each worker"
            )
        return value

    @field_validator("tensor_split")
    @classmethod
    def _shares(cls, value: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        """As many shares as a worker has GPUs, where that is known; never silently without effect."""
        if not value:
            return value
        if info.data.get("split_mode") == "none":
            raise ValueError("nothing is shared out with HERDER_SPLIT_MODE=none; set that to layer or row")
        if not any(value):
            raise ValueError("all shares are 0; give each GPU one, such as 3,1")
        if info.data.get("gpu_layers") == 0:
            raise ValueError("no layer goes to a GPU; set HERDER_GPU_LAYERS=-1")
        for group in info.data.get("gpu", ()):
            if len(numbers := group.split("+")) != len(value):
                raise ValueError(
                    f"{len(value)} shares, and a worker on {len(numbers)} GPU ({group}); write HERDER_GPU as "
                    f"{'+'.join(map(str, range(len(value))))} for one worker over {len(value)} GPUs"
                )
        return value

    @field_validator("main_gpu")
    @classmethod
    def _main(cls, value: int, info: ValidationInfo) -> int:
        """One of those that every worker has."""
        for group in info.data.get("gpu", ()):
            if value >= len(group.split("+")):
                raise ValueError(
                    f"GPU {value} of a worker with {group}: they are counted from 0 among its own"
                )
        return value

    @field_validator("batch_tokens")
    @classmethod
    def _a_token_each(cls, value: int, info: ValidationInfo) -> int:
        """Every job that is being answered takes part in every step."""
        slots = info.data.get("slots", 1)
        if value < slots:
            raise ValueError(f"{value} is less than the {slots} slots, each of which needs one in every step")
        return value

    @field_validator("kv_type_v")
    @classmethod
    def _needs_flash(cls, value: str, info: ValidationInfo) -> str:
        if value.startswith(("q", "iq")) and info.data.get("flash_attention") == "off":
            raise ValueError(f"{value} needs flash attention: set HERDER_FLASH_ATTENTION=auto, or take f16")
        return value

    @field_validator("watchdog_ms")
    @classmethod
    def _outlasts_the_lease(cls, value: int, info: ValidationInfo) -> int:
        """A worker that is merely slow loses its jobs before it is ended."""
        lease_ms = info.data.get("lease_ms", 0)
        if 0 < value <= lease_ms:
            raise ValueError(
                f"{value} ms is not more than the lease of {lease_ms} ms; raise it, or 0 for none"
            )
        return value

    @field_validator("model", "model_sha256", "template", "gpu", "tensor_split", mode="before")
    @classmethod
    def _split_ours(cls, value: Any) -> Any:
        return split_list(value)
