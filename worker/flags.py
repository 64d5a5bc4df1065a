"""The flags of `herder-worker`, and the settings under them: a flag goes before its setting (HERDER_… or `.env`)."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from herder.settings import Settings


def parser() -> argparse.ArgumentParser:
    """Every flag; those that have a setting are named as it is, and are None where they were not given."""
    p = argparse.ArgumentParser(prog="herder-worker", description="Serve one model of a herd.")
    p.add_argument(
        "--model",
        help="herd-tiny, a .gguf file, hf:owner/repo/file.gguf, or name=any of these; empty: an admin's choice",
    )
    p.add_argument("--name", help="the model's name in the herd (default: the file's)")
    p.add_argument("--id", help="this worker's id (default: host, process and a random part)")
    p.add_argument("--data-dir", type=Path, help="where downloaded models are kept")
    p.add_argument("--redis-url", help="redis://, rediss:// or unix:// URL")
    p.add_argument("--slots", type=int, help="jobs decoded at once")
    p.add_argument(
        "--ctx", type=int, help="most tokens (prompt + answer) of one job; 0: the model's, at most 4096"
    )
    p.add_argument("--template", help="chat template over the file's own: llama-2, chatml or a file")
    _of_llama(p)
    p.add_argument("--drain-ms", type=int, help="how long a stopping worker finishes jobs")
    p.add_argument(
        "--sha256", dest="model_sha256", help="SHA-256 digests that the model file may have, or files of them"
    )
    p.add_argument(
        "--sandbox", action="store_true", default=None, help="write nowhere, connect to nothing but Redis"
    )
    p.add_argument(
        "--engine", choices=("llama", "fake"), default="llama", help="fake: scripted answers, for tests"
    )
    p.add_argument("--supervised", action="store_true", help=argparse.SUPPRESS)
    p.add_argument("--turn-lock", type=int, help=argparse.SUPPRESS)
    p.add_argument("--fake-step-ms", type=float, default=0.0, help=argparse.SUPPRESS)
    return p


def _of_llama(p: argparse.ArgumentParser) -> None:
    """How llama.cpp is to work."""
    p.add_argument("--threads", type=int, help="threads; 0: every core, other workers or not")
    p.add_argument("--threads-prompt", type=int, help="threads for steps that read prompts; 0: the same")
    p.add_argument("--batch-tokens", type=int, help="most tokens of one step")
    p.add_argument("--ubatch-tokens", type=int, help="tokens of a step that are computed at once")
    p.add_argument("--flash-attention", help="auto, on or off")
    p.add_argument("--kv-type-k", help="type of the keys in the KV cache: f16, q8_0, q4_0, …")
    p.add_argument("--kv-type-v", help="type of the values in it")
    p.add_argument(
        "--kv-unified", help="one KV cache for all slots (on), a part for each (off); auto: one for up to 4"
    )
    p.add_argument("--gpu-layers", type=int, help="layers on the GPU; -1: all")
    p.add_argument("--gpu", help="the GPU of this worker; 0+1: both")
    p.add_argument("--split-mode", help="how several GPUs share the model: layer, row or none")
    p.add_argument("--tensor-split", help="their shares of the model, such as 3,1")
    p.add_argument("--main-gpu", type=int, help="the one of them that does what is not shared out")


def settings_under(flags: argparse.Namespace) -> Settings:
    """The settings with the flags over them. Raises ValueError, whose message says what to do."""
    given: dict[str, Any] = {
        name: value
        for name, value in vars(flags).items()
        if value is not None and name in Settings.model_fields
    }
    for name in {"model", "template"} & given.keys():
        given[name] = (given[name],)
    try:
        return Settings(**given)
    except ValidationError as error:
        problem = error.errors()[0]
        raise ValueError(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg'].removeprefix('Value error, ')}"
        ) from error
