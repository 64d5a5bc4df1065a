"""Addresses to listen on: is a port free, which one is, and how one connects to it from here."""

from __future__ import annotations

import socket

from herder.errors import SetupError

_REACHABLE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (an address to connect to, not to bind)


def reachable(host: str) -> str:
    """The host of a URL under which this machine reaches what listens on `host`."""
    host = _REACHABLE.get(host, host)
    return f"[{host}]" if ":" in host else host


def free_port(host: str) -> int:
    """A port that nobody listens on just now. Raises SetupError for a host that is not this machine's."""
    with _probe(host) as probe:
        _bind(probe, host, 0)
        return int(probe.getsockname()[1])


def check_port(host: str, port: int) -> None:
    """Raises SetupError when somebody listens there already."""
    with _probe(host) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _bind(probe, host, port)


def _probe(host: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)


def _bind(probe: socket.socket, host: str, port: int) -> None:
    try:
        probe.bind((host, port))
    except OSError as error:
        raise SetupError(
            f"cannot listen on {host}:{port} ({error.strerror}): choose another with --port or --host"
        ) from error
