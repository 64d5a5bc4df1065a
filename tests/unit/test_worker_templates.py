"""Chat templates that whoever runs a worker puts over those of the model files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from herder.errors import SetupError
from herder.templates import text_of
from worker.cards import check_template, model_card, template_for
from worker.fake import FakeEngine

FACTS = replace(FakeEngine().facts, template="the file's own")


def test_one_for_a_model_goes_before_one_for_all(tmp_path: Path) -> None:
    own = tmp_path / "own.jinja"
    own.write_text("{{ messages[0].content }}!", "utf-8")
    choices = ("chatml", f"small={own}", "large=llama-2")
    assert template_for("small", choices) == "{{ messages[0].content }}!"
    assert template_for("large", choices) == text_of("llama-2")
    assert template_for("another", choices) == text_of("chatml")
    assert template_for("another", choices[1:]) is None


def test_the_card_has_it() -> None:
    assert model_card("m", FACTS).template == "the file's own"
    assert model_card("m", FACTS, "mine").template == "mine"


def test_a_size_without_a_name_is_left_out_of_the_description() -> None:
    assert model_card("m", replace(FACTS, description="llama ?B Q8_0")).description == "llama Q8_0"
    assert model_card("m", replace(FACTS, description="llama 7B Q8_0")).description == "llama 7B Q8_0"


@pytest.mark.parametrize("text", ["", " \n", "x" * 200_001, None])
def test_what_is_no_template_is_refused(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "t.jinja"
    if text is not None:
        path.write_text(text, "utf-8")
    with pytest.raises(ValueError, match=r"t\.jinja"):
        template_for("m", (str(path),))


async def test_one_that_renders_nothing_is_found_at_the_start() -> None:
    await check_template(model_card("m", FACTS, text_of("chatml")))
    for broken in ("{% for m in messages %}", "{{ raise_exception('never') }}", "hello"):
        with pytest.raises(SetupError, match="leave --template out"):
            await check_template(model_card("m", FACTS, broken))
