"""Settings and where they come from: flag over environment over file over default."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from herder.commands import config
from herder.errors import SetupError
from herder.settings import Settings
from herder.sources import env_example, load, sources, unknown_variables
from herder.up import check_templates

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty folder, and no variables of the machine's own."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"HERDER_{name.upper()}", raising=False)
    monkeypatch.chdir(tmp_path)


def source_of(name: str, settings: Settings, flags: frozenset[str] = frozenset()) -> str:
    (row,) = [row for row in sources(settings, flags) if row.variable == name]
    return f"{row.value} from {row.source}"


def test_flag_over_environment_over_file_over_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert source_of("HERDER_PORT", load()) == "8080 from default"
    Path(".env").write_text("HERDER_PORT=1001\n", "utf-8")
    assert source_of("HERDER_PORT", load()) == "1001 from file .env"
    monkeypatch.setenv("HERDER_PORT", "1002")
    assert source_of("HERDER_PORT", load()) == "1002 from environment"
    assert source_of("HERDER_PORT", load(port=1003), frozenset({"port"})) == "1003 from flag"


def test_env_example_is_what_the_settings_say() -> None:
    written = (ROOT / ".env.example").read_text("utf-8")
    assert written == env_example(), "run: herder config --env-example > .env.example"


def test_every_line_of_env_example_is_a_setting_with_its_default() -> None:
    text = env_example().replace("\n#HERDER_", "\nHERDER_")
    Path(".env").write_text(text, "utf-8")
    assert load() == Settings.model_construct(**load().model_dump())
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    for name, value in load().model_dump().items():
        if defaults[name] is not None:
            assert value == defaults[name], name


def test_a_wrong_value_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERDER_PORT", "eighty")
    with pytest.raises(SetupError, match=r"^HERDER_PORT: must be a valid integer.*, not "):
        load()


@pytest.mark.parametrize(
    "url",
    [
        "foo",
        "herd.example",
        "ftp://herd.example",
        "https://",
        "https://h:x/",
        "https://h?a=1",
        "https://h e/",
    ],
)
def test_a_public_address_that_no_link_can_be_made_of(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("HERDER_PUBLIC_URL", url)
    with pytest.raises(SetupError, match=r"^HERDER_PUBLIC_URL: must be an http:// or https:// URL"):
        load()


@pytest.mark.parametrize("url", ["", "https://herd.example", "http://[::1]:8080/herd/"])
def test_public_addresses(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("HERDER_PUBLIC_URL", url)
    assert load().public_url == url


@pytest.mark.parametrize("pauses", ["0,nan", "inf", "-1,5", "0,1e9", "soon", ""])
def test_pauses_that_cannot_be_waited_for(monkeypatch: pytest.MonkeyPatch, pauses: str) -> None:
    monkeypatch.setenv("HERDER_WEBHOOK_SCHEDULE_S", pauses)
    with pytest.raises(SetupError, match=r"^HERDER_WEBHOOK_SCHEDULE_S: "):
        load()


def test_secrets_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERDER_KEY_SECRET", "do not show this")
    assert source_of("HERDER_KEY_SECRET", load()) == "******** from environment"


def test_a_mistyped_variable_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERDER_PROT", "1")
    assert "HERDER_PROT" in unknown_variables()
    assert "HERDER_PORT" not in unknown_variables()


def test_lists_are_comma_separated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERDER_MODEL", "herd-tiny, big=path/to/big.gguf")
    assert load().model == ("herd-tiny", "big=path/to/big.gguf")


def test_the_password_of_a_redis_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERDER_REDIS_URL", "redis://me:secret@redis.internal:6379/0")
    assert source_of("HERDER_REDIS_URL", load()) == "redis://***@redis.internal:6379/0 from environment"


def test_a_file_that_is_no_text_is_one_clear_line() -> None:
    Path(".env").write_bytes(b"\xff\xfe=1")
    with pytest.raises(SetupError, match=r"^\.env"):
        load()


def test_an_empty_tls_path_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERDER_TLS_KEY", "")
    assert load().tls_key is None


@pytest.mark.parametrize(
    "given",
    [{"threads": 513}, {"threads_prompt": 100_000}, {"ctx": 100_000_000}],
    ids=lambda given: next(iter(given)),
)
def test_what_no_machine_can_do_is_refused_before_anything_is_loaded(given: dict[str, int]) -> None:
    (name,) = given
    with pytest.raises(SetupError, match=f"^HERDER_{name.upper()}: .*less than or equal to"):
        load(**given)
    assert getattr(load(**{name: 512}), name) == 512


def test_a_template_is_for_a_model_that_is_there() -> None:
    check_templates(load(template="chatml,mine=llama-2", model="mine=herd-tiny,other.gguf"))
    check_templates(load(template="elsewhere=chatml", workers=0))
    with pytest.raises(SetupError, match=r"no model here is called elsewhere; there are: mine, other$"):
        check_templates(load(template="elsewhere=chatml", model="mine=herd-tiny,other.gguf"))


def test_the_table_of_settings_is_not_cut_in_a_pipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("HERDER_TEMPLATE", "[bold]" + "x" * 300)
    config()
    told = capsys.readouterr().out
    assert "…" not in told
    assert "[bold]" + "x" * 300 in told
    assert all(f"HERDER_{name.upper()} " in told for name in Settings.model_fields)


@pytest.mark.parametrize("command", ["up", "serve", "courier", "worker"])
def test_what_is_mistyped_is_warned_of_by_what_is_started_by_hand(command: str) -> None:
    start = ["-m", "worker.main"] if command == "worker" else ["-m", "llama_herder.cli.main", command]
    environment = os.environ | {"HERDER_TEMPLTE": "x", "HERDER_REDIS_URL": "nonsense"}

    def said(*more: str) -> str:
        return subprocess.run(
            [sys.executable, *start, *more], capture_output=True, text=True, env=environment, timeout=60, check=False
        ).stderr  # fmt: skip

    warning = "warning: HERDER_TEMPLTE is no setting of the herd; is it mistyped?\n"
    if command == "worker":
        assert said("--model", "nowhere.gguf", "--redis-url", "redis://127.0.0.1:1").startswith(warning)
        return
    assert said().startswith(warning)
    if command != "up":
        assert warning not in said("--supervised")
