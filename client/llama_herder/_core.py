"""How a call is made, sans IO: what to send, what a reply means, whether and when to try again.

A flow is a generator that yields effects (`Send`, `Sleep`) and is sent what became of them (`Reply`, `Broken`,
None); it returns the result or raises one of `llama_herder.errors`. The sync and the async client perform the same
flows. Must not know httpx, threads, event loops or which clock there is.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Generic, TypeAlias, TypeVar
from urllib.parse import urlsplit

from llama_herder._json import odd_number
from llama_herder._patience import Patience, Tries
from llama_herder.errors import CannotConnect, HerderError, NoReply, Unavailable
from llama_herder.problems import InvalidKey, InvalidRequest, error_class

T = TypeVar("T")

DEFAULT_URL = "http://127.0.0.1:8080"
RETRIED = frozenset({429, 502, 503, 504})

_NOT_SENT = "nothing was sent, and nothing is charged"


@dataclass(frozen=True)
class Send:
    """Effect: one HTTP request. `read_s` is how long the herder may keep silent beyond the client's own timeout."""

    method: str
    path: str
    params: Mapping[str, str | int | Sequence[str]] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    read_s: float = 0.0

    def content(self) -> bytes | None:
        """The body as the bytes to send."""
        return None if self.body is None else json_bytes(self.body)


def json_bytes(body: Mapping[str, Any], name: str = "") -> bytes:
    """JSON in one line; refuses here what no JSON could say (NaN, text that is not Unicode), by its name in `name`."""
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        raise InvalidRequest("the text is not valid UTF-8") from None
    except (ValueError, TypeError) as error:
        if odd := odd_number(body, name):
            raise InvalidRequest(one_line(odd, 200)) from None
        raise InvalidRequest(f"this cannot be sent as JSON: {one_line(str(error), 200)}") from None


@dataclass(frozen=True)
class Sleep:
    """Effect: let `seconds` pass."""

    seconds: float


