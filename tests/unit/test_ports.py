"""Free ports, taken ports, hosts that are not ours."""

from __future__ import annotations

import socket

import pytest

from herder.errors import SetupError
from herder.ports import check_port, free_port, reachable


def test_a_free_port_is_free_and_a_taken_one_is_not() -> None:
    port = free_port("127.0.0.1")
    check_port("127.0.0.1", port)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        with pytest.raises(SetupError, match=rf"127\.0\.0\.1:{port}.*--port"):
            check_port("127.0.0.1", port)


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
def test_a_host_that_is_not_this_machine(host: str) -> None:
    with pytest.raises(SetupError, match=host):
        free_port(host)


@pytest.mark.parametrize(
    ("host", "shown"),
    [("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("::1", "[::1]"), ("herd.example", "herd.example")],
)
def test_what_to_connect_to(host: str, shown: str) -> None:
    assert reachable(host) == shown
