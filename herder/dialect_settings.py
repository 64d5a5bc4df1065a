"""The settings of other people's APIs: which names of models and tiers their clients may use."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from herder.broker_settings import BrokerSettings, split_list

MULTIPLIER_MOST = 1_000


class DialectSettings(BrokerSettings):
    """Read by the herder alone."""

    # Other people's APIs
    model_alias: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(
            "tgi",
            "dummy",
            "gpt-3.5-turbo",
            "gpt-4o-mini",
            "meta-llama/Llama-2-7b-chat-hf",
            "meta-llama/Llama-2-13b-chat-hf",
            "meta-llama/Meta-Llama-3-8B-Instruct",
            "meta-llama/Meta-Llama-3.1-8B-Instruct",
            "mistralai/Mistral-7B-Instruct-v0.2",
        ),
        description="comma-separated names that clients of other APIs ask for, each for the herd's default model, or "
        "name=model for another; an exact name of a model comes first",
    )
    service_tier: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("flex=1", "priority=2"),
        description="comma-separated multipliers of OpenAI's service tiers; `auto`, `default` and no tier at all are "
        "sold at that of `default` where it is listed, else at the automatic price; any other tier that is not listed "
        "is refused",
    )

    @property
    def aliases(self) -> dict[str, str]:
        """The model of each alias; empty for the default one."""
        return {name: model for name, _, model in (each.partition("=") for each in self.model_alias)}

    @property
    def tiers(self) -> dict[str, Decimal]:
        """The multiplier of each tier."""
        return {
            name: Decimal(times) for name, _, times in (each.partition("=") for each in self.service_tier)
        }

    @field_validator("service_tier")
    @classmethod
    def _multipliers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            name, _, times = each.partition("=")
            try:
                good = bool(name) and 1 <= Decimal(times) <= MULTIPLIER_MOST
            except InvalidOperation:
                good = False
            if not good:
                raise ValueError(f"{each!r} is no tier; write name=multiplier, such as priority=2, 1 or more")
        return value

    @field_validator("model_alias", "service_tier", mode="before")
    @classmethod
    def _split_names(cls, value: Any) -> Any:
        return split_list(value)
