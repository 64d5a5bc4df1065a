"""From what somebody typed to a GGUF file that is known to load: `herd-tiny`, a path, `hf:owner/repo/file.gguf`.

Any of them may be given a name: `name=spec`. Whatever is wrong with a file is said in one line, before the worker
touches it: its header is read in Python, then a child process loads it, since llama.cpp may abort. Must not know of
Redis or of jobs.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from herder.settings import cores
from worker.digests import check_allowed, other_parts
from worker.engine import ModelUnusable
from worker.gguf import BadGguf, Header, read_header
from worker.tuning import Wanted, to_text

BUILT_IN = "herd-tiny"
HUB = "https://huggingface.co"
NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$")
PROBE_S = 600.0
FETCH_S = 86_400.0


@dataclass(frozen=True)
class ModelSpec:
    """What was typed, read: the model's name in the herd, and where it comes from."""

    name: str
    source: str


def parse_spec(text: str) -> ModelSpec:
    """Read `name=source` or `source`; without a name it is the file's, less `.gguf`. Raises ValueError."""
    name, equals, source = text.partition("=")
    if not equals:
        source = text
        name = re.sub(r"\.gguf$", "", source.replace("\\", "/").rpartition("/")[2])
        name = re.sub(r"[^A-Za-z0-9._-]", "-", name)
    if not source:
        raise ValueError(
            f"model {text!r} names nothing: use herd-tiny, a .gguf file or hf:owner/repo/file.gguf"
        )
    if not NAME.match(name):
        raise ValueError(
            f"{name!r} cannot be a model's name: letters, digits, '.', '_', '-'; give one as name={source}"
        )
    return ModelSpec(name, source)


def locate(spec: ModelSpec, data_dir: Path) -> Path:
    """The file itself, downloaded first where it must be. Raises ModelUnusable."""
    if spec.source == BUILT_IN:
        path = Path(str(files("herder") / "models" / f"{BUILT_IN}.gguf"))
        hint = "this installation lacks its built-in model; install it again, or name a .gguf file"
    elif spec.source.startswith("hf:"):
        return _download(spec.source, data_dir / "models")
    else:
        path = Path(spec.source).expanduser()
        what = "a folder" if path.is_dir() else "no such file"
        hint = f"{what}; name a .gguf file, herd-tiny, or hf:owner/repo/file.gguf"
    if not path.is_file():
        raise ModelUnusable(f"{path}: {hint}")
    return path


def locate_apart(spec: ModelSpec, data_dir: Path) -> Path:
    """As `locate`, with a download in a process of its own: no thread of it stays here. Raises ModelUnusable."""
    if not spec.source.startswith("hf:"):
        return locate(spec, data_dir)
    child = subprocess.run(
        [sys.executable, "-m", "worker.fetch", spec.source, str(data_dir)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace", timeout=FETCH_S, check=False,
    )  # fmt: skip
    said = (child.stdout.strip().splitlines() or [f"{spec.source}: its download ended without a word"])[-1]
    if child.returncode != 0:
        raise ModelUnusable(said)
    return Path(said)


def _download(source: str, folder: Path) -> Path:
    """Fetch `hf:owner/repo/path/in/repo.gguf`; what is there is not fetched again, what was cut off is continued."""
    match = re.match(r"^hf:([^/]+/[^/]+)/(.+\.gguf)$", source)
    if match is None or ".." in source:
        raise ModelUnusable(f"{source}: write it as hf:owner/repo/file.gguf")
    # It prints each try of its own accord, and hands it to our log besides; read when it is imported.
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    # Slow to import, and only needed here.
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    endpoint = os.environ.get("HF_ENDPOINT") or None
    try:
        return Path(
            hf_hub_download(
                repo_id=match[1], filename=match[2], local_dir=folder / match[1], endpoint=endpoint
            )
        )
    except LocalEntryNotFoundError as error:
        # It says, in three sentences for every reason, that the hub gave nothing: the reason is behind it.
        why = error.__cause__ if isinstance(error.__cause__, Exception) else error
        raise ModelUnusable(
            f"{source}: cannot be downloaded from {endpoint or HUB} just now ({_first_line(why).rstrip('.')}); "
            "try again later, or name a .gguf file that is here"
        ) from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise ModelUnusable(
            f"{source}: cannot be downloaded ({_first_line(error)}); check the name"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def check(path: Path, allowed: frozenset[str] | None = None, wanted: Wanted = Wanted()) -> Header:  # noqa: B008
    """Everything that can be wrong with the file, found without loading it here; with a list, it is on the list.

    It loads as it is `wanted`, and there is memory for that.
    Raises ModelUnusable.
    """
    try:
        if allowed is not None:
            check_allowed(path, allowed)
        header = read_header(path)
        for part in other_parts(path, header) if allowed is not None else []:
            check_allowed(part, allowed or frozenset())
    except (BadGguf, OSError, ValueError) as error:
        raise ModelUnusable(f"{path}: {error}; fetch it again or name another .gguf file") from error
    if header.tensors == 0:
        raise ModelUnusable(f"{path}: a vocabulary without a model (no tensors); name a complete .gguf file")
    _probe(path, wanted)
    return header


def _probe(path: Path, wanted: Wanted) -> None:
    """Load it in a child process: a native abort there is one line here."""
    code, said = _loaded_apart(path, wanted)
    if code == 0:
        return
    if code < 0 and wanted != Wanted() and _loaded_apart(path, Wanted())[0] == 0:
        many = "--threads" if wanted.threads > cores() else ""
        changed = ", ".join(filter(None, (many, wanted.tuning.unusual)))
        others = f", or change {changed}" if changed else ""
        raise ModelUnusable(
            f"{path}: llama.cpp loads it, but not with these settings (signal {-code}); lower --slots or --ctx"
            + others
        )
    if code < 0:
        raise ModelUnusable(
            f"{path}: llama.cpp crashed on it (signal {-code}); try another GGUF of this model"
        )
    reason = said.strip().splitlines()[-1:] or ["llama.cpp gave no reason"]
    if "shared library" in reason[0]:  # built for a GPU, and the machine has not even its driver
        raise ModelUnusable(
            f"llama.cpp cannot be loaded ({reason[0]}): install the driver of the GPU that llama-cpp-python was built "
            "for, or build it for processors alone"
        )
    raise ModelUnusable(reason[0] if str(path) in reason[0] else f"{path}: {reason[0]}")


def _loaded_apart(path: Path, wanted: Wanted) -> tuple[int, str]:
    """The exit code of the child, and what it wrote."""
    child = subprocess.Popen(
        [sys.executable, "-m", "worker.probe", str(path), to_text(wanted)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace",
    )  # fmt: skip
    with child:
        try:
            _, said = child.communicate(timeout=PROBE_S)
        except subprocess.TimeoutExpired:
            child.kill()  # and its output is not read to an end that a child of its own may put off
            raise ModelUnusable(f"{path}: llama.cpp has not loaded it within {PROBE_S:.0f} s") from None
    return child.returncode, said
