"""What is wrong with the items of a batch, named by item or line and gathered over several looks at them. Pure."""

from __future__ import annotations

from herder.api.problems import FAULTS_MAX, told
from herder.errors import HerderError, InvalidRequest


class Faults:
    """What is wrong with a batch, as far as it is told: the first FAULTS_MAX."""

    def __init__(self) -> None:
        self.found: list[dict[str, str]] = []

    def add(self, where: str, field: str, message: str) -> None:
        """One more."""
        self.found.append({"field": f"{where}: {field}" if field else where, "message": message})

    def take(self, where: str, error: HerderError) -> None:
        """What a check said of an item."""
        for each in error.extra.get("errors") or [{"field": "", "message": error.detail}]:
            self.add(where, each["field"], each["message"])

    @property
    def many(self) -> bool:
        """Whether there is no use in looking further."""
        return len(self.found) >= FAULTS_MAX

    def refuse(self) -> None:
        """Raises InvalidRequest where there are any."""
        if self.found:
            found = sorted(self.found, key=_place)
            raise InvalidRequest(told(found, all_found=not self.many), errors=found[:FAULTS_MAX])


def _place(fault: dict[str, str]) -> int:
    """The number of the item or the line; faults are looked for in several turns."""
    return int(fault["field"].partition(":")[0].rpartition(" ")[2])
