"""A job's `tokens` events for one reader, with reasoning kept apart from the answer. Pure.

Fed every event of the log in order, also those that the reader has had: what is held back depends on them.
"""

from __future__ import annotations

from herder.api.frames import Frame
from herder.api.tellers import EVENTS, Teller
from herder.reasoning import Parting

TOLD = "0"
"""So often before the id of the last `tokens`: so many of the pieces that were held back to the end have been told too.

A reader that comes back between them and the last event gets none twice; otherwise it is the same id.
"""


class Parted:
    """The answers of a job under way. Where its model knows no reasoning, every event goes as it is.

    `told` is how many of the pieces at the end the reader has had already.
    """

    def __init__(self, marks: str | None, told: int = 0, teller: Teller = EVENTS) -> None:
        self._marks = marks
        self._teller = teller
        self._told = told
        self._answers: dict[str | None, Parting] = {}
        self._last: dict[str, str] = {}
        self._last_id = ""

    @property
    def whole(self) -> bool:
        """Whether nothing depends on earlier events."""
        return self._marks is None

    def rung(self, heard: Frame) -> bytes:
        """An event `tokens` that rang; as it is where it is the same for all who listen."""
        if self._marks is None and self._teller is EVENTS:
            return heard.body
        return self.tokens(heard.event_id, heard.fields)

    def tokens(self, event_id: str, fields: dict[str, str]) -> bytes:
        """An event `tokens` as it is sent."""
        if self._marks is None:
            return self._teller.tokens(event_id, fields)
        self._last, self._last_id = fields, event_id
        parts = self._answers.setdefault(fields.get("choice"), Parting(self._marks)).feed(fields["text"])
        return self._teller.tokens(event_id, {**fields, "text": parts.text}, parts.reasoning)

    def void(self) -> None:
        """The answer starts again."""
        self._answers.clear()

    def rest(self) -> bytes:
        """What was held back, as frames that bring no tokens of their own: the job has ended."""
        held = [(choice, parting.end()) for choice, parting in self._answers.items()]
        said = []
        for number, (choice, parts) in enumerate([each for each in held if each[1] != ("", "")], 1):
            if number <= self._told:
                continue
            index = int(self._last["index"]) + int(self._last["count"])
            fields = {"attempt": self._last["attempt"], "index": str(index), "count": "0", "text": parts.text}
            if choice is not None:
                fields["choice"] = choice
            said.append(self._teller.tokens(TOLD * number + self._last_id, fields, parts.reasoning))
        self.void()
        return b"".join(said)


def told_of(event_id: str) -> int:
    """How many of the pieces at the end a reader has had whose last event this was."""
    return len(event_id) - len(event_id.lstrip(TOLD)) if event_id.partition("-")[0].strip(TOLD) else 0
