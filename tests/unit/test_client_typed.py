"""Typed answers, sans network: what is asked for a dict or a class, what is read, what a class refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import llama_herder
from llama_herder import AsyncHerder, Herder, HerderError
from tests.unit.chat_script import BOTH, Script, use

Kind = type[Herder | AsyncHerder]


class Person:
    """What pydantic's models can do, and no more of it."""

    def __init__(self, age: int) -> None:
        self.age = age

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        return {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}

    @classmethod
    def model_validate(cls, obj: Any) -> Person:
        if obj["age"] > 150:
            raise ValueError("nobody is that old")
        return cls(obj["age"])


def generated(kind: Kind, script: Script, **options: Any) -> Any:
    ask: Callable[[Any], Any] = lambda herder: herder.generate("How old are you?", **options)  # noqa: E731
    return use(kind, script, ask)


@BOTH
def test_an_answer_has_the_type_that_was_asked_for(kind: Kind) -> None:
    script = Script(answers=[{"status": "succeeded", "text": '{"age": 25}', "output": {"age": 25}}])
    assert generated(kind, script, output_type={"age": "int"}) == {"age": 25}
    assert generated(kind, script, output_type={"age": int, "of": [{"name": str}]}) == {"age": 25}
    assert script.bodies[1]["output_type"] == {"age": "int", "of": [{"name": "str"}]}
    person = generated(kind, script, output_type=Person)
    assert isinstance(person, Person)
    assert person.age == 25
    asked = script.bodies[2]["response_format"]
    assert asked == {
        "type": "json_schema",
        "json_schema": {"name": "Person", "schema": Person.model_json_schema()},
    }
    assert generated(kind, script, tokens=9) == '{"age": 25}'
    assert (script.bodies[3]["tokens"], "output_type" in script.bodies[3]) == (9, False)


@BOTH
def test_what_a_class_refuses_is_an_error_with_the_job(kind: Kind) -> None:
    script = Script(answers=[{"status": "succeeded", "output": {"age": 999}}])
    with pytest.raises(llama_herder.OutputInvalid, match=r"is no Person: nobody is that old") as caught:
        generated(kind, script, output_type=Person)
    assert caught.value.job.output == {"age": 999}
    assert isinstance(caught.value, HerderError)
    for wrong in (int, Person(3), "int", ["int"]):
        with pytest.raises(TypeError, match="output_type must be like"):
            generated(kind, script, output_type=wrong)
    assert len(script.bodies) == 1
