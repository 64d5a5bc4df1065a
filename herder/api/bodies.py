"""What callers send: strict pydantic models, which refuse unknown fields, since a mistyped `max_fee` would cost money.

The limits that are settings are checked by `checked_against`, and written into OpenAPI by `schema`.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import (
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    Tag,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)

from herder.addresses import URL_CHARS_MAX
from herder.api.chats import ChatOptions
from herder.api.forms import FormOptions
from herder.api.options import LOGPROBS_TOTAL_MAX, SamplingOptions
from herder.api.strict import Strict, Text, at
from herder.errors import InvalidRequest, TooLarge
from herder.pricing import AMOUNT_LIMIT, MILLI
from herder.protocol import ModelCard
from herder.settings import Settings

METADATA_KEY_CHARS_MAX = 64
METADATA_VALUE_BYTES_MAX = 512
STOP_STRINGS_SANE = 1_000
ACCOUNT_PATTERN = r"^[a-z0-9][a-z0-9_.-]{0,62}$"
MULTIPLIER_SANE = 10**6


def _milli(value: Any, info: ValidationInfo) -> Any:
    """A multiplier as exact thousandths; what is out of range is told the range of the settings it is read with."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError("must be a number")
    exact = Decimal(value)
    if not exact.is_finite() or not 1 <= exact <= MULTIPLIER_SANE:
        highest = info.context.multiplier_max if isinstance(info.context, Settings) else MULTIPLIER_SANE
        raise ValueError(f"must be 1 or more, and at most {highest:g}")
    rounded = exact.quantize(Decimal("0.001"))
    if rounded != exact:
        raise ValueError("must have at most 3 decimals")
    return int(rounded * MILLI)


def _form(value: Any) -> str | None:
    """Which form of `stop` was sent, so that a fault in it is told of that one alone."""
    return "str" if isinstance(value, str) else "list[str]" if isinstance(value, list) else None


Short = Annotated[Text, Field(max_length=256)]
WebhookUrl = Annotated[Text, Field(min_length=1, max_length=URL_CHARS_MAX)]
Amount = Annotated[int, Field(ge=0, lt=AMOUNT_LIMIT)]
Milli = Annotated[
    int | None,
    PlainValidator(_milli),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 1, "multipleOf": 0.001}, {"type": "null"}]}),
]
StopText = Annotated[Text, Field(min_length=1)]
Stop = Annotated[
    Annotated[StopText, Tag("str")]
    | Annotated[list[StopText], Field(max_length=STOP_STRINGS_SANE), Tag("list[str]")],
    Discriminator(_form, "stop_type", "must be a string or a list of strings"),
]


class Offer(SamplingOptions, ChatOptions, FormOptions):
    """A prompt (or a chat) and what is offered for it; all but `tokens`, which a quote may leave out."""

    model: Annotated[Text, Field(min_length=1, max_length=256)] | None = Field(
        None, description="the only model, or the herd's first, where none is named"
    )
    multiplier: Milli = Field(None, description="a bid: times the base fee, 1 or more, to a thousandth")
    fee: Amount | None = Field(None, description="a static offer in credits, at least the base fee")
    max_fee: Amount | None = Field(None, description="the most this job may cost, in credits")
    stop: Stop | None = Field(
        None, description="the answer ends before the first of these; they are not part of it"
    )
    share_prefix: bool = Field(
        False,
        description="accounts that say so may begin their prompts with what the others' have left in the cache",
    )
    cache_prompt: bool | None = Field(
        None,
        description="true: the prompt may begin with what the cache has; false: it never does; where neither is said "
        "and there is a `seed`, it does not on a worker with nothing else to do, so that the text repeats exactly",
    )
    metadata: dict[
        Annotated[Text, Field(min_length=1, max_length=METADATA_KEY_CHARS_MAX)],
        Annotated[Text, Field(max_length=METADATA_VALUE_BYTES_MAX)],
    ] = Field(default_factory=dict, description="comes back with the job; each value at most 512 bytes")

    @model_validator(mode="after")
    def _one_price(self) -> Offer:
        if self.fee is not None and self.multiplier is not None:
            raise at("multiplier", "fee and multiplier exclude each other")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def module_run(self) -> str | None:
        """What the job's record keeps of the run of a module that it is; None where it is none."""
        return None

    @property
    def ao_reference(self) -> str | None:
        """The reference of the AO message that it came in (empty: it has none); None where it did not."""
        return None


