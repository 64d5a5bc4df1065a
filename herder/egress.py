"""The only way out of the herd to an address that a caller named: one POST, to a public address, once.

Checks at connect time, where the answer of DNS can no longer change: a name is resolved once, every address that it
has is checked, and the connection goes to one of these very addresses. Built on httpcore itself, which follows no
redirect, keeps no cookie, asks no proxy of the environment and logs no URL. Knows nothing of jobs, signatures or
attempts. This file is httpcore's only owner; which addresses are allowed is in `herder/addresses.py`.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from types import TracebackType

import httpcore
import httpx

from herder.addresses import Address, Policy, checked_url, endpoint_of, forbidden, host_of, why_not
from herder.errors import InvalidRequest, SetupError

__all__ = ["Answer", "Egress", "Policy", "Refused", "checked_url", "endpoint_of", "forbidden", "host_of"]

TRIES_MAX = 4  # addresses of one name that are tried
LOOKUPS_MAX = 128  # names at a time, more than a courier has attempts: no name server holds up another
RETRY_AFTER_S_MAX = 86_400.0
ERROR_CHARS_MAX = 200

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""A host name and a port to the IP addresses of the name. Raises OSError where it has none."""


class Refused(Exception):
    """The address must not be reached; the message says why and who can change it."""


@dataclass(frozen=True)
class Answer:
    """What became of one attempt: a status, or one printable line on why there is none.

    `refused` is true where the policy said no: nothing was sent, and only the operator can change that.
    """

    status: int | None
    retry_after_s: float | None = None
    error: str | None = None
    refused: bool = False


class Lookup:
    """The system's resolver, on threads of its own: a slow name server holds up nothing but webhooks.

    A thread cannot be interrupted; one that is given up ends when the system's own limit does.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(LOOKUPS_MAX, thread_name_prefix="egress-lookup")

    async def __call__(self, host: str, port: int) -> list[str]:
        """The addresses of a name, in the system's order of preference. Raises OSError."""
        found = await asyncio.get_running_loop().run_in_executor(self._threads, _addresses_of, host, port)
        return [str(address[0]) for *_, address in found]

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _addresses_of(host: str, port: int) -> list[tuple[object, object, object, object, tuple[object, ...]]]:
    # Bytes, so that Python's own IDNA, which is not that of `checked_url`, has no say.
    return list(socket.getaddrinfo(host.encode("ascii"), port, type=socket.SOCK_STREAM))


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Opens TCP connections for one POST, to addresses that it has checked; remembers them, to close them."""

    def __init__(self, policy: Policy, resolve: Resolve, connector: httpcore.AsyncNetworkBackend) -> None:
        self._policy, self._resolve, self._connector = policy, resolve, connector
        self._opened: list[httpcore.AsyncNetworkStream] = []

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first checked address that answers; each has its share of `timeout` (seconds).

        Raises Refused where any address of the host is forbidden: a name that points both inside and outside is an
        attack. Raises OSError for a name without an address, httpcore's exceptions for one that cannot be reached.
        """
        addresses = await self._checked(host, port)
        each_s = timeout / len(addresses) if timeout is not None else None
        failed: Exception = httpcore.ConnectError()
        for address in addresses:
            try:
                stream = await self._connector.connect_tcp(
                    str(address), port, each_s, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
            else:
                self._opened.append(stream)
                return stream
        raise failed

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        raise Refused("a webhook never goes to a unix socket")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def aclose(self) -> None:
        """Close what was opened. httpcore leaves a socket open that is cancelled in the middle of a TLS handshake."""
        for stream in self._opened:
            await stream.aclose()

    async def _checked(self, host: str, port: int) -> list[Address]:
        address = _address(host)
        if address is not None:
            self._check(host, host, address)
            return [address]
        answers = list(dict.fromkeys(await self._resolve(host, port)))
        found: list[Address] = []
        for answer in answers:
            address = _address(answer)
            if address is None:
                raise Refused(f"{host} resolves to something that is no address")
            # The address stays unsaid: a caller is not to read the names of the operator's network with it.
            self._check(host, f"an address of {host}", address)
            found.append(address)
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "no address")
        return found[:TRIES_MAX]

    def _check(self, host: str, what: str, address: Address) -> None:
        reason = None if host in self._policy.allow_hosts else forbidden(address, self._policy)
        if reason is not None:
            raise Refused(why_not(what, reason))


