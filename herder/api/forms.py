"""The form that an answer is to have, as callers say it: `output_type`, or `response_format`. Either is a schema."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from herder.api.strict import Strict, at
from herder.output_types import tree_of_type
from herder.schema_tree import Record
from herder.schema_words import ANY_DEPTH, SchemaRefused, anything
from herder.schemas import checked, tree_from
from herder.typed import Form, refused

SCHEMA_NAME_CHARS_MAX = 64
FORM_FIELDS = ("output_type", "response_format")
JSON_DEPTH_MAX = 224
"""Far more than any schema that is kept to, `default` and `examples` included; pydantic writes 255 down again."""


def _shallow(value: dict[str, Any]) -> dict[str, Any]:
    level: list[Any] = [value]
    for _ in range(JSON_DEPTH_MAX):
        within = [
            each.values() if isinstance(each, dict) else each
            for each in level
            if isinstance(each, dict | list)
        ]
        level = [each for some in within for each in some]
        if not level:
            return value
    raise ValueError(f"is nested deeper than {JSON_DEPTH_MAX}")


Wanted = Annotated[dict[str, Any], AfterValidator(_shallow)]


class NamedSchema(Strict):
    """A JSON schema with a name; it is always kept to, `strict` or not."""

    name: Annotated[str, Field(max_length=SCHEMA_NAME_CHARS_MAX)] | None = None
    description: Annotated[str, Field(max_length=1_024)] | None = None
    strict: bool | None = None
    wanted: Wanted = Field(alias="schema", description="the JSON schema that the answer fits")


class ResponseFormat(Strict):
    """OpenAI's way to ask for a form: any text, any JSON object, or what fits a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = Field(None, description="with `type` json_schema, and only there")

    @model_validator(mode="after")
    def _schema_where_it_belongs(self) -> ResponseFormat:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema is given with type json_schema, and only with it")
        return self


class FormOptions(Strict):
    """The form that the answer must have."""

    output_type: Wanted | None = Field(
        None,
        description="the answer is such a JSON object: names, and for each int, float, str, bool, a list of strings to "
        "choose from, a list with one type, or an object of these",
        examples=[{"age": "int", "units": "str"}],
    )
    response_format: ResponseFormat | None = Field(
        None, description="as in OpenAI's API; not together with `output_type`"
    )

    @model_validator(mode="after")
    def _one_form(self) -> FormOptions:
        if self.output_type is not None and self.response_format is not None:
            raise at("response_format", "output_type and response_format exclude each other")
        if self.typed and getattr(self, "stop", None):
            raise at("stop", "would cut an answer that has a form: leave it out, it ends by itself")
        return self

    @property
    def typed(self) -> bool:
        """Whether the answer must have a form."""
        format_ = self.response_format
        return self.output_type is not None or (format_ is not None and format_.type != "text")

    def form(self) -> Form | None:
        """What the answer must fit; None for any text. Raises InvalidRequest naming what cannot be kept to."""
        try:
            if self.output_type is not None:
                tree = tree_of_type(self.output_type, "output_type")
                return Form(checked(tree, "output_type"), "output_type")
            if self.response_format is None or self.response_format.type == "text":
                return None
            if self.response_format.json_schema is None:
                return Form(Record((), anything(ANY_DEPTH)), "response_format")
            where = "response_format.json_schema.schema"
            return Form(tree_from(self.response_format.json_schema.wanted, where), where)
        except SchemaRefused as error:
            raise refused(error) from None


def with_own_form(merged: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """An item with what it has taken over from its batch, less what its own form excludes."""
    if not any(name in own for name in FORM_FIELDS):
        return merged
    return {
        name: value for name, value in merged.items() if name in own or name not in (*FORM_FIELDS, "stop")
    }
