"""What each benchmark is meant to show. A goal that is missed is written down as missed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """A bound of a label's median: at `least` or at `most` so much. `ratio`: of ours ÷ the peer's."""

    least: float | None = None
    most: float | None = None
    ratio: bool = True

    def met(self, value: float) -> bool:
        """Whether this median is within the bound."""
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    def __str__(self) -> str:
        return f"≥ {self.least:g}" if self.least is not None else f"≤ {self.most:g}"


GOALS: dict[str, dict[str, Goal]] = {
    "throughput": {
        "llama_server@16": Goal(least=1.0),
        "raw_loop@16": Goal(least=0.95),
        "ring@16": Goal(least=0.9),
    },
    "shared_prefix": {"llama_server": Goal(least=2.0), "chat_reuse": Goal(least=0.9, ratio=False)},
    "stall": {"worst_gap": Goal(most=0.5), "wall": Goal(most=1.1)},
    "overhead": {
        "arq": Goal(least=5.0),
        "saq": Goal(least=1.0),
        "redis_round_trip": Goal(most=3.0),
        "fastapi_echo": Goal(least=0.5),
        "litellm": Goal(least=2.0),
    },
    "depth": {"lease_p99": Goal(most=1.3), "idle_commands_per_s": Goal(most=2.0, ratio=False)},
    "bids": {
        "starts_before_high_bid": Goal(most=2, ratio=False),
        "fifo_violations": Goal(most=0, ratio=False),
    },
    "fairness": {"p95_wait": Goal(most=1.0)},
    "batch10k": {"answers_missing": Goal(most=0, ratio=False), "answers_twice": Goal(most=0, ratio=False)},
}
