"""Print the eight places a prompt passes, in order: what `make tour` runs.

Each stop is a comment `Tour k/8: …` in the source. A plain script: it needs no package of the project.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("herder", "worker", "client")
STOP = re.compile(r"(?:#|--).*?\bTour (\d)/8\s*:?\s*(.*)")


def stops(root: Path) -> list[tuple[int, str, str]]:
    """(stop, `path:line`, text) for every stop of the tour, in order; a comment's following lines belong to it."""
    found: list[tuple[int, str, str]] = []
    for folder in FOLDERS:
        for file in sorted((root / folder).rglob("*")):
            if file.suffix not in {".py", ".lua"}:
                continue
            lines = file.read_text(encoding="utf-8").splitlines()
            for number, line in enumerate(lines):
                if match := STOP.search(line):
                    place = f"{file.relative_to(root).as_posix()}:{number + 1}"
                    found.append(
                        (int(match[1]), place, " ".join([match[2], *_rest(lines[number + 1 :])]).strip())
                    )
    return sorted(found)


def _rest(lines: list[str]) -> list[str]:
    rest: list[str] = []
    for line in lines:
        text = line.strip()
        if not text.startswith(("#", "--")) or STOP.search(text):
            break
        rest.append(text.lstrip("#-").strip())
    return rest


def main() -> int:
    """Print the tour; 1 where it has no stops."""
    found = stops(ROOT)
    for number, place, text in found:
        sys.stdout.write(f"Tour {number}/8  {place}\n          {text}\n")
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
