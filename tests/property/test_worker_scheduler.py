"""The scheduler under any order of jobs, cancels, losses and faults: its promises hold at every step."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from herder.brief import Brief
from tests.unit.worker_bench import a_lease
from worker.engine import KvFull, Step, StepFailed
from worker.fake import FakeCells, FakeEngine, script
from worker.scheduler import Scheduler
from worker.sequence import Sequence

SLOTS, CONTEXT, KV = 3, 160, 260
SEQUENCES = st.sampled_from([SLOTS, SLOTS + 1, 2 * SLOTS])
STEPS_MAX = 3_000
SHARED = "shared prefix of everybody's, and then a longer part of it that most of them have in common"

# A job: (account, shares its prefix, length of what it has in common with others, length of its own, tokens).
JOB = st.tuples(
    st.sampled_from("ab"), st.booleans(), st.integers(0, 90), st.integers(0, 60), st.integers(1, 30)
)
DEED = st.one_of(
    st.tuples(st.just("job"), JOB),
    st.tuples(st.just("turn"), st.integers(0, 20)),
    st.tuples(st.just("step"), st.sampled_from(["ok", "ok", "ok", "slow", "full", "failed"])),
    st.tuples(st.just("cancel"), st.integers(0, 20)),
    st.tuples(st.just("drop"), st.integers(0, 20)),
)


class World:
    """A scheduler over a scripted engine that checks every row and every copy against its own cells."""

    def __init__(self, sequences: int = 2 * SLOTS, *, reuse: bool = True) -> None:
        self.engine = FakeEngine(slots=SLOTS, context=CONTEXT, kv_tokens=KV, sequences=sequences)
        self.scheduler = Scheduler(self.engine.facts, reuse=reuse)
        self.all: list[Sequence] = []
        self.waiting: list[Sequence] = []
        self.owners: dict[int, Sequence] = {}
        self.computed: dict[Sequence, int] = {}

    def job(self, account: str, shares: bool, shared: int, own: int, tokens: int) -> None:
        prompt = SHARED[:shared] + f"{len(self.all)}" * own
        self.ask(Brief(prompt, share_prefix=shares), account, tokens)

    def ask(self, brief: Brief, account: str, tokens: int) -> None:
        lease = replace(a_lease(brief.prompt, tokens=tokens, account=account), brief=brief)
        sequence = Sequence(lease, list(brief.prompt.encode()))
        self.all.append(sequence)
        if self.scheduler.free_slots:
            self.scheduler.admit(sequence)
        else:
            self.waiting.append(sequence)

    def turn(self, which: int) -> None:
        """The next turn of a chat: what was asked, what was answered, and more."""
        if self.all:
            before = self.all[which % len(self.all)]
            brief = before.lease.brief
            self.ask(replace(brief, prompt=brief.prompt + before.text + " go on"), before.lease.account, 5)

    def check(self, step: Step) -> None:
        """What every plan must keep."""
        running = [s for s in self.scheduler.held if s.slot is not None]
        assert len(running) <= SLOTS
        assert (
            self.scheduler.kv_reserved - sum(s.reserved for s in self.scheduler.held if s.slot is None) <= KV
        )
        decoding = [s for s in running if s.decoding]
        # Everybody who is producing is served by every step, and before any prompt.
        assert [row.slot for row in step.rows[: len(decoding)]] == [s.slot for s in decoding]
        assert all(len(row.tokens) == 1 and row.sample for row in step.rows[: len(decoding)])
        assert len({row.slot for row in step.rows}) == len(step.rows)
        # A prompt is never starved by those who produce.
        if any(not s.decoding for s in running):
            assert len(step.rows) > len(decoding)
        self.check_copies(step)

    def check_copies(self, step: Step) -> None:
        """Nobody begins with what is not for him; whose a slot is follows from what was opened in it."""
        by_slot = {s.slot: s for s in self.scheduler.held}
        for opening in step.opens:
            self.owners[opening.slot] = by_slot[opening.slot]
        for source, target, length in step.copies:
            giver, taker = self.owners[source].lease, self.owners[target].lease
            both = giver.brief.share_prefix and taker.brief.share_prefix
            assert giver.account == taker.account or both
            assert self.owners[target].cached == length

    def count(self, step: Step) -> None:
        """What has been computed of each prompt."""
        by_slot = {s.slot: s for s in self.scheduler.held}
        for row in step.rows:
            sequence = by_slot[row.slot]
            if not sequence.decoding:
                self.computed[sequence] = self.computed.get(sequence, 0) + len(row.tokens)

    def check_cells(self) -> None:
        """Between engine and scheduler there is no difference but what jobs have still to compute."""
        mirror, cells = self.scheduler.prefixes.cells, self.engine.cells
        live = {s.slot: s for s in self.scheduler.held if s.slot is not None}
        ahead = 0
        for slot, tokens in enumerate(cells.tokens):
            if slot in live:
                assert mirror.length(slot) == live[slot].reserved
                ahead += mirror.length(slot) - len(tokens)
            else:
                assert mirror.length(slot) == len(tokens)
        assert mirror.used == cells.used + ahead

    def step(self, how: str = "ok") -> bool:
        while self.waiting and self.scheduler.free_slots:
            self.scheduler.admit(self.waiting.pop(0))
        step = self.scheduler.plan()
        if step is None:
            return False
        self.check(step)
        try:
            if how == "full":
                self.engine.step(replace(step, rows=()))
                self.check_cells()
                raise KvFull("the test says so")
            sampled = self.engine.step(step)
            self.check_cells()
            if how == "failed":
                raise StepFailed("the test says so")
        except KvFull:
            self.scheduler.refused(step)
        except StepFailed as error:
            self.scheduler.failed(step, str(error))
        else:
            self.count(step)
            elapsed_ms = 900.0 if how == "slow" else 3.0
            self.scheduler.apply(step, sampled, elapsed_ms, self.engine.piece, self.engine.ends)
        return True

    def end(self) -> None:
        for _ in range(STEPS_MAX):
            if not self.step():
                break
        assert all(s.ended for s in self.all), "something was starved"
        assert self.scheduler.free_slots == SLOTS
        assert self.scheduler.kv_free == KV


def fits(sequence: Sequence) -> bool:
    return sequence.prompt_tokens > 0 and sequence.reserved <= CONTEXT


def act(world: World, deeds: list[tuple[str, object]]) -> set[str]:
    """Do all of it; the jobs whose answer may be anything."""
    disturbed: set[str] = set()
    for name, what in deeds:
        if name == "job":
            world.job(*what)  # type: ignore[misc]
        elif name == "turn":
            world.turn(int(what))  # type: ignore[call-overload]
        elif name == "step":
            if what == "failed":
                disturbed |= {s.lease.job_id for s in world.scheduler.held}
            world.step(str(what))
        elif world.all:
            sequence = world.all[int(what) % len(world.all)]  # type: ignore[call-overload]
            disturbed.add(sequence.lease.job_id)
            if sequence in world.waiting:
                world.waiting.remove(sequence)
                sequence.cancel()
            elif name == "cancel":
                world.scheduler.cancel(sequence.lease.job_id)
            else:
                world.scheduler.drop(sequence.key)
    world.end()
    return disturbed


@given(st.lists(DEED, max_size=60), SEQUENCES)
def test_every_promise_holds_and_everything_ends(deeds: list[tuple[str, object]], sequences: int) -> None:
    world = World(sequences)
    disturbed = act(world, deeds)
    for sequence in world.all:
        if sequence.lease.job_id in disturbed:
            continue
        if not fits(sequence):
            assert sequence.failure is not None
            assert sequence.failure.code == "context_exceeded"
        elif sequence.failure is None:
            # Company, prefixes and faults of others leave no trace in the answer.
            prompt = sequence.lease.brief.prompt.encode()
            assert sequence.text.encode() == bytes(script(prompt)[: sequence.lease.tokens])
            # What was not computed is what is told to be reused.
            assert world.computed[sequence] + sequence.cached == sequence.prompt_tokens
        else:
            assert sequence.failure.code == "engine_error"


@given(st.lists(JOB, min_size=1, max_size=8), st.booleans())
def test_without_faults_every_job_that_fits_is_answered_in_full(
    jobs: list[tuple[str, bool, int, int, int]], reuse: bool
) -> None:
    world = World(reuse=reuse)
    for job in jobs:
        world.job(*job)
    world.end()
    for sequence in world.all:
        if fits(sequence):
            assert sequence.produced == sequence.lease.tokens
            assert reuse or sequence.cached == 0


@given(st.booleans(), st.booleans(), st.integers(20, 90))
def test_cached_tokens_are_those_of_the_same_account_unless_both_share(
    first_shares: bool, then_shares: bool, length: int
) -> None:
    world = World()
    world.job("a", first_shares, length, 0, 2)
    world.end()
    brief = replace(world.all[0].lease.brief, share_prefix=then_shares)
    world.ask(brief, "b", 2)
    world.end()
    assert world.all[-1].cached == (length - 1 if first_shares and then_shares else 0)
    world.ask(brief, "a", 2)
    world.end()
    assert world.all[-1].cached == length - 1


CELL_DEED = st.one_of(
    st.tuples(st.just("extend"), st.integers(0, 4), st.integers(0, 9), st.just(0)),
    st.tuples(st.just("trim"), st.integers(0, 4), st.integers(0, 30), st.just(0)),
    st.tuples(st.just("copy"), st.integers(0, 4), st.integers(0, 4), st.integers(1, 30)),
)


@given(st.lists(CELL_DEED, max_size=40), st.sets(st.integers(0, 4)), st.integers(0, 4), st.integers(0, 30))
def test_cells_are_counted_run_by_run_as_cell_by_cell(
    deeds: list[tuple[str, int, int, int]], some: set[int], also: int, length: int
) -> None:
    real = FakeCells(5)
    mirror = Scheduler(FakeEngine(slots=5, sequences=5).facts).prefixes.cells
    for name, slot, number, most in deeds:
        if name == "extend":
            real.extend(slot, [0] * number)
            mirror.extend(slot, number)
        elif name == "trim":
            keep = min(number, len(real.tokens[slot]))
            real.trim(slot, keep)
            mirror.trim(slot, keep)
        elif not real.tokens[number] and slot != number and real.tokens[slot]:
            shared = min(most, len(real.tokens[slot]))
            real.copy(slot, number, shared)
            mirror.copy(slot, number, shared)
    cells = [real.cells_of(slot) for slot in range(5)]
    assert mirror.used == real.used == len(set().union(*cells))
    for slot in range(5):
        others = set().union(*(cells[other] for other in range(5) if other != slot))
        assert mirror.length(slot) == len(cells[slot])
        assert mirror.alone(slot) == len(set(cells[slot]) - others)
        assert mirror.apart(slot, some) == len(set(cells[slot]).difference(*(cells[s] for s in some)))
    expected = set(cells[also][:length]).union(*(cells[slot] for slot in some))
    assert mirror.held(some, (also, length)) == len(expected)
