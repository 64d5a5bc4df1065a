"""What callers send for a batch: options for all items, and items, each of them a job's body once the options are in.

Strict like `bodies`. `batch_reading` puts options and items together, so that both are checked by the same rules.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from herder.api.bodies import Offer, WebhookUrl
from herder.api.chats import CHAT_INHERITED
from herder.api.forms import FORM_FIELDS
from herder.api.options import SAMPLING_FIELDS
from herder.api.strict import Text, at

CUSTOM_ID_CHARS_MAX = 256
# Options that each item takes over where it has none of its own.
INHERITED = (
    "tokens", "model", *CHAT_INHERITED, "multiplier", "stop", "share_prefix", "cache_prompt", *FORM_FIELDS,
    *SAMPLING_FIELDS,
)  # fmt: skip
# What belongs to the whole batch and not to an item.
BATCH_ONLY = ("fee", "max_fee", "charge", "webhook_url", "webhook_per_item")


def _without(*names: str, required: tuple[str, ...] = ()) -> Any:
    """A JSON schema without some of the fields that a model has from its base."""

    def change(schema: dict[str, Any]) -> None:
        for name in names:
            schema["properties"].pop(name, None)
        schema["required"] = list(required)

    return change


class BatchOptions(Offer):
    """What is common to all items, and what is for the batch as a whole (`fee`, `max_fee`, `metadata`, webhooks)."""

    model_config = ConfigDict(json_schema_extra=_without("prompt", "messages"))

    tokens: Annotated[int, Field(ge=1)] | None = Field(
        None, description="the most tokens of each answer; required unless every item has its own"
    )
    charge: Literal["all_or_nothing", "as_many_as_affordable"] = Field(
        "all_or_nothing",
        description="`as_many_as_affordable`: items in order until the balance (or `max_fee`) is used up",
    )
    webhook_url: WebhookUrl | None = Field(
        None, description="told when the batch ends; the account's default where left out"
    )
    webhook_per_item: bool = Field(False, description="`webhook_url` is told of the end of each item as well")

    @model_validator(mode="after")
    def _an_address(self) -> BatchOptions:
        if self.webhook_per_item and self.webhook_url is None:
            raise at("webhook_per_item", "webhook_per_item needs a webhook_url")
        return self


class BatchItem(Offer):
    """One prompt of a batch; what it leaves out is taken from the options."""

    model_config = ConfigDict(json_schema_extra=_without("fee", "max_fee"))

    tokens: Annotated[int, Field(ge=1)]
    custom_id: Annotated[Text, Field(min_length=1, max_length=CUSTOM_ID_CHARS_MAX)] | None = Field(
        None, description="comes back with the result; no two items of a batch may have the same"
    )

    @model_validator(mode="after")
    def _one_prompt(self) -> BatchItem:
        if self.prompt is None and self.messages is None:
            raise ValueError("prompt or messages is required")
        return self


_ONE_LIST: dict[str, Any] = {
    "oneOf": [
        {"required": ["prompts", "tokens"], "properties": {
            "prompts": {"type": "array"}, "items": {"type": "null"}, "tokens": {"type": "integer"}}},
        {"required": ["items", "tokens"], "properties": {
            "items": {"type": "array"}, "prompts": {"type": "null"}, "tokens": {"type": "integer"}}},
        {"required": ["items"], "properties": {
            "items": {"type": "array", "items": {"required": ["tokens"]}}, "prompts": {"type": "null"},
            "tokens": {"type": "null"}}},
    ],
}  # fmt: skip


def _batch_schema(schema: dict[str, Any]) -> None:
    _without("prompt", "messages")(schema)
    schema.update(_ONE_LIST)


class BatchRequest(BatchOptions):
    """A batch as one JSON object: `prompts`, or `items` where they differ in more than their text."""

    model_config = ConfigDict(json_schema_extra=_batch_schema)

    prompts: Annotated[list[Annotated[Text, Field(min_length=1)]], Field(min_length=1)] | None = Field(
        None, description="texts, each one user turn (with `raw`: exactly what the model reads)"
    )
    items: Annotated[list[BatchItem], Field(min_length=1)] | None = Field(
        None, description="instead of `prompts`"
    )
