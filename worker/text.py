"""From token bytes to text that may be shown: whole characters only, and never a part of a stop string.

Pure. Must not know of tokens, engines or jobs. The result does not depend on how the bytes were cut into pieces:
stop strings are matched character by character, and the one that is complete first wins.
"""

from __future__ import annotations

import codecs


class StopMatcher:
    """Knuth-Morris-Pratt for one stop string: `matched` characters of it end the text so far."""

    def __init__(self, stop: str) -> None:
        self.stop = stop
        self.matched = 0
        self._fallback = [0] * len(stop)
        longest = 0
        for i in range(1, len(stop)):
            while longest and stop[i] != stop[longest]:
                longest = self._fallback[longest - 1]
            longest += stop[i] == stop[longest]
            self._fallback[i] = longest

    def feed(self, char: str) -> bool:
        """Take one character; True when it completes the stop string."""
        while self.matched and char != self.stop[self.matched]:
            self.matched = self._fallback[self.matched - 1]
        self.matched += char == self.stop[self.matched]
        return self.matched == len(self.stop)


class TextStream:
    """The text of one answer as it grows. `push` returns what may be shown now; `stopped` turns True at a stop string.

    Bytes of an incomplete character are held until the rest comes, invalid bytes become U+FFFD, and whatever might be
    the beginning of a stop string is held until it is one (then it is cut) or is disproved (then it is released).
    """

    def __init__(self, stops: tuple[str, ...] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._matchers = [StopMatcher(stop) for stop in stops if stop]
        self._held = ""
        self.stopped = False

    def push(self, piece: bytes) -> str:
        """Take the bytes of the next token; returns the text that has become certain."""
        if self.stopped:
            return ""
        fresh = self._decoder.decode(piece)
        if not self._matchers:
            return fresh
        text = self._held + fresh
        for end, char in enumerate(fresh, len(self._held) + 1):
            # A list, not a generator: every matcher must see every character.
            complete = [len(matcher.stop) for matcher in self._matchers if matcher.feed(char)]
            if complete:
                self.stopped = True
                self._held = ""
                return text[: end - max(complete)]
        keep = max(matcher.matched for matcher in self._matchers)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    @property
    def holds(self) -> bool:
        """Whether it keeps whole characters back, which may be the beginning of a stop string."""
        return bool(self._held)

    @property
    def behind(self) -> int:
        """So many characters more than have been shown must be shown until the last token's text is out."""
        return len(self._held) + bool(self._decoder.getstate()[0])

    def finish(self) -> str:
        """The answer ends here: what was held as a possible stop string was none. A cut character is dropped."""
        held, self._held = self._held, ""
        return held