class Egress:
    """Sends webhooks; an async context manager. Every POST has a connection of its own.

    `resolve` and `connector` are what a test injects. Without an `ssl_context` the authorities are those that
    SSL_CERT_FILE or SSL_CERT_DIR names, else certifi's; SetupError where they cannot be read.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        resolve: Resolve | None = None,
        connector: httpcore.AsyncNetworkBackend | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._policy = policy
        self._lookup = Lookup()
        self._resolve = resolve or self._lookup
        self._connector = connector or httpcore.AnyIOBackend()
        self._ssl = ssl_context or _authorities()

    async def __aenter__(self) -> Egress:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lookup.close()

    async def post(self, url: str, body: bytes, headers: dict[str, str], timeout_s: float) -> Answer:
        """Send `body` and read the status line and the headers, all within `timeout_s`; never the body.

        Host, Content-Length, Connection and User-Agent are this file's. Raises nothing: what goes wrong is in the
        answer.
        """
        backend = GuardedBackend(self._policy, self._resolve, self._connector)
        try:
            # Again: a stored URL may be older than the policy.
            request = _request(checked_url(url, self._policy), body, headers, timeout_s)
            async with asyncio.timeout(timeout_s):
                try:
                    connection = httpcore.AsyncHTTPConnection(
                        request.url.origin, ssl_context=self._ssl, network_backend=backend
                    )
                    response = await connection.handle_async_request(request)
                finally:
                    await backend.aclose()
        except (InvalidRequest, Refused) as refusal:
            return Answer(None, error=_line(str(refusal).removeprefix("webhook_url: ")), refused=True)
        except (TimeoutError, httpcore.TimeoutException):
            return Answer(None, error=f"timed out after {timeout_s:g} s")
        except Exception as error:
            return Answer(None, error=_line(_why(error)))
        return Answer(response.status, _asked_to_wait(response))


def retry_after_s(text: str, now_s: float) -> float | None:
    """Retry-After in seconds from now, 0 to RETRY_AFTER_S_MAX; None for what is neither a number nor a date."""
    text = text.strip()
    if re.fullmatch(r"[0-9]+", text):
        # Digits without end are a long time, not a number to be read.
        wait_s = float(text) if len(text) < 10 else RETRY_AFTER_S_MAX
    else:
        try:
            date = parsedate_to_datetime(text)
            # A date without a zone is in GMT, as every date of HTTP.
            wait_s = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now_s
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
    return min(max(wait_s, 0.0), RETRY_AFTER_S_MAX)


def _asked_to_wait(response: httpcore.Response) -> float | None:
    for name, value in response.headers:
        if name.lower() == b"retry-after":
            return retry_after_s(value.decode("latin-1"), time.time())
    return None


def _request(url: str, body: bytes, headers: dict[str, str], timeout_s: float) -> httpcore.Request:
    parsed = httpx.URL(url)
    ours = {
        "host": parsed.netloc.decode("ascii"),
        "user-agent": "llama-herder",
        "connection": "close",
        "content-length": str(len(body)),
    }
    theirs = {name: value for name, value in headers.items() if name.lower() not in ours}
    return httpcore.Request(
        "POST",
        httpcore.URL(
            scheme=parsed.raw_scheme, host=parsed.raw_host, port=parsed.port, target=parsed.raw_path
        ),
        headers=[(name.encode("ascii"), value.encode("ascii")) for name, value in {**ours, **theirs}.items()],
        content=body,
        extensions={"timeout": {"connect": timeout_s}},
    )


def _address(text: str) -> Address | None:
    """An address as it is usually written; one with a zone is none."""
    try:
        return ip_address(text) if "%" not in text else None
    except ValueError:
        return None


def _why(error: BaseException) -> str:
    """What went wrong, in few words; nothing of what the receiver sent is repeated."""
    chain, cause = [error], error.__cause__ or error.__context__
    while cause is not None and len(chain) < 10:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    for one in chain:
        if isinstance(one, ssl.SSLCertVerificationError):
            return f"the certificate is not trusted: {one.verify_message}"
        if isinstance(one, ssl.SSLError):
            return f"TLS failed: {(one.reason or 'it broke off').replace('_', ' ').lower()}"
        if isinstance(one, socket.gaierror):
            return "the name cannot be resolved"
        if isinstance(one, ConnectionRefusedError):
            return "connection refused"
    if isinstance(error, httpcore.RemoteProtocolError):
        gone = "disconnected" in str(error)
        return "the connection was closed without an answer" if gone else "the answer is not HTTP"
    if isinstance(error, (httpcore.LocalProtocolError, UnicodeError)):
        return "a header cannot be sent"
    system = next(
        (one.strerror for one in reversed(chain) if isinstance(one, OSError) and one.strerror), None
    )
    return system.lower() if system else "the connection broke"


def _line(text: str) -> str:
    """One printable line."""
    return "".join(char if char.isprintable() else " " for char in text)[:ERROR_CHARS_MAX]


def _authorities() -> ssl.SSLContext:
    try:
        return httpx.create_ssl_context(trust_env=True)
    except OSError as error:
        name = "SSL_CERT_FILE" if os.environ.get("SSL_CERT_FILE") else "SSL_CERT_DIR"
        raise SetupError(f"{name}: no certificates can be read from {os.environ.get(name)!r}") from error
