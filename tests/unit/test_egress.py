"""The SSRF corpus against the whole way out, and the rules of addresses and URLs one by one. Opens no connection."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herder.addresses import Policy, checked_url, forbidden
from herder.egress import TRIES_MAX, Answer, Egress, GuardedBackend, Refused
from herder.errors import InvalidRequest
from tests.unit.egress_tricks import (
    ANY_PORT,
    CONTROLS,
    HOSTS,
    HOSTS_V6,
    PUBLIC,
    TRICKS,
    Connector,
    Control,
    Names,
    Trick,
)

FORBIDDEN_V4 = [ip_network(network) for network in (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "168.63.129.16/32", "169.254.0.0/16", "172.16.0.0/12",
    "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
    "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
)]  # fmt: skip


async def sent(url: str, policy: Policy, names: Names, connector: Connector) -> Answer:
    async with Egress(policy, resolve=names, connector=connector) as egress:
        return await egress.post(url, b"{}", {"Content-Type": "application/json"}, 5)


# ------------------------------------------------------------------------------------------------ the corpus


def test_the_corpus_is_as_large_as_it_says() -> None:
    assert len(set(TRICKS)) == len(TRICKS) >= 60
    assert len(set(CONTROLS)) == len(CONTROLS) >= 15
    assert {trick.in_the_url for trick in TRICKS} == {True, False}


@pytest.mark.parametrize("trick", TRICKS, ids=lambda trick: ascii(trick.url)[:40])
async def test_a_trick_reaches_nothing(trick: Trick) -> None:
    names, connector = Names(trick.answers), Connector()
    answer = await sent(trick.url, trick.policy, names, connector)
    assert connector.attempts == []
    assert answer.refused
    assert answer.status is None
    assert answer.error
    assert answer.error.isprintable()
    assert names.asked == [] if trick.in_the_url else len(names.asked) == 1


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: ascii(control.url)[:40])
async def test_what_is_allowed_is_reached(control: Control) -> None:
    connector = Connector()
    answer = await sent(control.url, control.policy, Names(control.answers), connector)
    assert answer == Answer(204)
    assert connector.attempts == [control.reached]


@pytest.mark.parametrize(
    "trick", [t for t in TRICKS if t.in_the_url], ids=lambda trick: ascii(trick.url)[:40]
)
def test_what_the_url_shows_is_refused_when_it_is_submitted(trick: Trick) -> None:
    with pytest.raises(InvalidRequest) as refused:
        checked_url(trick.url, trick.policy)
    (fault,) = refused.value.extra["errors"]
    assert fault["field"] == "webhook_url"
    assert refused.value.detail == f"webhook_url: {fault['message']}"


@pytest.mark.parametrize("host", [*HOSTS, *HOSTS_V6])
async def test_the_second_line_holds_without_the_first(host: str) -> None:
    """Were an odd notation to pass the URL's check, what the resolver makes of it would still be refused."""
    connector = Connector()
    with pytest.raises(Refused):
        await GuardedBackend(ANY_PORT, Names(), connector).connect_tcp(host, 80)
    assert connector.attempts == []


# ------------------------------------------------------------------------------------------------- connecting


async def test_a_name_that_turns_is_asked_once_a_connection_and_only_the_checked_address_is_reached() -> None:
    names, connector = Names((PUBLIC, "127.0.0.1")), Connector()
    assert (await sent("http://turns.example/", ANY_PORT, names, connector)).status == 204
    assert names.asked == [("turns.example", 80)]
    assert connector.attempts == [(PUBLIC, 80)]
    again = await sent("http://turns.example/", ANY_PORT, names, connector)
    assert again.refused
    assert len(names.asked) == 2
    assert connector.attempts == [(PUBLIC, 80)]


async def test_a_name_that_turns_between_submission_and_delivery_is_refused() -> None:
    url = checked_url("https://later.example/hook", Policy())
    answer = await sent(url, Policy(), Names(("10.9.8.7",)), Connector())
    assert answer.refused
    assert answer.error == (
        "an address of later.example is private; the operator can allow it with HERDER_WEBHOOK_ALLOW"
    )


async def test_a_stored_url_is_checked_against_the_policy_of_now() -> None:
    url = checked_url("http://hooks.example:8080/", ANY_PORT)
    answer = await sent(url, Policy(), Names((PUBLIC,)), Connector())
    assert answer.refused
    assert "port 8080" in str(answer.error)


