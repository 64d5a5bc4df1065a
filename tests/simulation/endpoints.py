"""Webhook addresses in the simulation: used, made the default, rotated, switched, deleted; few hosts, small limits."""

from __future__ import annotations

from herder.errors import Conflict, InvalidRequest, NotFound
from herder.protocol import Webhook
from tests.simulation.states import expect
from tests.simulation.world import ACCOUNTS, World

HOSTS = ("one.example", "two.example", "three.example")
REFUSALS: dict[type[Exception], str] = {NotFound: "NO_ACCOUNT", Conflict: "DISABLED", InvalidRequest: "FULL"}
OPS = ("rotate", "enable", "enable", "disable", "delete")


async def use(world: World, account: str) -> Webhook | None:
    """A submission names an address; None where that is refused."""
    rng = world.rng
    (host,) = rng.choices(HOSTS, (3, 1, 1))  # so that addresses share one
    url = f"https://{host}/{rng.choice('ab')}"
    made, secret = world.name("ep_"), f"secret{world.made}"
    world.tick()
    word, endpoint = world.reference.webhooks.ensure(account, url, made, secret)
    try:
        said, found = "OK", await world.deliveries.ensure_endpoint(account, url, made, secret)
        expect(found, endpoint, f"endpoint of {account} for {url}")
    except tuple(REFUSALS) as refusal:
        said = REFUSALS[type(refusal)]
    world.note(f"address {url} of {account}: {said} {endpoint}")
    world.count(f"address {said}")
    expect(said, word, f"address {url} of {account}")
    return Webhook(f"{url}?q={made}", endpoint) if said == "OK" else None


async def choose_default(world: World) -> None:
    """An address for all that name none, or none again."""
    account = world.rng.choice(ACCOUNTS)
    webhook = await use(world, account) if world.chance(0.7) else None
    world.tick()
    url, endpoint = (webhook.url, webhook.endpoint) if webhook else (None, None)
    await world.deliveries.set_default(account, url, endpoint)
    world.reference.accounts[account].default = webhook
    world.note(f"default of {account}: {webhook}")
    world.count("default set" if webhook else "default taken away")
    expect(await world.deliveries.default_of(account), webhook and (url, endpoint), f"default of {account}")


async def change(world: World) -> None:
    """The owner, or somebody else, changes an address."""
    rng, known = world.rng, world.reference.webhooks.endpoints
    endpoint = rng.choice(list(known)) if known and world.chance(0.95) else "ep_0"
    defaults = [account.default.endpoint for account in world.reference.accounts.values() if account.default]
    if defaults and world.chance(0.3):
        endpoint = rng.choice(defaults)
    owner = known[endpoint].account if endpoint in known else "ann"
    account = owner if world.chance(0.9) else rng.choice(ACCOUNTS)
    op, secret = rng.choice(OPS), world.name("secret")
    world.tick()
    word = world.reference.webhooks.change(op, account, endpoint, secret)
    deliveries, said = world.deliveries, "OK"
    try:
        if op == "rotate":
            await deliveries.rotate(account, endpoint, secret)
        elif op == "delete":
            await deliveries.delete_endpoint(account, endpoint)
        else:
            await deliveries.switch(
                account, endpoint, on=op == "enable", why="by hand" if op == "disable" else ""
            )
    except NotFound:
        said = "UNKNOWN"
    world.note(f"{op} {endpoint} by {account}: {said}")
    world.count(f"endpoint {op}" if said == "OK" else f"endpoint {said}")
    expect(said, word, f"{op} {endpoint} by {account}")
