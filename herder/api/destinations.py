"""Where the end of something is told: a URL that a caller named, checked, and the endpoint whose secrets sign for it.

Used wherever a body may carry one. An endpoint is made at the first use of its address; nothing is looked up or sent.
"""

from __future__ import annotations

import secrets

from herder.api.state import Herd
from herder.apikeys import ALPHABET
from herder.deliveries import Deliveries
from herder.egress import Policy, checked_url, endpoint_of
from herder.protocol import Webhook
from herder.signatures import new_secret

ENDPOINT_ID_CHARS = 22  # 131 bits


async def webhook_for(herd: Herd, account: str, url: str | None) -> Webhook | None:
    """The webhook of a job or a batch of this account; None where its body names none.

    Call it last before anything is stored, so that what is refused for other reasons leaves no endpoint behind (but for
    a job that only the script finds too dear); and only for what is new, since a replay must not fail over an endpoint
    that was switched off meanwhile.
    Raises InvalidRequest (the address, or too many of them), Conflict (the endpoint is disabled), NotFound (account).
    """
    if url is None:
        return None
    checked = checked_url(url, Policy.of(herd.settings))
    endpoint = await Deliveries(herd.broker).ensure_endpoint(
        account, endpoint_of(checked), new_endpoint_id(), new_secret()
    )
    return Webhook(checked, endpoint)


def new_endpoint_id() -> str:
    """`ep_` and 22 random base62 characters."""
    return "ep_" + "".join(secrets.choice(ALPHABET) for _ in range(ENDPOINT_ID_CHARS))