async def test_the_next_checked_address_is_tried_and_the_name_is_not_asked_again() -> None:
    names = Names(("8.8.8.1 8.8.8.2 8.8.8.2 2606:4700::1", "127.0.0.1"))
    connector = Connector(down={"8.8.8.1", "8.8.8.2"})
    assert (await sent("http://many.example/", ANY_PORT, names, connector)).status == 204
    assert [host for host, _ in connector.attempts] == ["8.8.8.1", "8.8.8.2", "2606:4700::1"]
    assert len(names.asked) == 1


async def test_the_tries_are_few_and_share_the_time() -> None:
    addresses = [f"8.8.8.{n}" for n in range(20)]
    connector = Connector(down=addresses)
    answer = await sent("http://many.example/", ANY_PORT, Names((" ".join(addresses),)), connector)
    assert answer == Answer(None, error="the connection broke")
    assert [host for host, _ in connector.attempts] == addresses[:TRIES_MAX]
    assert sum(wait_s or 99 for wait_s in connector.waits_s) <= 5


@pytest.mark.parametrize("place", ["http://169.254.169.254/latest", "http://127.0.0.1/", "//10.0.0.1/", "/x"])
async def test_a_redirect_is_a_status_and_not_followed(place: str) -> None:
    connector = Connector(b"HTTP/1.1 307 Temporary Redirect\r\nLocation: %s\r\n\r\n" % place.encode())
    assert await sent("http://hooks.example/", ANY_PORT, Names((PUBLIC,)), connector) == Answer(307)
    assert connector.attempts == [(PUBLIC, 80)]


async def test_a_unix_socket_is_refused() -> None:
    with pytest.raises(Refused):
        await GuardedBackend(ANY_PORT, Names(), Connector()).connect_unix_socket("redis.sock")


async def test_a_name_without_an_address_is_an_error_and_no_refusal() -> None:
    async def nothing(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_AGAIN, "no")

    for resolve in (nothing, Names((" ",))):
        async with Egress(ANY_PORT, resolve=resolve, connector=Connector()) as egress:
            answer = await egress.post("http://gone.example/", b"", {}, 5)
        assert answer == Answer(None, error="the name cannot be resolved")


async def test_what_is_sent() -> None:
    connector = Connector()
    async with Egress(ANY_PORT, resolve=Names((PUBLIC,)), connector=connector) as egress:
        headers = {"webhook-id": "d1", "Host": "evil.example", "content-length": "9", "User-Agent": "x"}
        await egress.post("http://Hooks.Example:8080/a/../b?q=1", b'{"a":1}', headers, 5)
    head, _, body = b"".join(connector.sent).partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[0] == b"POST /b?q=1 HTTP/1.1"
    assert sorted(head.lower().split(b"\r\n")[1:]) == [
        b"connection: close",
        b"content-length: 7",
        b"host: hooks.example:8080",
        b"user-agent: llama-herder",
        b"webhook-id: d1",
    ]
    assert body == b'{"a":1}'


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\x00", "ü"])
async def test_a_header_cannot_smuggle_another(value: str) -> None:
    connector = Connector()
    async with Egress(ANY_PORT, resolve=Names((PUBLIC,)), connector=connector) as egress:
        answer = await egress.post("http://hooks.example/", b"", {"x": value}, 5)
    assert answer == Answer(None, error="a header cannot be sent")
    assert connector.sent == []


# ------------------------------------------------------------------------------------------ addresses, by range


def _v4(network: object) -> st.SearchStrategy[IPv4Address]:
    first, last = int(network[0]), int(network[-1])  # type: ignore[index]
    return st.integers(first, last).map(IPv4Address) | st.sampled_from(
        [IPv4Address(first), IPv4Address(last)]
    )


forbidden_v4 = st.sampled_from(FORBIDDEN_V4).flatmap(_v4)


def notations(address: IPv4Address) -> list[str]:
    """Every way in which C's inet_aton reads an address, and the dots of other scripts."""
    bits = int(address)
    parts = str(address).split(".")
    numbers = [int(part) for part in parts]
    return [
        str(address), f"{address}.", str(bits), hex(bits), hex(bits).upper(), oct(bits).replace("0o", "0"),
        ".".join(f"0{n:o}" for n in numbers), ".".join(hex(n) for n in numbers),
        f"{parts[0]}.{bits & 0xFF_FFFF}", f"{parts[0]}.{parts[1]}.{bits & 0xFFFF}",
        f"{parts[0]}.0x{bits & 0xFF_FFFF:x}", str(address).replace(".", "。"), str(address).replace(".", "．"),
        ".".join(f"%{ord(digit):x}" if digit != "." else "." for digit in str(address)).replace("...", "."),
    ]  # fmt: skip