_XOR: dict[str, Any] = {
    "oneOf": [
        {"required": ["prompt"], "properties": {"prompt": {"type": "string"}, "messages": {"type": "null"}}},
        {
            "required": ["messages"],
            "properties": {
                "messages": {"type": "array"}, "prompt": {"type": "null"}, "raw": {"const": False},
            },
        },
    ],
}  # fmt: skip


class JobRequest(Offer):
    """A prompt to be answered."""

    model_config = ConfigDict(json_schema_extra=_XOR)

    tokens: Annotated[int, Field(ge=1)] = Field(
        description="the most tokens of the answer, which are held and paid"
    )
    webhook_url: WebhookUrl | None = Field(
        None, description="told when the job ends; the account's default where left out"
    )

    @model_validator(mode="after")
    def _one_prompt(self) -> JobRequest:
        if self.prompt is None and self.messages is None:
            raise ValueError("prompt or messages is required")
        return self


class QuoteRequest(Offer):
    """The body of a job, of which nothing is required."""

    tokens: Annotated[int, Field(ge=1)] | None = Field(
        None, description="HERDER_TOKENS_DEFAULT where left out"
    )
    webhook_url: WebhookUrl | None = Field(None, description="as in a job's body; makes no difference here")


class EndpointRequest(Strict):
    """A webhook address to be made ready before its first use."""

    url: WebhookUrl = Field(description="without a fragment; its query is not part of the endpoint")


class DefaultRequest(Strict):
    """Where all jobs and batches that name no address are told; null for nowhere."""

    url: WebhookUrl | None


class AccountRequest(Strict):
    """A new account."""

    id: str = Field(pattern=ACCOUNT_PATTERN)
    credits: Amount | None = Field(None, description="a first deposit")


class DepositRequest(Strict):
    """Credits for an account; a repeated `deposit_id` counts once."""

    amount: Annotated[int, Field(ge=1, lt=AMOUNT_LIMIT)]
    deposit_id: Annotated[Text, Field(min_length=1, max_length=128)] | None = None
    memo: Short = ""


class AdjustRequest(Strict):
    """A correction, up or down; never below what is available."""

    amount: Annotated[int, Field(gt=-AMOUNT_LIMIT, lt=AMOUNT_LIMIT)]
    memo: Annotated[Short, Field(min_length=1)]


class KeyRequest(Strict):
    """A new API key."""

    role: Literal["client", "admin"] = "client"
    label: Annotated[Text, Field(max_length=64)] = ""


def checked_against(settings: Settings, body: Offer, tokens: int, card: ModelCard | None = None) -> None:
    """The limits that are settings. Raises TooLarge, InvalidRequest; each names its limit, of tokens the model's own
    where `card` is known and has room for less."""
    length = body.text_bytes()
    if length > settings.prompt_bytes_max:
        raise TooLarge(
            f"the prompt has {length} bytes, HERDER_PROMPT_BYTES_MAX is {settings.prompt_bytes_max}",
            limit=settings.prompt_bytes_max,
        )
    for field, most, got, what in (
        ("tokens", *_most_tokens(settings, tokens, card)),
        ("logprobs", LOGPROBS_TOTAL_MAX, body.logprobs_total(tokens), "(logprobs + 1) × tokens × n"),
        ("stop", settings.stop_strings_max, len(body.stops), "HERDER_STOP_STRINGS_MAX, strings"),
        ("stop", settings.stop_bytes_max, _longest(body.stops), "HERDER_STOP_BYTES_MAX, bytes"),
        ("metadata", settings.metadata_max, len(body.metadata), "HERDER_METADATA_MAX, entries"),
        ("metadata", METADATA_VALUE_BYTES_MAX, _longest(body.metadata.values()), "bytes in a value"),
        ("metadata", METADATA_KEY_CHARS_MAX, _longest(body.metadata), "bytes in a key"),
    ):
        if got > most:
            message = f"{got} is more than {most} ({what})"
            raise InvalidRequest(
                f"{field}: {message}", limit=most, errors=[{"field": field, "message": message}]
            )


def _most_tokens(settings: Settings, tokens: int, card: ModelCard | None) -> tuple[int, int, str]:
    """The limit of tokens, how many there are, and what the limit is. What alone does not fit a context is told of it
    when the prompt is known; here only where whoever asks for less would be told of it next."""
    most = settings.tokens_max
    if card is not None and card.context < most < tokens:
        return card.context, tokens, f"the context of {card.model}, prompt included"
    return most, tokens, "HERDER_TOKENS_MAX"


def _longest(texts: Any) -> int:
    return max((len(text.encode()) for text in texts), default=0)