@dataclass(frozen=True)
class Reply:
    """What came back; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes


@dataclass(frozen=True)
class Broken:
    """No reply. `sent` says whether the request may have arrived; `why` is one short line.

    `lasting` says that it will be the same the next time; `hint` what to do, where that is known. `refused`: the host
    is there and nothing listens, as while a herder restarts.
    """

    sent: bool
    why: str
    lasting: bool = False
    hint: str = ""
    refused: bool = False


Effect: TypeAlias = Send | Sleep
Outcome: TypeAlias = Reply | Broken | None
Flow: TypeAlias = Generator[Effect, Outcome, T]


@dataclass(frozen=True)
class Call(Generic[T]):
    """One call of the API: what to send, how to read the answer, and whether sending it twice is harmless.

    `unsure` is what to add to the message when nobody can know whether it happened.
    """

    send: Send
    parse: Callable[[Any], T]
    repeatable: bool = True
    unsure: str = ""


def perform(call: Call[T], url: str, patience: Patience) -> Flow[T]:
    """Sends, and sends again where that is safe; returns what `call` reads out of the answer.

    1. A good reply is read. 2. A refusal is raised. 3. No reply (unless it will stay so), 429, 502, 503 and 504 are
    tried again if the call may be repeated and patience lasts; so is a refused connection, of any call: nothing was
    sent. 4. Otherwise they are raised too, saying what may have happened all the same (`final`).
    """
    tries, heard = Tries(), False
    while True:
        outcome = yield call.send
        assert outcome is not None
        note_contact(outcome, patience)
        if isinstance(outcome, Reply) and 200 <= outcome.status < 300:
            return call.parse(_object_of(outcome, url))
        again = call.repeatable or (isinstance(outcome, Broken) and outcome.refused)
        pause_s = pause_after(outcome, tries, patience) if again else None
        error = error_of(outcome, url)
        heard = heard or doubtful(error)
        if pause_s is None:
            raise final(error, outcome, call.unsure, heard)
        yield Sleep(pause_s)


def note_contact(outcome: object, patience: Patience) -> None:
    """Remember that somebody is there."""
    if not isinstance(outcome, Broken) or outcome.sent:
        patience.contact.made = True


def pause_after(
    outcome: Reply | Broken, tries: Tries, patience: Patience, least_s: float = 0.0
) -> float | None:
    """Seconds before it is tried again, at least `least_s`; None where there is no use, or no patience is left."""
    if not passing(outcome):
        return None
    asked_s = retry_after_s(outcome.headers.get("retry-after")) if isinstance(outcome, Reply) else None
    refused = isinstance(outcome, Broken) and outcome.refused
    return tries.pause_s(patience, refused=refused, asked_s=max(asked_s or 0.0, least_s))


def error_of(outcome: Reply | Broken, url: str) -> HerderError:
    """The exception for what is not a yes."""
    return _broken(outcome, url) if isinstance(outcome, Broken) else problem(outcome, url)


def passing(outcome: Reply | Broken) -> bool:
    """Whether it may be different the next time."""
    return not outcome.lasting if isinstance(outcome, Broken) else outcome.status in RETRIED


def _object_of(reply: Reply, url: str) -> dict[str, Any]:
    try:
        data = json.loads(reply.content) if reply.content else {}
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise HerderError(
            f"{url} answered, but not like a herder (no JSON object); check the URL", status=reply.status
        )
    return data


def _broken(outcome: Broken, url: str) -> HerderError:
    if outcome.sent:
        return NoReply(f"no reply from {url}: {outcome.why}")
    hint = outcome.hint or "is a herd running there? `herder up` starts one"
    return CannotConnect(f"cannot connect to {url}: {outcome.why} ({hint})")


def doubtful(error: HerderError) -> bool:
    """Whether nobody can know if it happened: no reply, or a reply from something in between."""
    return isinstance(error, NoReply) or (error.status in (502, 504) and error.code == "unavailable")


def undecided(outcome: Reply | Broken, error: HerderError) -> bool:
    """Whether it tells nothing of what an earlier try came to, as a refusal of the same submission does."""
    return isinstance(error, Unavailable) or passing(outcome)


def final(error: HerderError, outcome: Reply | Broken, unsure: str, heard: bool) -> HerderError:
    """The error as it is raised. `heard`: one of the tries may have arrived; `unsure` says what then may have happened.

    Without `unsure` nothing can have happened that would matter.
    """
    if not unsure:
        return error
    if isinstance(error, CannotConnect):
        return worded(error, f"an earlier try had no reply: {unsure}" if heard else _NOT_SENT)
    return worded(error, unsure) if heard and undecided(outcome, error) else error


def worded(error: HerderError, more: str) -> HerderError:
    """The same error with more to say."""
    return type(error)(
        f"{error.detail}; {more}",
        code=error.code,
        status=error.status,
        request_id=error.request_id,
        extra=error.extra,
    )


def problem(reply: Reply, url: str) -> HerderError:
    """The exception for a reply that is not a yes: by its problem code, or in words where it has none."""
    try:
        data = json.loads(reply.content)
    except (ValueError, RecursionError):
        data = None
    request_id = reply.headers.get("x-request-id")
    if not isinstance(data, dict) or not isinstance(data.get("code"), str):
        detail = _foreign(reply, url)
        return error_class("", reply.status)(detail, status=reply.status, request_id=request_id)
    code = str(data["code"])
    detail = one_line(str(data.get("detail") or data.get("title") or code))
    standard = ("type", "title", "status", "detail", "code", "request_id", "instance")
    extra = {name: value for name, value in data.items() if name not in standard}
    retry_after = retry_after_s(reply.headers.get("retry-after"))
    if retry_after is not None:
        extra.setdefault("retry_after", retry_after)
    return error_class(code, reply.status)(
        detail,
        code=code,
        status=reply.status,
        request_id=str(data["request_id"]) if data.get("request_id") else request_id,
        extra=extra,
    )


def _foreign(reply: Reply, url: str) -> str:
    """A reply without a problem document: it came from something in front of the herder, or from something else."""
    if reply.status in (502, 503, 504):
        return f"{url} answered {reply.status}: a proxy is there, but the herder behind it is not reachable"
    if 300 <= reply.status < 400 and "location" in reply.headers:
        target = urlsplit(reply.headers["location"])
        host = f"{target.scheme}://{target.netloc}" if target.netloc else target.path
        return f"{url} redirects to {one_line(host)}: if that is your herd, use its URL"
    return f"{url} answered {reply.status} without saying why; check that the URL is a herder's"


def retry_after_s(value: str | None) -> float | None:
    """Seconds out of a Retry-After header, which is a number or a date; None where it is neither."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def one_line(text: str, most: int = 500) -> str:
    """Text from elsewhere as one line that is safe to print: no control characters, not endless."""
    clean = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return clean if len(clean) <= most else clean[: most - 1] + "…"


def base_url(url: str) -> str:
    """The URL without a trailing slash; one that no request could be sent to is refused here."""
    clean = url.strip().rstrip("/")
    try:
        parts = urlsplit(clean)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise InvalidRequest(f"{one_line(url)!r} is not a herder's URL: it must look like {DEFAULT_URL}")
    return clean


def authorization(api_key: str | None) -> dict[str, str]:
    """The header that carries the key; none without one: the herder then says so itself."""
    key = (api_key or "").strip()
    if not key:
        return {}
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise InvalidKey("the API key has characters that no key has: was it copied whole, and nothing else?")
    return {"Authorization": f"Bearer {key}"}
