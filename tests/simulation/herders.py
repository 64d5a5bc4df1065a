"""What herders do in the simulation for callers that wait: say so, mostly in time; or die, and say nothing."""

from __future__ import annotations

from unittest.mock import patch

from herder import broker
from tests.simulation.states import expect
from tests.simulation.world import World

LOST_REPLIES = 0.1
PRESENCES_MS = (0, 0, 0, 0, 6_000, 40_000, 200_000)  # of a submission


def hold(world: World, name: str) -> None:
    """A herder has sold this to a caller that waits, if it has lived to hear of it."""
    if world.chance(0.9):
        world.rng.choice(world.herders)[name] = None


def hang_up(world: World, name: str) -> None:
    """Whoever has cancelled this does not wait for its end."""
    for herder in world.herders:
        herder.pop(name, None)


async def attend(world: World) -> None:
    """A herder speaks up for all its callers, of whom some may have got their answer by now."""
    herder = world.rng.choice(world.herders)
    names = list(herder)
    if world.chance(0.2):
        known = world.reference
        others = [*known.jobs, *known.batches.batches, *known.forgotten]
        names.append(world.rng.choice(["job_0", "batch_none", *others]))
    if not names:
        return
    world.tick()
    predicted = world.reference.presence.renew(names)
    jobs = [name for name in names if name.startswith("job_")]
    with patch.object(broker, "PRESENT_STEP", world.rng.choice((1, 3, 500))):
        gone = await world.broker.present(jobs, [name for name in names if name not in jobs])
    world.note(f"present {names}: without {sorted(gone)}")
    expect(gone, predicted, "who has no presence")
    if world.chance(LOST_REPLIES):
        world.count("renewals of presence whose reply is lost")
        return
    for name in gone:
        herder.pop(name, None)


async def die(world: World) -> None:
    """kill -9: nobody speaks up for its callers any more. Another starts in its place."""
    herder = world.rng.choice(world.herders)
    world.note(f"a herder dies with {list(herder)}")
    world.count("herders that die")
    world.count("herders that die with callers" if herder else "-")
    herder.clear()
