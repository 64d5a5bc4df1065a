"""From settings to llama.cpp's parameters, of a model and of a context, and what is checked of them beforehand."""

from __future__ import annotations

import ctypes
from typing import Any

import llama_cpp
from llama_cpp._ggml import libggml

from worker.engine import ModelUnusable
from worker.tuning import Tuning

GGML_TYPE_BF16 = 30  # which the binding does not name
KV_TYPES = {
    "f32": llama_cpp.GGML_TYPE_F32,
    "f16": llama_cpp.GGML_TYPE_F16,
    "bf16": GGML_TYPE_BF16,
    "q8_0": llama_cpp.GGML_TYPE_Q8_0,
    "q5_1": llama_cpp.GGML_TYPE_Q5_1,
    "q5_0": llama_cpp.GGML_TYPE_Q5_0,
    "q4_1": llama_cpp.GGML_TYPE_Q4_1,
    "q4_0": llama_cpp.GGML_TYPE_Q4_0,
    "iq4_nl": llama_cpp.GGML_TYPE_IQ4_NL,
}
FLASH_ATTENTION = {
    "auto": llama_cpp.LLAMA_FLASH_ATTN_TYPE_AUTO,
    "on": llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    "off": llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}
SPLIT_MODES = {
    "none": llama_cpp.LLAMA_SPLIT_MODE_NONE,
    "layer": llama_cpp.LLAMA_SPLIT_MODE_LAYER,
    "row": llama_cpp.LLAMA_SPLIT_MODE_ROW,
}
GPU_DEVICES = (1, 2)
"""GGML_BACKEND_DEVICE_TYPE_GPU, with memory of its own, and _IGPU, which llama.cpp uses where there is no other."""

SEQUENCES_MAX = 256
"""The most that llama.cpp keeps apart (LLAMA_MAX_SEQ)."""
KEEPING_LEAST = 32
KEEPING_A_SLOT = 3
"""Sequences that only keep what jobs have left, for each that is decoded. A sequence costs room for a row of logits."""


def gpus_seen() -> int:
    """How many GPUs llama.cpp has found and would use."""
    libggml.ggml_backend_dev_count.restype = ctypes.c_size_t
    libggml.ggml_backend_dev_get.restype = ctypes.c_void_p
    devices = (
        ctypes.c_void_p(libggml.ggml_backend_dev_get(ctypes.c_size_t(i)))
        for i in range(libggml.ggml_backend_dev_count())
    )
    kinds = [libggml.ggml_backend_dev_type(device) for device in devices]
    return next((found for found in map(kinds.count, GPU_DEVICES) if found), 0)


def check_gpus(gpu_layers: int, tuning: Tuning) -> None:
    """Raises ModelUnusable where GPUs were asked for that are not there: llama.cpp would silently use the processor."""
    some = 1 if gpu_layers or tuning.split_mode != "layer" else 0
    main = tuning.main_gpu + 1 if tuning.main_gpu else 0
    wanted = max(tuning.gpus, len(tuning.tensor_split), main, some)
    if wanted > llama_cpp.llama_max_devices():
        raise ModelUnusable(
            f"{wanted} GPUs are wanted, llama.cpp uses {llama_cpp.llama_max_devices()} at most"
        )
    seen = gpus_seen()
    if wanted <= seen:
        return
    if not seen:
        raise ModelUnusable(
            "a GPU is wanted and llama.cpp sees none: build llama-cpp-python for it (for NVIDIA with "
            'CMAKE_ARGS="-DGGML_CUDA=ON") and look at its driver, or leave --gpu-layers, --gpu, --split-mode, '
            "--tensor-split and --main-gpu out"
        )
    raise ModelUnusable(
        f"{wanted} GPUs are wanted and llama.cpp sees {seen}: name those that are there (--gpu)"
    )


def sequences_for(slots: int) -> int:
    """How many sequences the cache of so many slots tells apart."""
    return min(slots + max(slots * KEEPING_A_SLOT, KEEPING_LEAST), SEQUENCES_MAX)


def of_model(gpu_layers: int, tuning: Tuning) -> Any:
    """`llama_model_params`."""
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = gpu_layers
    params.split_mode = SPLIT_MODES[tuning.split_mode]
    params.main_gpu = tuning.main_gpu
    if tuning.tensor_split:
        # One for each device that llama.cpp can tell apart; it reads them all.
        params.tensor_split = (ctypes.c_float * llama_cpp.llama_max_devices())(*tuning.tensor_split)
    return params


def of_context(tuning: Tuning, *, sequences: int, unified: bool, kv_tokens: int, threads: int) -> Any:
    """`llama_context_params` of a cache of `kv_tokens` for so many sequences."""
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = kv_tokens
    params.n_batch, params.n_ubatch = tuning.batch_tokens, tuning.ubatch_tokens
    params.n_seq_max = sequences
    # One token a sequence is sampled: without this, room for the logits of a whole batch is kept. llama.cpp keeps
    # a row for each sequence at once, and aborts where it is told to keep fewer.
    params.n_outputs_max = sequences
    params.n_threads, params.n_threads_batch = threads, tuning.threads_prompt or threads
    params.flash_attn_type = FLASH_ATTENTION[tuning.flash_attention]
    params.type_k, params.type_v = KV_TYPES[tuning.kv_type_k], KV_TYPES[tuning.kv_type_v]
    params.kv_unified = unified
    params.no_perf = True
    return params
