"""Answers questions out of a folder of documents: finds the passages that fit, asks a herd, cites what it was given.

    python examples/rag.py "What happens to my credits when a worker dies?"
    python examples/rag.py --docs notes/ "When is the meeting?"

The passages are found by their words (BM25), on this machine, without a model. Needs `pip install
'.[examples]'`, and HERDER_URL and HERDER_API_KEY in the environment.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import bm25s

import llama_herder
from llama_herder import ContextExceeded, HerderError

DOCS = Path(__file__).resolve().parents[1] / "docs"
PASSAGE_CHARS_MAX = 700
FILES_MAX = 2_000
FILE_BYTES_MAX = 1_000_000


@dataclass(frozen=True)
class Passage:
    """Some lines of a document, and the headings that they stand under."""

    path: str
    line: int
    heading: str
    text: str

    def source(self) -> str:
        """Where it stands."""
        return f"{self.path}:{self.line}" + (f" ({self.heading})" if self.heading else "")


def passages(folder: Path) -> list[Passage]:
    """Every Markdown and text file below the folder, cut at headings and empty lines."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in {".md", ".txt"})[:FILES_MAX]
    found = []
    for path in files:
        with path.open("rb") as file:
            text = file.read(FILE_BYTES_MAX).decode("utf-8", "replace")
        found += list(_cut(path.relative_to(folder).as_posix(), text))
    return found


def _cut(path: str, text: str) -> Iterator[Passage]:
    heading, begun, lines = "", 1, list[str]()
    fenced = False
    for number, line in enumerate([*text.splitlines(), "# "], 1):
        fenced ^= line.lstrip().startswith("```")
        ends = line.startswith("#") and not fenced
        long = sum(map(len, lines)) + len(line) > PASSAGE_CHARS_MAX
        if lines and (ends or (long and not line.strip()) or sum(map(len, lines)) > 2 * PASSAGE_CHARS_MAX):
            yield Passage(path, begun, heading, "\n".join(lines).strip())
            lines = []
        if ends:
            heading = line.lstrip("# ")
        elif lines or line.strip():
            begun = begun if lines else number
            lines.append(line)


class Search:
    """Passages by the words of a question."""

    def __init__(self, found: list[Passage]) -> None:
        self._passages = found
        self._index = bm25s.BM25()
        self._index.index(
            bm25s.tokenize([f"{p.heading} {p.heading} {p.text}" for p in found], show_progress=False),
            show_progress=False,
        )

    def best(self, question: str, k: int) -> list[Passage]:
        """At most `k`, the best first; none that has no word of the question."""
        asked = bm25s.tokenize(question, show_progress=False)
        most = min(k, len(self._passages))
        ids, scores = self._index.retrieve(asked, k=most, show_progress=False)
        return [self._passages[at] for at, score in zip(ids[0], scores[0], strict=True) if score > 0]


def prompt_of(question: str, found: list[Passage]) -> str:
    """The passages, numbered, and the question."""
    cited = "\n\n".join(f"[{n}] {p.source()}\n{p.text}" for n, p in enumerate(found, 1))
    return (
        f"Passages:\n\n{cited}\n\n"
        f"Answer the question from these passages alone, and name the passage that says so, like [1].\n"
        f"Question: {question}"
    )


def answer(question: str, found: list[Passage], tokens: int = 120) -> tuple[str, list[Passage]]:
    """The answer, and the passages that the model has read: the best ones, as many as its context holds."""
    while True:
        try:
            return llama_herder.run(prompt_of(question, found), tokens, max_fee=1_000), found
        except ContextExceeded:  # it cost nothing
            if len(found) < 2:
                raise
            found = found[:-1]


def main() -> None:
    """Find, ask, cite."""
    parser = argparse.ArgumentParser(description="Ask a folder of documents.")
    parser.add_argument("question")
    parser.add_argument("--docs", type=Path, default=DOCS)
    parser.add_argument("--passages", type=int, default=4, help="at most so many")
    asked = parser.parse_args()
    everything = passages(asked.docs)
    if not everything:
        parser.error(f"there is no text below {asked.docs}")
    found = Search(everything).best(asked.question, asked.passages)
    if not found:
        sys.exit("nothing there has a word of this question: nothing was asked, nothing was paid")
    text, read = answer(asked.question, found)
    print(text.strip())
    print()
    for number, passage in enumerate(read, 1):
        print(f"[{number}] {passage.source()}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted")
    except HerderError as error:
        sys.exit(f"error: {error}")
