"""The part of the two clients that knows httpx and is the same in both: settings in, outcomes out."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Iterator
from importlib import metadata
from typing import Any
from urllib.parse import urlsplit

import httpx

from llama_herder._calls import kind_of, seconds
from llama_herder._core import DEFAULT_URL, Broken, Reply, Send, authorization, base_url, one_line
from llama_herder._patience import Patience
from llama_herder._streams import Open
from llama_herder.problems import InvalidRequest

CONNECT_S_MAX = 10.0
CONNECTIONS_MAX = 100
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

_NOT_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)

_EXPIRED = 10  # X509_V_ERR_CERT_HAS_EXPIRED
_WRONG_HOST = frozenset({62, 64})  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH


def url_of(url: str | None) -> str:
    """The argument, else HERDER_URL, else a herd on this machine."""
    _text(url, "url", DEFAULT_URL)
    return base_url(url or os.environ.get("HERDER_URL") or DEFAULT_URL)


def patience_of(tries: int, refused_s: float) -> Patience:
    """How long the calls of a client are kept trying."""
    if isinstance(tries, bool) or not isinstance(tries, int):
        raise TypeError(f"tries must be a whole number such as 5, not {kind_of(tries)}")
    if tries < 1:
        raise InvalidRequest(f"tries must be 1 or more, not {tries}")
    return Patience(tries=tries, refused_s=seconds(refused_s, "refused_s") or 0.0)


def _text(given: object, name: str, example: str) -> None:
    """Tells whatever was passed in the place of a text apart."""
    if given is not None and not isinstance(given, str):
        raise TypeError(f'{name} must be text such as "{example}", or None, not {kind_of(given)}')


def client_settings(url: str, api_key: str | None, timeout: float, transport: object) -> dict[str, Any]:
    """What both httpx clients are made with; redirects are not followed, so that the key goes nowhere else."""
    if not seconds(timeout):
        raise InvalidRequest(
            "timeout must be more than 0 seconds: so long the herder may show no sign of life"
        )
    _text(api_key, "api_key", "hk_…")
    key = api_key if api_key is not None else os.environ.get("HERDER_API_KEY")
    return {
        "base_url": url,
        "headers": {
            "User-Agent": f"llama-herder/{installed_version()}",
            "Accept": "application/json",
            **authorization(key),
        },
        "timeout": httpx.Timeout(timeout, connect=min(timeout, CONNECT_S_MAX)),
        "limits": httpx.Limits(max_connections=CONNECTIONS_MAX),
        "follow_redirects": False,
        # A proxy of the environment has no way to this machine's own herd; its certificates are trusted all the same.
        "trust_env": urlsplit(url).hostname not in LOOPBACK,
        "transport": transport,
        "verify": _trusted() if transport is None else True,
    }


def _trusted() -> ssl.SSLContext:
    """The authorities that SSL_CERT_FILE or SSL_CERT_DIR names, as everywhere; those of certifi without them."""
    try:
        return httpx.create_ssl_context(trust_env=True)
    except OSError as error:
        name = "SSL_CERT_FILE" if os.environ.get("SSL_CERT_FILE") else "SSL_CERT_DIR"
        broken = "not a PEM file with certificates"
        why = broken if isinstance(error, ssl.SSLError) else (error.strerror or broken).lower()
        raise InvalidRequest(f"{name}: cannot read {one_line(os.environ.get(name, ''))!r}: {why}") from None


def installed_version() -> str:
    """The version of the library; 0 where it is not installed but lies on the path."""
    try:
        return metadata.version("llama-herder")
    except metadata.PackageNotFoundError:
        return "0"


def request_of(send: Send, timeout: float) -> dict[str, Any]:
    """The arguments of `client.request`."""
    content = send.content()
    typed = {"Content-Type": "application/json"} if content is not None else {}
    return {
        "method": send.method,
        "url": send.path,
        "params": dict(send.params),
        "content": content,
        "headers": {**typed, **send.headers},
        "timeout": httpx.Timeout(timeout, connect=min(timeout, CONNECT_S_MAX), read=timeout + send.read_s),
    }


def stream_request_of(effect: Open, timeout: float) -> dict[str, Any]:
    """The arguments of `client.build_request` for a stream."""
    return request_of(effect.send, timeout if effect.silence_s is None else min(timeout, effect.silence_s))


def is_stream(response: httpx.Response, kind: str) -> bool:
    """Whether the body is one of this media type; a refusal is not, nor is what something in between answers."""
    found = str(response.headers.get("content-type", "")).partition(";")[0].strip().lower()
    return response.status_code == 200 and found == kind


def lower_case(headers: httpx.Headers) -> dict[str, str]:
    """Headers, by their names in lower case."""
    return {name.lower(): value for name, value in headers.items()}


def reply_of(response: httpx.Response) -> Reply:
    """What came back."""
    return Reply(response.status_code, lower_case(response.headers), response.content)


def broken_of(error: httpx.RequestError) -> Broken:
    """What became of a request without a reply, in few words."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLError):
            return _no_tls(cause)
    sent = not isinstance(error, _NOT_SENT)
    if isinstance(error, httpx.TimeoutException):
        return Broken(sent, "timed out")
    why = one_line(re.sub(r"^\[Errno -?\d+\] ", "", str(error)), 200)
    refused = any(isinstance(cause, ConnectionRefusedError) for cause in causes)
    if refused or why == "All connection attempts failed":  # which asyncio says of more than one address
        why = "connection refused"
    why = why[:1].lower() + why[1:] if why else "the connection broke"
    return Broken(sent, why, refused=not sent and why == "connection refused")


def _causes(error: httpx.RequestError) -> Iterator[BaseException]:
    """Why there is no connection; httpx hides it two exceptions deep."""
    cause: BaseException | None = error if isinstance(error, httpx.ConnectError) else None
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _no_tls(cause: ssl.SSLError) -> Broken:
    """No connection because of TLS. A certificate is the same the next time, so it is not tried again."""
    if not isinstance(cause, ssl.SSLCertVerificationError):
        why = one_line((cause.reason or "it broke off").replace("_", " ").lower(), 200)
        return Broken(False, f"TLS failed: {why}", hint="does the herd speak https there, and not http?")
    hint = "to trust it, set SSL_CERT_FILE to a PEM file with it or with the authority that signed it"
    if cause.verify_code in _WRONG_HOST:
        hint = "it is for another host: use a URL with a name that it has"
    elif cause.verify_code == _EXPIRED:
        hint = "the herd needs a new one"
    said = one_line(cause.verify_message, 200)
    return Broken(False, f"its certificate is not trusted: {said}", True, hint)
