"""How a webhook is signed, as the Standard Webhooks specification has it. Pure; knows nothing of jobs and HTTP."""

from __future__ import annotations

import base64
import hmac
import secrets as entropy
from collections.abc import Sequence

SECRET_PREFIX = "whsec_"  # noqa: S105 (it marks a secret, and is none)
SECRET_BYTES = 32


def new_secret() -> str:
    """A secret that one address of webhooks is signed with: `whsec_` and 32 random bytes in base64."""
    return SECRET_PREFIX + base64.b64encode(entropy.token_bytes(SECRET_BYTES)).decode()


def signed_headers(webhook_id: str, at_s: int, body: bytes, secrets: Sequence[str]) -> dict[str, str]:
    """The three headers of a webhook that is sent at `at_s` (seconds since the epoch).

    One signature for each secret, in their order, so that a receiver may have the newest or the one before it.
    Raises ValueError for a secret that `new_secret` could not have made, or where there is none.
    """
    if not secrets:
        raise ValueError("a webhook without a secret cannot be signed")
    signed = f"{webhook_id}.{at_s}.".encode() + body
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(at_s),
        "webhook-signature": " ".join(f"v1,{_signature(secret, signed)}" for secret in secrets),
    }


def _signature(secret: str, signed: bytes) -> str:
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except ValueError:
        key = b""
    if not key or not secret.startswith(SECRET_PREFIX):
        raise ValueError("a webhook's secret must be whsec_ and base64")
    return base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
