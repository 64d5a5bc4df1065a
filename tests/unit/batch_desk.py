"""`herder batch` against a herder in memory: a folder with an input, and the command line run in this process."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from llama_herder import Herder, _sync
from llama_herder.cli import app, session
from llama_herder.cli.batch_files import SUFFIX
from tests.unit.batch_script import Script, line

RUN = ["batch", "in.jsonl", "--tokens", "40", "-o", "out.jsonl"]
OUT, STATE = Path("out.jsonl"), Path("out.jsonl" + SUFFIX)
ITEMS = (
    b'{"prompt": "one"}\n\n{"prompt": "zwei \xe2\x99\xa5", "custom_id": "b"}\r\n{"messages": [], "tokens": 3}'
)


class Desk:
    """Runs command lines against a script, in a folder of its own."""

    def __init__(self, script: Script, capsys: pytest.CaptureFixture[str]) -> None:
        self.script, self._capsys = script, capsys
        self.url = "http://herd.example"

    def client(self, url: str | None, key: str | None, *, admin: bool = False) -> Herder:
        """What `session.client` gives."""
        return Herder(url or self.url, key, tries=3, transport=httpx.MockTransport(self.script))

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error; of RUN without arguments."""
        code = app.execute(list(arguments) or RUN)
        shown = self._capsys.readouterr()
        return code, shown.out, shown.err


def seated(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    """A desk in that folder, with in.jsonl on it; pauses take no time."""
    monkeypatch.chdir(folder)
    Path("in.jsonl").write_bytes(ITEMS)
    desk = Desk(Script(), capsys)
    monkeypatch.setattr(session, "client", desk.client)
    monkeypatch.setattr(_sync, "_sleep", lambda seconds: None)
    return desk


def whole(script: Script) -> bytes:
    """The file of answers once it is."""
    return b"".join(line(found) for found in script.results())
