"""The part of the two clients that knows httpx and is the same in both: settings in, outcomes out."""

from __future__ import annotations

import os
import re
from importlib import metadata
from typing import Any
from urllib.parse import urlsplit

import httpx

from llama_herder._core import DEFAULT_URL, Broken, Reply, Send, authorization, base_url, one_line

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


def url_of(url: str | None) -> str:
    """The argument, else HERDER_URL, else a herd on this machine."""
    return base_url(url or os.environ.get("HERDER_URL") or DEFAULT_URL)


def client_settings(url: str, api_key: str | None, timeout: float) -> dict[str, Any]:
    """What both httpx clients are made with; redirects are not followed, so that the key goes nowhere else."""
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
        # A proxy of the environment has no way to this machine's own herd.
        "trust_env": urlsplit(url).hostname not in LOOPBACK,
    }


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


def reply_of(response: httpx.Response) -> Reply:
    """What came back."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Reply(response.status_code, headers, response.content)


def broken_of(error: httpx.RequestError) -> Broken:
    """What became of a request without a reply, in few words."""
    sent = not isinstance(error, _NOT_SENT)
    if isinstance(error, httpx.TimeoutException):
        return Broken(sent, "timed out")
    why = one_line(re.sub(r"^\[Errno -?\d+\] ", "", str(error)), 200)
    if why == "All connection attempts failed":
        why = "connection refused"
    return Broken(sent, why[:1].lower() + why[1:] if why else "the connection broke")