def embedded(address: IPv4Address) -> list[IPv6Address]:
    """The IPv6 addresses that carry an IPv4 address."""
    bits, public = int(address), int(IPv4Address("8.8.8.8"))
    teredo = 0x20010000 << 96
    return [
        *(
            IPv6Address(int(IPv6Address(prefix)) | bits)
            for prefix in (
                "::", "::ffff:0:0", "::ffff:0:0:0", "64:ff9b::", "64:ff9b:1::", "2606:4700::5efe:0:0",
                "2606:4700::200:5efe:0:0",
            )
        ),
        IPv6Address((0x2002 << 112) | (bits << 80) | public),
        IPv6Address(teredo | (public << 64) | (bits ^ 0xFFFF_FFFF)),
        IPv6Address(teredo | (bits << 64) | (public ^ 0xFFFF_FFFF)),
    ]  # fmt: skip


@given(forbidden_v4)
def test_a_forbidden_ipv4_address_is_refused_in_every_notation(address: IPv4Address) -> None:
    assert forbidden(address, ANY_PORT)
    for host in notations(address):
        with pytest.raises(InvalidRequest):
            checked_url(f"http://{host}/", ANY_PORT)
    for carrier in embedded(address):
        assert forbidden(carrier, ANY_PORT)
        with pytest.raises(InvalidRequest):
            checked_url(f"http://[{carrier}]/", ANY_PORT)


@given(forbidden_v4)
def test_listing_a_carrier_does_not_open_what_it_carries(address: IPv4Address) -> None:
    policy = Policy(allow_networks=(IPv6Network("::/0"),))
    assert all(forbidden(carrier, policy) for carrier in embedded(address) if int(carrier) > 1)


@given(st.ip_addresses())
def test_the_table_lets_nothing_through_that_python_calls_special(address: IPv4Address | IPv6Address) -> None:
    if forbidden(address, ANY_PORT) is None:
        assert address.is_global
        assert not address.is_multicast


@given(st.ip_addresses(v=4))
def test_the_table_forbids_no_public_ipv4_address(address: IPv4Address | IPv6Address) -> None:
    if not any(address in network for network in FORBIDDEN_V4):
        assert forbidden(address, ANY_PORT) is None


@pytest.mark.parametrize("network", FORBIDDEN_V4, ids=str)
def test_a_range_ends_where_it_ends(network: object) -> None:
    first, last = int(network[0]), int(network[-1])  # type: ignore[index]
    assert forbidden(IPv4Address(first), ANY_PORT)
    assert forbidden(IPv4Address(last), ANY_PORT)
    for outside in (first - 1, last + 1):
        if 0 <= outside < 2**32 and not any(IPv4Address(outside) in other for other in FORBIDDEN_V4):
            assert forbidden(IPv4Address(outside), ANY_PORT) is None


@pytest.mark.parametrize(
    ("addresses", "reason"),
    [
        (
            "169.254.169.254 169.254.170.2 100.100.100.200 168.63.129.16 192.0.0.192 fd00:ec2::254 fd20:ce::254",
            "a cloud's metadata address",
        ),
        ("10.0.0.1 172.31.0.1 192.168.0.1 fc00::1 fd12::1", "private"),
        ("127.0.0.1 ::1", "loopback"),
        ("0.0.0.0 ::", "unspecified"),
        ("255.255.255.255", "broadcast"),
        ("169.254.0.1 fe80::1", "link-local"),
        ("224.0.0.1 ff02::1", "multicast"),
        ("198.18.0.1 2001:2::1", "for benchmarks"),
        ("fec0::1", "site-local"),
        ("4000::1", "not globally routable"),
        ("::ffff:10.0.0.1", "an IPv4-mapped address"),
        ("64:ff9b::1", "a NAT64-mapped address"),
        ("8.8.8.8 2606:4700::1111", None),
    ],
)
def test_reasons_are_words(addresses: str, reason: str | None) -> None:
    found = {address: forbidden(ip_address(address), ANY_PORT) for address in addresses.split()}
    assert found == dict.fromkeys(addresses.split(), reason)
