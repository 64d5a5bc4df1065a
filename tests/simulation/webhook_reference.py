"""What must be true of webhooks: addresses, deliveries, attempts. A part of the reference; knows no Redis and no Lua.

The one thing it does not predict is which of the lanes that are due has its turn: it is told, and judges that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from herder.addresses import host_of
from herder.deliveries import CLAIM_MARGIN_MS, SOON_MS
from herder.protocol import Webhook
from herder.settings import Settings
from herder.webhook_records import Attempted, DeliveryStatus, HeldBack, NewDelivery
from tests.simulation.states import Delivery, Endpoint, expect

if TYPE_CHECKING:
    from tests.simulation.reference import Reference

OLD_SECRETS_MAX = 3
DOWN_AFTER = 3  # far below the default, so that seeds come to it
PROBE_MS = 5_000  # above it, so that much happens meanwhile
PROBE_MAX_MS = 20_000
ACCOUNT_MAX = 3  # one more than of a host
LOOKED_MAX = 5


Scope = tuple[str, ...]  # an account, or an account and a host


def scopes_of(new: NewDelivery) -> tuple[Scope, Scope]:
    """What a delivery shares with others: its account's place at its host, and its account."""
    return (new.account, host_of(new.url)), (new.account,)


class WebhookReference:
    """Every endpoint and delivery. `host_max` attempts at a lane at a time, each given up after `flight_ms`."""

    def __init__(self, reference: Reference, s: Settings) -> None:
        self._all = reference
        self.host_max, self.flight_ms = s.webhook_host_concurrency, s.webhook_timeout_ms + CLAIM_MARGIN_MS
        self.first_pause_ms = round(s.webhook_schedule_s[0] * 1000)
        self.endpoints_max, self.rotation_ms = s.webhook_endpoints_max, s.webhook_rotation_ms
        self.ttl_ms, self.result_ttl_ms = s.webhook_ttl_ms, s.result_ttl_ms
        self.endpoints: dict[str, Endpoint] = {}
        self.deliveries: dict[str, Delivery] = {}
        self.forgotten: dict[str, Delivery] = {}
        self.failures: Counter[str] = Counter()  # of a lane, in a row
        self.failed_ms: dict[str, int] = {}
        self.down_ms: dict[str, int] = {}

    # --- endpoints -----------------------------------------------------------------------------------------

    def ensure(self, account: str, url: str, endpoint: str, secret: str) -> tuple[str, str]:
        """The word for the use of an address, and the id of its endpoint."""
        if account not in self._all.accounts:
            return "NO_ACCOUNT", ""
        own = {name: e for name, e in self.endpoints.items() if e.account == account}
        for name, known in own.items():
            if known.url == url:
                return ("DISABLED" if known.disabled_ms else "OK"), name
        if len(own) >= self.endpoints_max:
            return "FULL", ""
        self.endpoints[endpoint] = Endpoint(account, url, secret, created_ms=self._all.now)
        return "OK", endpoint

    def change(self, op: str, account: str, endpoint: str, secret: str) -> str:
        """The word for a rotation, a switch, a deletion."""
        seen = self.endpoints.get(endpoint)
        if seen is None or seen.account != account:
            return "UNKNOWN"
        if op == "rotate":
            still = seen.old_secrets if seen.old_until_ms > self._all.now else ()
            seen.old_secrets = (seen.secret, *still)[:OLD_SECRETS_MAX]
            seen.secret = secret
            seen.old_until_ms = self._all.now + self.rotation_ms
        elif op == "enable":
            seen.disabled_ms, seen.disabled_why = 0, ""
        elif op == "disable":
            seen.disabled_ms, seen.disabled_why = self._all.now, "by hand"
        elif op == "default":
            pass
        else:
            del self.endpoints[endpoint]
            default = self._all.accounts[account].default
            if default is not None and default.endpoint == endpoint:
                self._all.accounts[account].default = None
        return "OK"

    # --- deliveries ----------------------------------------------------------------------------------------

    def post(self, new: NewDelivery) -> None:
        """A callback that somebody wants to hear of was taken."""
        expect(new.id in self.deliveries, False, f"{new.id} is posted twice")
        at = self._all.now + self.first_pause_ms
        self.deliveries[new.id] = Delivery(new, self._all.now, due_ms=at, next_ms=at)

    def lanes(self) -> dict[str, int]:
        """When something can next be done for each lane that has anything pending."""
        found: dict[str, int] = {}
        for lane in sorted({d.new.lane for d in self.deliveries.values() if d.pending}):
            flights = [d.flight_ms for d in self.flights(lane).values() if d.flight_ms is not None]
            due = [d.due_ms for d in self.due(lane).values() if d.due_ms is not None]
            again = self.again_ms(lane)
            full = len(flights) >= (self.host_max if again is None else 1)
            found[lane] = min(flights + ([] if full or not due else [max(min(due), again or 0)]))
        return found

    def again_ms(self, lane: str) -> int | None:
        """When a lane that is down may be asked again; None of one that is not."""
        if self.failures[lane] < DOWN_AFTER:
            return None
        failed = self.failed_ms[lane]
        return failed + max(PROBE_MS, min(failed - self.down_ms[lane], PROBE_MAX_MS))

    def room(self, lane: str) -> int:
        """How many attempts may begin at a lane now: one that is down is asked once at a time, after a pause."""
        again, under_way = self.again_ms(lane), len(self.flights(lane))
        if again is None:
            return self.host_max - under_way
        return int(under_way == 0 and again <= self._all.now)

    def due(self, lane: str) -> dict[str, Delivery]:
        """A lane's deliveries that wait for an attempt."""
        return {n: d for n, d in self.deliveries.items() if d.new.lane == lane and d.due_ms is not None}

    def flights(self, lane: str) -> dict[str, Delivery]:
        """A lane's deliveries with an attempt under way."""
        return {n: d for n, d in self.deliveries.items() if d.new.lane == lane and d.flight_ms is not None}

    def flying(self, scope: Scope) -> dict[str, int]:
        """Attempts of a host or an account that are under way, and when each is given up."""
        return {
            name: d.flight_ms
            for name, d in self.deliveries.items()
            if d.flight_ms is not None and d.flight_ms > self._all.now and scope in scopes_of(d.new)
        }

    def claim(self, limit: int, turns: Sequence[str]) -> tuple[list[tuple[str, int]], int]:
        """Which attempts are handed out to the lanes of `turns`, all that are due, in their order; and at how many of
        these lanes was looked.

        Each lane with room gets one, until there are none left; what is left then is shared out. In a lane's share
        comes first what is due longest.
        """
        now, counts = self._all.now, self._all.counts
        at = sorted(lane for lane, at in self.lanes().items() if at <= now)
        expect(sorted(turns), at, "lanes that are due")
        flying: Counter[Scope] = Counter()
        for delivery in self.deliveries.values():
            flying.update(scope for scope in scopes_of(delivery.new) if delivery.flying(now))
        ready: list[tuple[Scope, Scope, list[str]]] = []
        looked = 0
        for lane in turns[:LOOKED_MAX]:
            if len(ready) == limit:
                break
            looked += 1
            host, account = scopes_of(next(d.new for d in self.deliveries.values() if d.new.lane == lane))
            if flying[host] >= self.host_max or flying[account] >= ACCOUNT_MAX:
                counts["a full host" if flying[host] >= self.host_max else "a full account"] += 1
                continue
            if due := self._ready(lane):
                flying.update((host, account))
                ready.append((host, account, due))
        claimed: list[tuple[str, int]] = []
        for host, account, due in ready:
            left = min(self.host_max - flying[host], ACCOUNT_MAX - flying[account])
            more = min(len(due) - 1, limit // len(ready) - 1, left)
            flying.update({host: more, account: more})
            claimed += [self._begun(name) for name in due[: 1 + more]]
        return claimed, looked

    def _ready(self, lane: str) -> list[str]:
        """What may begin at a lane whose turn it is; what nobody answered for is due again."""
        now, counts = self._all.now, self._all.counts
        for delivery in self.flights(lane).values():
            if not delivery.flying(now):
                delivery.flight_ms, delivery.due_ms = None, now
                counts["attempts given up"] += 1
        due = sorted((d.due_ms, name) for name, d in self.due(lane).items() if (d.due_ms or 0) <= now)
        room = self.room(lane)
        counts["a full lane"] += len(due) > room
        counts["a lane that is down"] += bool(due) and self.failures[lane] >= DOWN_AFTER
        return [name for _, name in due[:room]]

    def _begun(self, name: str) -> tuple[str, int]:
        delivery = self.deliveries[name]
        delivery.due_ms, delivery.flight_ms = None, self._all.now + self.flight_ms
        delivery.attempt += 1
        return name, delivery.attempt

    def held_back(self, name: str) -> tuple[HeldBack | None, int | None]:
        """Why a delivery waits whose time has come, and when it is shown to be tried."""
        now, delivery = self._all.now, self.deliveries[name]
        due, lane = delivery.next_ms, delivery.new.lane
        if due is None or due > now or delivery.flying(now):
            return None, due
        if (again := self.again_ms(lane)) is not None:
            asked = max((d.flight_ms or 0 for d in self.flights(lane).values()), default=0)
            if again > now or asked > now:
                return HeldBack.ENDPOINT_DOWN, again if again > now else asked
        return (HeldBack.BUSY if due + SOON_MS <= now else None), due

    def unwritten(self) -> dict[str, int]:
        """Deliveries without a body, and when it is to be made at the latest."""
        half_ms = self.result_ttl_ms // 2
        return {name: d.new.at_ms + half_ms for name, d in self.deliveries.items() if not d.body}

    def write(self, name: str, body: str) -> bool:
        """What a delivery says is written once."""
        delivery = self.deliveries.get(name)
        if delivery is None or delivery.body:
            return False
        delivery.body = body
        return True

    def attempted(self, result: Attempted, body: str) -> str:
        """The word for what came of an attempt."""
        delivery = self.deliveries.get(result.delivery)
        if delivery is None or not delivery.pending or delivery.attempt != result.attempt:
            return "STALE"
        if delivery.answered == result.attempt:
            return "STALE"
        now = self._all.now
        delivery.body = delivery.body or body
        self._all.counts["late answers that count"] += delivery.late(result.attempt)
        delivery.flight_ms, delivery.due_ms, delivery.answered = None, None, result.attempt
        delivery.tries += 1
        delivery.last_ms, delivery.last_status, delivery.last_error = (
            now,
            result.response_status,
            result.error,
        )
        endpoint = self.endpoints.get(delivery.new.endpoint)
        if result.disable and endpoint is not None and not endpoint.disabled_ms:
            endpoint.disabled_ms, endpoint.disabled_why = now, result.disable
        lane = delivery.new.lane
        if result.outcome is DeliveryStatus.DELIVERED:
            self._all.counts["lanes that are up again"] += self.failures[lane] >= DOWN_AFTER
            self.failures[lane] = 0
        elif result.pause_ms is not None or result.response_status is not None:
            self.failures[lane] += 1
            self.failed_ms[lane] = now
            if self.failures[lane] == DOWN_AFTER:
                self.down_ms[lane] = now
        if result.pause_ms is not None:
            delivery.due_ms = delivery.next_ms = now + result.pause_ms
        else:
            delivery.status, delivery.ended_ms, delivery.next_ms = result.outcome, now, None
        return "OK"

    def redeliver(self, account: str, name: str) -> str:
        """The word for a wish to have it again."""
        delivery = self.deliveries.get(name)
        if delivery is None or delivery.new.account != account:
            return "UNKNOWN"
        if delivery.pending:
            return "PENDING"
        endpoint = self.endpoints.get(delivery.new.endpoint)
        if endpoint is None:
            return "GONE"
        if endpoint.disabled_ms:
            return "DISABLED"
        delivery.status, delivery.tries, delivery.ended_ms = DeliveryStatus.PENDING, 0, None
        delivery.due_ms = delivery.next_ms = self._all.now
        return "OK"

    def sweep(self, limit: int) -> None:
        """What ended long ago is forgotten."""
        for _, entry in self.ended()[:limit]:
            name = entry.partition(":")[0]
            delivery = self.deliveries[name]
            if (delivery.ended_ms or 0) <= self._all.now - self.ttl_ms:
                self.forgotten[name] = self.deliveries.pop(name)
                self._all.counts["delivery forgotten"] += 1

    def ended(self) -> Sequence[tuple[int, str]]:
        """(when, delivery:account) of each delivery that is over, oldest first."""
        return sorted(
            (d.ended_ms, f"{name}:{d.new.account}")
            for name, d in self.deliveries.items()
            if d.ended_ms is not None
        )


def webhook_told(webhook: Webhook | None, default: Webhook | None, *, item: bool) -> Webhook | None:
    """Where an end is told: its own address, else the account's; of an item of a batch only its own."""
    return webhook or (None if item else default)
