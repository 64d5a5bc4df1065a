"""The project's own files: what git tracks, and what it would track if it were added now.

Knows where the repository is; judges nothing.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Source:
    """One text file: its path from the root, with forward slashes, and its text."""

    path: str
    text: str


def project_files() -> list[Source]:
    """Every text file of the project, sorted by path."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    found: list[Source] = []
    for path in sorted(set(listing.stdout.decode().split("\0")) - {""}):
        file = ROOT / path
        if file.is_file():
            try:
                found.append(Source(path, file.read_bytes().decode()))
            except UnicodeDecodeError:
                continue
    return found


def modules_of(folder: str, files: list[Source]) -> list[str]:
    """Dotted names of the modules below a package's folder; `client/llama_herder` gives `llama_herder…`."""
    above = folder.rpartition("/")[0]
    names: list[str] = []
    for file in files:
        if file.path.startswith(folder + "/") and file.path.endswith(".py"):
            parts = file.path.removeprefix(above + "/").removesuffix(".py").split("/")
            if parts[-1] == "__main__":
                continue
            names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names
