"""Modules as files, and templates with texts in them: substituted, never evaluated."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herder.api.runs import installed
from herder.errors import SetupError
from herder.filling import Unfilled, chosen, filled, variables
from herder.modules import load
from herder.settings import Settings
from herder.store import Store
from tests.unit.test_cids import QUESTION

MINE = """
name: mine
version: v1
template: "{a}{b}"
parameters: {b: "!"}
options: {tokens: 5}
"""

names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,5}", fullmatch=True).filter(lambda name: name != "text")


def fill(template: str, given_: dict[str, str], defaults: dict[str, str] | None = None) -> str:
    return filled(template, chosen(template, given_, defaults or {}), 1_000)


@pytest.mark.parametrize(
    ("template", "parameters", "prompt"),
    [
        ("", {}, ""),
        ("Q: {q} A:", {"q": "why?"}, "Q: why? A:"),
        ("{q}{q}", {"q": "x"}, "xx"),
        ("{{}} {{q}} {q}}}", {"q": "x"}, "{} {q} x}"),
        # What is put in is not looked at again.
        (
            "{q}",
            {"q": "{q} {other} {{ %s ${HOME} {{7*7}} {% x %}"},
            "{q} {other} {{ %s ${HOME} {{7*7}} {% x %}",
        ),
        ("{a}{b}", {"a": "{b}", "b": "{a}"}, "{b}{a}"),
        ("%s $q ${q} \\{q}", {"q": "ä"}, "%s $q $ä \\ä"),
    ],
)
def test_a_template_is_filled(template: str, parameters: dict[str, str], prompt: str) -> None:
    assert fill(template, parameters) == prompt


@pytest.mark.parametrize(
    "template",
    [
        "{",
        "}",
        "{}",
        "{0}",
        "{q.__class__}",
        "{q[0]}",
        "{q!r}",
        "{q:>10}",
        "{ q }",
        "{q",
        "q}",
        "{{q}",
        '{"a": 1}',
        "{é}",
    ],
)
def test_what_is_no_variable_is_a_clear_error(template: str) -> None:
    with pytest.raises(
        Unfilled, match=r"^character \d+, .*: a variable is \{name\}.* for a brace write"
    ) as refused:
        fill(template, {"q": "x"})
    assert refused.value.field == "template"


def test_a_missing_and_an_unknown_text_are_named() -> None:
    with pytest.raises(Unfilled, match=r"^is missing; the template's are: a, b$") as missing:
        fill("{a} {b}", {"a": "1"})
    assert missing.value.field == "parameters.b"
    with pytest.raises(Unfilled, match=r"^is no variable of the template; the template's are: a$") as unknown:
        fill("{a}", {"a": "1", "q": "2"})
    assert unknown.value.field == "parameters.q"
    with pytest.raises(Unfilled, match="the template has none"):
        fill("a", {"a": "1"})
    with pytest.raises(Unfilled, match="cannot be called text"):
        fill("{text}", {"text": "1"})
    with pytest.raises(Unfilled, match="65 variables are more than 64"):
        variables("".join(f"{{v{i}}}" for i in range(65)))


def test_defaults_are_for_those_that_are_there_and_not_given() -> None:
    assert chosen("{b}{a}", {"a": "1"}, {"a": "2", "b": "3", "c": "4"}) == {"a": "1", "b": "3"}
    assert list(chosen("{b}{a}", {"a": "1"}, {"b": "3"})) == ["a", "b"]


def test_a_short_template_makes_no_endless_prompt() -> None:
    with pytest.raises(Unfilled, match="longer than 1000 bytes"):
        fill("{a}" * 10_000, {"a": "x" * 1_000_000})
    assert len(fill("{a}" * 10, {"a": "x" * 100})) == 1_000
    with pytest.raises(Unfilled, match="longer than 1000 bytes"):
        fill("{a}" * 10, {"a": "ä" * 100})


@given(
    st.lists(
        st.one_of(
            names.map("{{{}}}".format), st.text().map(lambda t: t.replace("{", "{{").replace("}", "}}"))
        )
    )
)
def test_it_is_what_python_would_format_where_that_is_harmless(parts: list[str]) -> None:
    template = "".join(parts)[:900]
    try:
        found = {name: f"<{{{name}}}>" for name in variables(template)}
    except Unfilled:  # cut in the middle
        return
    assert filled(template, found, 100_000) == template.format(**found)


def test_the_module_of_the_page_comes_with_the_herd() -> None:
    module = load()["fastchat:v0.0.1"]
    question = json.loads(QUESTION)
    assert module.template == question["template"]
    assert variables(module.template) == ("question",)
    assert module.model is None
    assert module.options["tokens"] == 256


def test_a_folder_of_ones_own_stands_beside_them(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(MINE, "utf-8")
    (tmp_path / "notes.txt").write_text("{", "utf-8")
    found = load(tmp_path)
    assert list(found) == ["fastchat:v0.0.1", "mine:v1"]
    assert found["mine:v1"].parameters == {"b": "!"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[", "not YAML"),
        ("", "no module"),
        ("- a", "no module"),
        ("!!python/object/apply:os.system ['true']", "not YAML"),
        (MINE + "description: 2026-13-45", "not YAML: month must be in 1..12"),
        (MINE + f"description: {'9' * 5_000}", "not YAML: .*digits"),
        (MINE + "description: !!timestamp x", "not YAML"),
        (MINE + "description: !!bool x", "not YAML"),
        (MINE.replace("mine", "Mine"), "is no name and version"),
        (MINE.replace("v1", "v 1"), "is no name and version"),
        (MINE.replace("v1", "1"), "version: Input should be a valid string"),
        (MINE + "more: 1", "more: Extra inputs"),
        (MINE.replace("{a}", "{a.b}"), "template: character 1"),
        (MINE.replace('b: "!"', 'c: "!"'), r"parameters\.c: is no variable"),
        (
            MINE.replace("mine", "fastchat").replace("v1", "v0.0.1"),
            "there is a module fastchat:v0.0.1 already",
        ),
        (MINE.replace("tokens: 5", "stop: x"), r"options\.tokens: is missing"),
        (MINE.replace("tokens: 5", "tokens: 0"), r"options\.tokens: must be"),
        (MINE.replace("tokens: 5", "tokens: 5, fee: 1"), r"options\.fee: no option of a module"),
        (MINE.replace("tokens: 5", "tokens: 5, temperature: 3"), r"options\.temperature: must be"),
        (MINE + 'model: "\\ud800"', "half a character"),
        ("x" * 100_001, "100000 bytes at most"),
        ("[" * 5_000, "nested too deeply|not YAML"),
    ],
)
def test_a_module_that_could_never_run_stops_the_start(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "mine.yml").write_text(text, "utf-8")
    with pytest.raises(SetupError, match=why):
        installed(Settings(modules_dir=tmp_path, _env_file=None))  # type: ignore[call-arg]


def test_a_folder_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"HERDER_MODULES_DIR: cannot read .*: no such file"):
        load(tmp_path / "none")


def test_what_the_page_says_is_so(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "modules.md").read_text("utf-8")
    (own,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "shout.yaml").write_text(own, "utf-8")
    assert list(installed(Settings(modules_dir=tmp_path, _env_file=None))) == ["fastchat:v0.0.1", "shout:v1"]  # type: ignore[call-arg]
    (result,) = re.findall(r'^\{"question".*\}$', page, re.MULTILINE)
    named = Store(tmp_path).add_tree({"output/result.json": result.encode()}, "").cid
    assert f"herder module result {named}\n{result}\n" in page
