"""Settings and where they come from: flag over environment over file over default."""

from __future__ import annotations

from pathlib import Path

import pytest

from herder.errors import SetupError
from herder.settings import Settings
from herder.sources import env_example, load, sources, unknown_variables

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
    with pytest.raises(SetupError, match=r"^HERDER_PORT: .*integer"):
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
