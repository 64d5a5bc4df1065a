"""The first keys of a herd: an admin's, and those of a demo account with credits. Made once, shown once."""

from __future__ import annotations

from dataclasses import dataclass

from herder.apikeys import has_key_secret, key_secret
from herder.broker import Broker
from herder.errors import SetupError
from herder.ledger import Ledger
from herder.records import Role
from herder.settings import Settings

ADMIN = "admin"
DEMO = "demo"


@dataclass(frozen=True)
class FirstKeys:
    """What the first start of a herd makes, and shows once."""

    admin_key: str
    demo_key: str


async def secret_of_herd(broker: Broker, settings: Settings) -> bytes:
    """The herd's key secret, which is made here as long as there are no accounts.

    Raises SetupError, and writes nothing, where the herd has accounts but its secret is not here: with another one no
    key that was ever given would open anything.
    """
    if not has_key_secret(settings) and await broker.fetch(broker.redis.exists(broker.keys("accounts"))):
        raise SetupError(
            f"the key secret of this herd is not in {settings.data_dir.resolve()}, and without it no key works: "
            "put key-secret back there, name the herd's --data-dir, or set HERDER_KEY_SECRET "
            "(to another secret only if this one is lost: every key must then be made anew)"
        )
    return key_secret(settings)


async def first_keys(broker: Broker, settings: Settings) -> FirstKeys | None:
    """On a Redis without accounts: an admin, a demo account with credits, and a key for each. None otherwise."""
    ledger = Ledger(broker, key_secret(settings))
    if await ledger.accounts():
        return None
    await ledger.create_account(ADMIN)
    _, admin_key = await ledger.create_key(ADMIN, Role.ADMIN, "first start")
    await ledger.create_account(DEMO)
    if settings.demo_credits:
        await ledger.deposit(DEMO, settings.demo_credits, "first-start", "first start")
    _, demo_key = await ledger.create_key(DEMO, Role.CLIENT, "first start")
    return FirstKeys(admin_key, demo_key)


async def new_admin_key(broker: Broker, settings: Settings, label: str) -> str:
    """An admin key more, straight in Redis: for whoever runs the machine and has none. Raises SetupError."""
    ledger = Ledger(broker, await secret_of_herd(broker, settings))
    if await ledger.account(ADMIN) is None:
        await ledger.create_account(ADMIN)
    _, key = await ledger.create_key(ADMIN, Role.ADMIN, label)
    return key
