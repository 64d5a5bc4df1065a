"""What the herder reads of the settings: where things are, prices, order, limits, webhooks, who may call.

Must not know of workers. `settings.py` adds theirs, and makes the one object of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

Pause = Annotated[float, Field(ge=0, le=31_536_000, allow_inf_nan=False)]
"""Seconds, a year at most."""


def split_list(value: Any) -> Any:
    """A comma-separated list as it stands in the environment."""
    return (
        tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value
    )


class BrokerSettings(BaseSettings):
    """The settings of the API, the courier and the money."""

    model_config = SettingsConfigDict(env_prefix="HERDER_", env_file=".env", extra="ignore", frozen=True)

    # Where things are
    host: str = Field(default="127.0.0.1", description="address the API listens on")
    port: int = Field(default=8080, ge=0, le=65535, description="port the API listens on; 0 takes a free one")
    data_dir: Path = Field(
        default=Path("herd-data"), description="embedded Redis, the key secret, downloaded models' cache"
    )
    redis_url: str = Field(
        default="", description="redis://, rediss:// or unix:// URL; empty starts an embedded Redis"
    )
    redis_prefix: str = Field(
        default="lh", pattern=r"^[A-Za-z0-9_.-]+$", description="first part of every Redis key"
    )

    store_dir: Path | None = Field(
        default=None,
        description="folder of the content-addressed store; empty takes `store` in the data directory",
    )
    store_free_bytes_min: int = Field(
        default=500_000_000, ge=0, description="what the store leaves free of its disk"
    )
    modules_dir: Path | None = Field(
        default=None,
        description="a folder of modules of your own (YAML), beside those that come with the herd",
    )

    # The price list
    set_prompt_fee: int = Field(
        default=10, ge=0, le=10**12, description="credits a prompt costs before its first token"
    )
    fee_per_token: int = Field(default=1, ge=0, le=10**9, description="credits a token costs")
    automatic_multiplier_max: float = Field(
        default=2.0, ge=1, le=1000, description="highest multiplier that an automatic price may have"
    )
    multiplier_max: float = Field(
        default=100.0, ge=1, le=1000, description="highest multiplier that a bid may have"
    )
    last_multiplier_half_life_ms: int = Field(
        default=60_000,
        ge=1,
        description="the last accepted multiplier's excess over 1 halves in this time while the queue is empty",
    )

    # Order
    doubling_ms: int = Field(
        default=3_600_000, ge=0, description="head start in the line that a doubled fee buys"
    )
    window_ms: int = Field(
        default=600_000, ge=0, description="how far an account's own clock may lag behind the time"
    )
    lease_skips_max: int = Field(
        default=16,
        ge=1,
        description="times a job may be passed over by smaller ones before room is kept for it",
    )

    prefix_window_ms: int = Field(
        default=2_000,
        ge=0,
        description="how close in the line jobs stand among which a worker takes those first that begin like what it "
        "has in its cache; 0 switches it off",
    )
    prefix_wait_ms: int = Field(
        default=100,
        ge=0,
        description="how long a job is left to an idle worker that has its beginning in the cache",
    )

    # Leases
    lease_ms: int = Field(
        default=10_000, ge=500, description="a worker that has not renewed for this long loses its jobs"
    )
    presence_ms: int = Field(
        default=15_000,
        ge=500,
        description="a job whose caller cannot come back for it is cancelled when the herder that holds their "
        "connection has been silent for this long",
    )

    # Limits
    body_bytes_max: int = Field(default=4_000_000, ge=1_000, description="largest HTTP body")
    prompt_bytes_max: int = Field(default=500_000, ge=1, description="largest prompt or chat, in UTF-8 bytes")
    tokens_max: int = Field(default=8_192, ge=1, description="most tokens one job may ask for")
    tokens_default: int = Field(
        default=256, ge=1, description="tokens of a quote, and of an answer in another API, that names none"
    )
    stop_strings_max: int = Field(default=16, ge=0, description="most stop strings of a job")
    stop_bytes_max: int = Field(default=256, ge=1, description="longest stop string, in UTF-8 bytes")
    metadata_max: int = Field(default=16, ge=0, description="most metadata entries of a job")
    wait_s_max: int = Field(
        default=60, ge=1, description="longest long-poll, and longest wait for a worker's new model"
    )
    queue_depth_max: int = Field(
        default=100_000, ge=1, description="jobs queued for one model before submissions get 503"
    )
    redis_memory_watermark: float = Field(
        default=0.9, gt=0, le=1, description="share of Redis's maxmemory above which submissions get 503"
    )
    result_ttl_ms: int = Field(default=86_400_000, ge=1_000, description="how long an ended job can be read")
    idempotency_ttl_ms: int = Field(
        default=86_400_000, ge=1_000, description="how long an Idempotency-Key is remembered"
    )
    streams_max: int = Field(
        default=5_000, ge=1, description="open event streams of one process before more get 503"
    )
    stream_ping_ms: int = Field(
        default=15_000, ge=100, description="silence after which a stream gets a keep-alive comment"
    )
    stream_send_ms: int = Field(
        default=30_000, ge=100, description="a stream whose reader takes nothing for this long is dropped"
    )
    batch_items_max: int = Field(default=10_000, ge=1, description="most prompts of a batch in one JSON body")
    batch_upload_items_max: int = Field(
        default=50_000, ge=1, description="most prompts of a batch uploaded as JSON lines"
    )
    batch_bytes_max: int = Field(
        default=64_000_000,
        ge=1_000,
        description="largest body of a batch; HERDER_BODY_BYTES_MAX is for the rest",
    )
    files_bytes_max: int = Field(
        default=256_000_000,
        ge=1_000,
        description="most bytes of one account's files, counted as they are kept: compressed",
    )
    refuse_without_worker: bool = Field(
        default=False, description="refuse a known model that has no live worker, instead of a warning"
    )

    # Webhooks
    webhook_allow: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="comma-separated networks and host names that webhooks may reach though they are not public",
    )
    webhook_ports: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("80", "443"), description="comma-separated ports that webhooks may go to; * for any"
    )
    webhook_schedule_s: Annotated[tuple[Pause, ...], NoDecode] = Field(
        default=(0, 5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400),
        min_length=1,
        description="comma-separated pauses before each attempt to deliver a webhook; as many attempts as pauses",
    )
    webhook_timeout_ms: int = Field(
        default=15_000, ge=100, description="longest that one attempt to deliver a webhook may take"
    )
    webhook_host_concurrency: int = Field(
        default=8, ge=1, description="attempts at one host at the same time, of one account"
    )
    webhook_endpoints_max: int = Field(
        default=1_000, ge=1, description="webhook addresses (without their query) of one account"
    )
    webhook_rotation_ms: int = Field(
        default=86_400_000, ge=0, description="how long a webhook's old secret still signs beside the new one"
    )
    webhook_ttl_ms: int = Field(
        default=604_800_000,
        ge=1_000,
        description="how long a delivery that has ended can be read and redelivered",
    )
    public_url: str = Field(
        default="",
        description="this herd's address as its callers see it, an http(s) URL, for links in webhooks",
    )

    # Who may call
    key_secret: SecretStr = Field(
        default=SecretStr(""),
        description="secret of the HMAC of API keys, shared by all replicas; empty makes one in the data directory",
    )
    rate_limit_per_minute: int = Field(default=6_000, ge=1, description="requests a minute for one API key")
    auth_failures_per_minute: int = Field(
        default=30, ge=1, description="failed authentications a minute from one address"
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="comma-separated origins that browsers may call from; * for any"
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="comma-separated proxy addresses whose X-Forwarded-For is believed"
    )
    tls_cert: Path | None = Field(
        default=None, description="certificate file; with tls_key the API speaks HTTPS"
    )
    tls_key: Path | None = Field(default=None, description="private key file of the certificate")
    demo_credits: int = Field(
        default=100_000,
        ge=0,
        description="credits of the demo account that an embedded herd's first start makes",
    )

    @field_validator("tls_cert", "tls_key", "store_dir", "modules_dir", mode="before")
    @classmethod
    def _no_path(cls, value: Any) -> Any:
        """An empty variable is none."""
        return None if value == "" else value

    @field_validator("public_url")
    @classmethod
    def _public(cls, value: str) -> str:
        """Empty, or what a job's path can be put behind."""
        try:
            parts = urlsplit(value)
            base = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
            usable = base and value.isprintable() and not set(value) & set(" ?#")
        except ValueError:
            usable = False
        if value and not usable:
            raise ValueError("must be an http:// or https:// URL, such as https://herd.example, or empty")
        return value

    @field_validator(
        "cors_origins",
        "trusted_proxies",
        "webhook_allow",
        "webhook_ports",
        "webhook_schedule_s",
        mode="before",
    )
    @classmethod
    def _split(cls, value: Any) -> Any:
        return split_list(value)
