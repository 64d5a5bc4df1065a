"""The command line without a herd: what is loaded, what is printed, which exit code, where settings come from."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest

from llama_herder.cli import app, output, prompt, session
from llama_herder.cli.output import Exit, UsageProblem
from llama_herder.types import Job

SERVER = {"herder", "fastapi", "starlette", "redis", "uvicorn", "worker", "arq"}
NOWHERE = ["--url", "http://127.0.0.1:9"]


def loaded_by(*arguments: str) -> set[str]:
    """The top-level modules after a command line has run in a process of its own."""
    code = (
        "import sys\nfrom llama_herder.cli import session\nfrom llama_herder.cli.app import execute\n"
        "session.REFUSED_S_MAX = 0\n"
        f"execute({list(arguments)!r})\n"
        "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, input="")
    return set(child.stderr.splitlines()[-1].split())


@pytest.mark.parametrize(
    "arguments", [["run", "hi", "--tokens", "4", *NOWHERE], ["account", *NOWHERE], ["jobs", "--help"]]
)
def test_a_client_command_loads_nothing_of_the_server(arguments: list[str]) -> None:
    loaded = loaded_by(*arguments)
    assert {"typer", "httpx"} <= loaded
    assert not loaded & SERVER


def test_a_server_command_does() -> None:
    """The control of the test above."""
    assert "herder" in loaded_by("config", "--help")


def test_help_lists_both_groups(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.execute(["--help"]) == 0
    shown = capsys.readouterr().out
    for name in (*app.CLIENT_COMMANDS, "up", "serve", "courier", "demo", "audit", "config"):
        assert f" {name} " in shown
    assert app.execute([]) == 0
    assert "Run a herd" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["up", "serve", "courier", "demo", "audit", "config"])
def test_without_the_server_its_commands_say_what_to_install(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "herder.commands", None)
    assert app.execute([command, "--port", "1"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert "llama-herder[herder" in shown.err
    assert shown.err.count("\n") == 1


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_its_extra_the_command_says_so(missing: str) -> None:
    code = f"import sys\nsys.modules[{missing!r}] = None\nfrom llama_herder.cli.main import main\nmain()"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert child.returncode == 2
    assert child.stderr == "error: the herder command needs its extra: pip install 'llama-herder[cli]'\n"


@pytest.mark.parametrize("command", [[], ["run"], ["account"], ["account", "create"], ["config"]])
def test_help_shows_flags_without_a_value(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert app.execute([*command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--help" in shown
    assert "<bool>" not in shown
    assert "BOOLEAN" not in shown


@pytest.mark.parametrize("command", ["add", "default"])
def test_webhook_help_does_not_mix_up_two_urls(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.execute(["webhooks", command, "--help"]) == 0
    assert "WEBHOOK_URL" in capsys.readouterr().out


def test_without_a_standard_output_nothing_is_sent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert app.execute(["run", "hi", "--tokens", "4", *NOWHERE]) == 2
    assert capsys.readouterr().err == "error: standard output is closed\n"


@pytest.mark.parametrize("timeout", ["-1", "nan"])
@pytest.mark.parametrize("stream", [[], ["--stream"]])
def test_a_timeout_that_is_none_is_told_before_anything_is_paid(
    timeout: str, stream: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.execute(["run", "hi", "--tokens", "4", f"--timeout={timeout}", *stream, *NOWHERE]) == 2
    assert capsys.readouterr().err == f"error: timeout must be 0 seconds or more, not {timeout}\n"


def test_tables_are_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(("name", "credits", "note"), [("ann", 1_000_000, "x" * 300), ("b\x1b[2J", None, True)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["name", "credits", "note"]
    assert lines[1].split() == ["ann", "1", "000", "000", "x" * 300]
    assert "\x1b" not in lines[2]


def test_an_answer_is_printed_as_it_is_into_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_text("a\x1b[31mb\n")
    output.print_text("c")
    assert capsys.readouterr().out == "a\x1b[31mb\nc\n"


def test_an_answer_cannot_steer_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    output.print_text("a\x1b[31mb\x07\n\tü")
    assert screen.getvalue() == "a[31mb\n\tü\n"


@pytest.mark.parametrize(
    ("status", "shown"), [("running", "being cancelled"), ("cancelled", "cancelled"), ("failed", "failed")]
)
def test_only_a_live_job_is_being_cancelled(status: str, shown: str) -> None:
    assert output.state_of(Job(id="job_1", status=status, cancel_requested=True)) == shown


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HERDER_URL", "HERDER_API_KEY", "HERDER_ADMIN_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_flag_over_environment_over_file_over_default(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("HERDER_URL",)
    assert session.find(None, names, "d") == session.Setting("d", "default")
    (folder / ".env").write_text('# a comment\nexport HERDER_URL="f"\nOTHER=1\nnonsense\n')
    assert session.find(None, names, "d") == session.Setting("f", "file")
    monkeypatch.setenv("HERDER_URL", "e")
    assert session.find(None, names, "d") == session.Setting("e", "environment")
    assert session.find("x", names, "d") == session.Setting("x", "flag")


def test_an_admin_command_prefers_the_admin_key(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("HERDER_ADMIN_KEY", "HERDER_API_KEY")
    monkeypatch.setenv("HERDER_API_KEY", "mine")
    assert session.find(None, names).value == "mine"
    monkeypatch.setenv("HERDER_ADMIN_KEY", "root")
    assert session.find(None, names).value == "root"


def read(text: str | None, *, system: str | None = None, raw: bool = False) -> object:
    return prompt.read_prompt(text, None, system, raw)


def test_where_a_prompt_comes_from(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "p.txt").write_text("from a file")
    assert read("plain") == "plain"
    assert read("@p.txt") == "from a file"
    assert read("@@home") == "@home"
    assert read("hi", system="be brief") == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hi"},
    ]
    for given in (None, "-"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"piped")))
        assert read(given) == "piped"


@pytest.mark.parametrize("name", ["@", "@nowhere", "@.", "@a\x00b"])
def test_a_file_that_cannot_be_read_is_one_line(folder: Path, name: str) -> None:
    with pytest.raises(UsageProblem, match="cannot read"):
        read(name)


def test_a_system_message_has_no_place_in_a_raw_prompt() -> None:
    with pytest.raises(UsageProblem):
        read("hi", system="x", raw=True)


def test_deeply_nested_json_is_one_line(folder: Path) -> None:
    (folder / "chat.json").write_text("[" * 100_000)
    with pytest.raises(UsageProblem, match="nothing was sent"):
        prompt.read_prompt(None, "chat.json", None, False)


def test_a_mistake_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(session, "client", broken)
    with pytest.raises(RuntimeError):
        app.execute(["info"])


def test_every_exit_code_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs/reference/cli.md").read_text()
    for code in Exit:
        assert f"| {code.value} |" in page


def test_no_page_has_a_stranger_s_package_installed() -> None:
    """The name alone would be looked for on PyPI, where it is not ours."""
    root = Path(__file__).parents[2]
    pages = {path: path.read_text("utf-8") for path in (root / "README.md", *root.glob("docs/**/*.md"))}
    by_name = re.compile(r"pip install ['\"]?llama-herder")
    assert [path.name for path, text in pages.items() if by_name.search(text)] == []
    told = {path.name for path, text in pages.items() if "/path/to/llama-herder" in text and "PyPI" in text}
    assert told >= {"README.md", "first-program.md", "python.md", "cli.md"}
