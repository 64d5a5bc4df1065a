"""Which packages are tried, and how an environment for each is made."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
INSTALL_S = 900.0


@dataclass(frozen=True)
class Environment:
    """A client in the version that is tried; `script` is a file of `clients`."""

    name: str
    requirements: tuple[str, ...]
    script: str


ENVIRONMENTS = (
    Environment("openai 3", ("openai>=3,<4",), "use_openai.py"),
    Environment("text-generation 0.7", ("text-generation>=0.7,<0.8",), "use_text_generation.py"),
    Environment("huggingface_hub 2", ("huggingface_hub>=2,<3",), "use_huggingface_hub.py"),
    # Its client needs pkg_resources, which later ones of setuptools have no longer.
    Environment("lamini 2.1.8", ("lamini==2.1.8", "setuptools<80"), "use_lamini.py"),
    Environment("lamini 2.5.7", ("lamini==2.5.7", "setuptools<80"), "use_lamini.py"),
    Environment("lamini 3.4.3", ("lamini==3.4.3", "setuptools<80"), "use_lamini.py"),
    Environment("ollama 0.6", ("ollama>=0.6,<0.7",), "use_ollama.py"),
    Environment("litellm", ("litellm",), "use_litellm.py"),
    Environment("langchain-openai", ("langchain-openai",), "use_langchain.py"),
    Environment("llama-index openai-like", ("llama-index-llms-openai-like",), "use_llama_index.py"),
)


def cache() -> Path:
    """Where environments are kept from one run to the next."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "llama-herder" / "conformance"


def python_of(environment: Environment) -> Path:
    """Its interpreter; installs the packages where that was not done yet. Raises CalledProcessError."""
    digest = hashlib.sha256("\n".join((sys.version, *environment.requirements)).encode()).hexdigest()[:12]
    folder = cache() / f"{environment.script.removesuffix('.py')}-{digest}"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        uv = Path(sys.executable).with_name("uv")
        _run(uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder)
        _run(uv, "pip", "install", "--quiet", "--python", python, *environment.requirements)
        (folder / "complete").touch()
    return python


def version_in(python: Path, package: str) -> str:
    """The version of a package that is installed there."""
    asked = f"from importlib.metadata import version; print(version({package!r}))"
    return subprocess.run([python, "-c", asked], check=True, capture_output=True, text=True).stdout.strip()


def _run(*command: object) -> None:
    subprocess.run([str(part) for part in command], check=True, timeout=INSTALL_S)
