"""What an answer is to be, said in Python: an `output_type`, or a class that knows its JSON schema; and back again.

Pure. A class is taken by what it can do, `model_json_schema()` and `model_validate(value)`, as pydantic's models can:
pydantic itself must not be needed here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

from llama_herder._core import one_line
from llama_herder.errors import OutputInvalid
from llama_herder.types import Job

_NAMES: dict[type, str] = {int: "int", float: "float", str: "str", bool: "bool"}


class ModelClass(Protocol):
    """A class whose objects are read from JSON, and which says what JSON that is: a pydantic model."""

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        """The JSON schema."""

    @classmethod
    def model_validate(cls, obj: Any) -> Self:
        """An object of this class out of a JSON value."""


@dataclass(frozen=True)
class Wanted:
    """The options that ask for a form, and how to read what comes."""

    options: Mapping[str, Any]
    read: Callable[[Job], Any]


def wanted(output_type: object) -> Wanted:
    """None: text. A mapping: `output_type` of the API. A class that knows its schema: an object of it."""
    if output_type is None:
        return Wanted({}, lambda job: job.text)
    if isinstance(output_type, Mapping):
        return Wanted({"output_type": _named(output_type, "output_type")}, lambda job: job.output)
    schema_of = getattr(output_type, "model_json_schema", None)
    validate = getattr(output_type, "model_validate", None)
    if not (isinstance(output_type, type) and callable(schema_of) and callable(validate)):
        raise TypeError(
            'output_type must be like {"age": "int"}, or a class with model_json_schema() and model_validate(), '
            f"such as a pydantic model, not {one_line(repr(output_type), 100)}"
        )
    name = output_type.__name__
    form = {"type": "json_schema", "json_schema": {"name": name, "schema": schema_of()}}
    return Wanted({"response_format": form}, lambda job: _validated(validate, name, job))


def _named(form: object, at: str) -> object:
    """Python's own types by their names: `{"age": int}` is `{"age": "int"}`. Raises TypeError for what has none."""
    if isinstance(form, Mapping):
        return {name: _named(inner, f"{at}.{name}") for name, inner in form.items()}
    if isinstance(form, list | tuple):
        return [_named(inner, at) for inner in form]
    if isinstance(form, type) and form in _NAMES:
        return _NAMES[form]
    if form is not None and not isinstance(form, str | int | float):
        shown = form.__name__ if isinstance(form, type) else repr(form)
        raise TypeError(
            f"{at} must be int, float, str or bool, a list such as [str] or one of texts to choose from, "
            f'or a dict of these, for instance {{"age": "int"}}, not {one_line(shown, 100)}'
        )
    return form


def _validated(validate: Callable[[Any], Any], name: str, job: Job) -> Any:
    """The object. What a schema cannot say (a validator in Python) may still refuse what was answered."""
    try:
        return validate(job.output)
    except ValueError as error:
        why = one_line(str(error), 300)
        raise OutputInvalid(
            f"the answer of {job.id} fits the schema of {name} but is no {name}: {why}", job
        ) from error
