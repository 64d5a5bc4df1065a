"""Tricks to make a webhook reach where it must not, as a table; and addresses that it must reach, as the control.

With a resolver and a connector that open nothing: no test of the corpus makes a connection at all.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

import httpcore

from herder.addresses import Policy

PUBLIC = "93.184.216.34"
PUBLIC_V6 = "2606:2800:220:1:248:1893:25c8:1946"
ANY_PORT = Policy(ports=None)
LISTED = Policy(
    allow_networks=(ip_network("10.1.0.0/16"), ip_network("fd12::/16"), ip_network("64:ff9b::/96"),
                    ip_network("2002::/16"), ip_network("2001::/32")),
    allow_hosts=frozenset({"hooks.internal", "localhost"}),
    ports=None,
)  # fmt: skip


@dataclass(frozen=True)
class Trick:
    """A URL that must not be reached; `answers` is what its name resolves to, one string of addresses a lookup."""

    url: str
    answers: tuple[str, ...] = ()
    policy: Policy = ANY_PORT

    @property
    def in_the_url(self) -> bool:
        """The URL itself shows it; no name has to be looked up."""
        return not self.answers


@dataclass(frozen=True)
class Control:
    """A URL that must be reached, and the address and port where."""

    url: str
    reached: tuple[str, int]
    answers: tuple[str, ...] = ()
    policy: Policy = ANY_PORT


# Hosts that a system's resolver takes for an address, in every notation there is.
HOSTS: tuple[str, ...] = tuple("""
    0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.100.100.200 100.127.255.255 127.0.0.1 127.0.0.53
    127.255.255.254 168.63.129.16 169.254.0.1 169.254.169.254 169.254.170.2 172.16.0.1 172.31.255.255 192.0.0.1
    192.0.0.192 192.0.2.1 192.88.99.1 192.168.0.1 198.18.0.1 198.19.255.255 198.51.100.7 203.0.113.7 224.0.0.1
    239.255.255.250 240.0.0.1 255.255.255.255
    2130706433 017700000001 0x7f000001 0X7F000001 127.1 127.0.1 0177.0.0.1 0x7f.0.0.1 0x7f.1 0177.0x0.0.1 0
    00000177.0.0.01 2852039166 0xa9fea9fe 0251.0376.0251.0376 169.254.43518 0xA9.254.0xA9.254 10.1 012.1 0xa.1
    3232235521 127.0.0.1. 2130706433. 0x7f.0.0.1. 127.0.0.0x1
""".split())  # fmt: skip

HOSTS_V6: tuple[str, ...] = tuple("""
    :: ::1 0:0:0:0:0:0:0:1 ::0001 ::ffff:127.0.0.1 ::ffff:7f00:1 0:0:0:0:0:ffff:10.0.0.1 ::ffff:169.254.169.254
    ::ffff:8.8.8.8 ::127.0.0.1 ::7f00:1 ::8.8.8.8 ::ffff:0:127.0.0.1 64:ff9b::127.0.0.1 64:ff9b::a9fe:a9fe
    64:ff9b::8.8.8.8 64:ff9b:1::10.0.0.1 64:ff9b:1:ffff::1 2002:7f00:1:: 2002:a9fe:a9fe::1 2002:808:808::1
    2001::1 2001:0:0808:0808::80ff:fffe 2001:2::1 2001:10::1 2001:20::1 2001:db8::1 3fff::1
    2606:4700:0:0:0:5efe:10.0.0.1 2606:4700:0:0:200:5efe:7f00:1 fc00::1 fd00:ec2::254 fd20:ce::254
    fdff:ffff::1 fe80::1 fe80::a9fe:a9fe febf::1 fec0::1 ff01::1 ff02::1 ff0e::1 100::1 5f00::1 4000::1 e000::1
""".split())  # fmt: skip

_WRITTEN: tuple[str, ...] = (
    # Parsers disagree on where the host is.
    f"http://{PUBLIC}@127.0.0.1/", "http://user:pw@hooks.example/", "http://@hooks.example/", "http://:@hooks.example/",
    "http://127.0.0.1@hooks.example/", "http://hooks.example:80@127.0.0.1/", "http://hooks.example#@127.0.0.1/",
    "http://hooks.example/#fragment", "http://hooks.example\\@127.0.0.1/", "http://127.0.0.1\\.hooks.example/",
    "http://hooks.example/\\127.0.0.1/", "http://hooks.example\\127.0.0.1/",
    "http://127.0.0.1\t.hooks.example/", "http://hooks.example /",
    " http://hooks.example/", "http://hooks.example/\r\nHost: localhost", "http://hooks.example/a b",
    "http://hooks.example/\x00", "http://hooks.example/\u2028", "http://127.0.0.1%2f@hooks.example/",
    "http://127.0.0.1%00.hooks.example/", "http://%31%32%37.0.0.1/", "http://%6cocalhost/", "http://127.0.0.1,x/",
    "http://hooks.example;127.0.0.1/", "http://hooks.example&@127.0.0.1/", "http:///127.0.0.1/", "http:/127.0.0.1/",
    "http:127.0.0.1", "//127.0.0.1/", "127.0.0.1/", "http://", "http://./", "http://../", "http://a..b/", "",
    "http://[::1", "http://::1/", "http://[::1].hooks.example/", "http://[127.0.0.1]/", "http://[v1.x]/",
    "http://[fe80::1%25eth0]/", "http://[fe80::1%eth0]/", "http://[2606:4700::1%251]/", "http://[::1]]/",
    # Letters and dots that become others.
    "http://127。0。0。1/", "http://127．0．0．1/", "http://１２７.0.0.1/", "http://①②⑦.⓪.⓪.①/", "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/",
    "http://ｌｏｃａｌｈｏｓｔ/", "http://loc\u00adalhost/", "http://localhost\u3002/", "http://hooks.example\u2024/",
    # Names of this machine.
    "http://localhost/", "http://LOCALHOST/", "http://LocalHost./", "http://a.localhost/", "http://x.y.localhost./",
    "https://localhost:443/",
    # Numbers that are no address to us and may be one to somebody.
    "http://256.256.256.256/", "http://1.2.3.4.5/", "http://08.8.8.8/", "http://999999999999/", "http://1.2.3/",
    "http://0x/", "http://hooks.0x7f/", "http://134744072/",
    # Schemes.
    "file:///etc/passwd", "ftp://hooks.example/", "gopher://127.0.0.1:6379/_FLUSHALL", "unix:///run/redis.sock",
    "http+unix://%2Frun%2Fredis.sock/", "data:text/plain,x", "ws://hooks.example/", "javascript:alert(1)",
    "dict://127.0.0.1:6379/info", "jar:http://hooks.example/!/", "httpx://hooks.example/", "http s://hooks.example/",
    # Ports and sizes.
    "http://hooks.example:0/", "http://hooks.example:65536/", "http://hooks.example:-1/", "http://hooks.example:x/",
    "http://hooks.example:80:80/", "http://hooks.example/" + "a" * 2_048, "http://hooks.example/" + "ü" * 500,
    "http://" + "a" * 64 + ".example/", "http://" + "a." * 130 + "example/",
)  # fmt: skip

_NARROW: tuple[Trick, ...] = tuple(
    Trick(url, policy=Policy())
    for url in (
        "http://hooks.example:22/",
        "http://hooks.example:6379/",
        "https://hooks.example:8443/",
        f"http://{PUBLIC}:25/",
    )
)

_NAMED: tuple[Trick, ...] = (
    *(Trick(f"http://host{n}.example/", (host,)) for n, host in enumerate(HOSTS[:29])),
    *(Trick(f"https://six{n}.example/", (host,)) for n, host in enumerate(HOSTS_V6)),
    Trick("http://127.0.0.1.nip.example/", ("127.0.0.1",)),
    Trick("http://redis/", ("172.18.0.2",)),
    Trick("http://metadata.google.internal/", ("169.254.169.254",)),
    Trick("http://both.example/", (f"{PUBLIC} 10.0.0.1",)),
    Trick("http://both.example/", (f"10.0.0.1 {PUBLIC}",)),
    Trick("http://both.example/", (f"{PUBLIC} {PUBLIC_V6} ::1",)),
    Trick("http://last.example/", (" ".join([*(f"8.8.8.{n}" for n in range(40)), "127.0.0.1"]),)),
    Trick("http://zone.example/", ("fe80::1%eth0",)),
    Trick("http://zone.example/", (f"{PUBLIC_V6}%eth0",)),
    Trick("http://odd.example/", ("2130706433",)),
    Trick("http://odd.example/", ("0x7f.1",)),
    Trick("http://odd.example/", ("localhost",)),
    Trick("http://turned.example/", ("10.0.0.1", PUBLIC)),
    Trick("http://xn--bcher-kva.example/", ("192.168.1.1",)),
)

# What is listed opens what is listed, and nothing beside or behind it.
_LISTED: tuple[Trick, ...] = (
    Trick("http://10.2.0.1/", policy=LISTED),
    Trick("http://10.0.255.255/", policy=LISTED),
    Trick("http://[::ffff:10.1.2.3]/", policy=LISTED),
    Trick("http://[64:ff9b::127.0.0.1]/", policy=LISTED),
    Trick("http://[64:ff9b::a9fe:a9fe]/", policy=LISTED),
    Trick("http://[2002:7f00:1::1]/", policy=LISTED),
    Trick("http://[2001:0:a9fe:a9fe::f7f7:f7f7]/", policy=LISTED),
    Trick("http://[2001:0:808:808::80ff:fffe]/", policy=LISTED),
    Trick("http://other.internal/", ("127.0.0.1",), LISTED),
    Trick("http://sub.hooks.internal/", ("127.0.0.1",), LISTED),
    Trick("http://hooks.internal.evil.example/", ("127.0.0.1",), LISTED),
    Trick("http://both.example/", ("10.1.2.3 10.2.0.1",), LISTED),
)

TRICKS: tuple[Trick, ...] = (
    *(Trick(f"http://{host}/") for host in HOSTS),
    *(Trick(f"https://[{host}]:8443/") for host in HOSTS_V6),
    *(Trick(url) for url in _WRITTEN),
    *_NARROW,
    *_NAMED,
    *_LISTED,
)

CONTROLS: tuple[Control, ...] = (
    Control("http://8.8.8.8/", ("8.8.8.8", 80)),
    Control("https://8.8.8.8:8443/a?b=c", ("8.8.8.8", 8443)),
    Control("http://9.255.255.255/", ("9.255.255.255", 80)),
    Control("http://11.0.0.0/", ("11.0.0.0", 80)),
    Control("http://100.63.255.255/", ("100.63.255.255", 80)),
    Control("http://100.128.0.0/", ("100.128.0.0", 80)),
    Control("http://126.255.255.255/", ("126.255.255.255", 80)),
    Control("http://172.15.255.255/", ("172.15.255.255", 80)),
    Control("http://172.32.0.0/", ("172.32.0.0", 80)),
    Control("http://192.0.1.1/", ("192.0.1.1", 80)),
    Control("http://192.169.0.1/", ("192.169.0.1", 80)),
    Control("http://198.17.255.255/", ("198.17.255.255", 80)),
    Control("http://198.20.0.1/", ("198.20.0.1", 80)),
    Control("http://223.255.255.255/", ("223.255.255.255", 80)),
    Control("https://[2606:4700::1111]/", ("2606:4700::1111", 443)),
    Control("https://[2001:4860:4860:0:0:0:0:8888]/", ("2001:4860:4860::8888", 443)),
    Control("http://hooks.example/", (PUBLIC, 80), (PUBLIC,)),
    Control("HTTPS://Hooks.Example.:443/x", (PUBLIC, 443), (PUBLIC,)),
    Control("http://hooks.example/@127.0.0.1?u=http://127.0.0.1/", (PUBLIC, 80), (PUBLIC,)),
    Control("http://hooks.example", (PUBLIC_V6, 80), (f"{PUBLIC_V6} {PUBLIC}",)),
    Control("http://bücher.example/ü", (PUBLIC, 80), (PUBLIC,)),
    Control("http://a_b.example:8080/", (PUBLIC, 8080), (PUBLIC,)),
    Control("http://127.0.0.1.example/", (PUBLIC, 80), (PUBLIC,)),
    Control("http://notlocalhost/", (PUBLIC, 80), (PUBLIC,)),
    # A name that turns after it was checked: what was checked is what is reached.
    Control("http://turns.example/", (PUBLIC, 80), (PUBLIC, "127.0.0.1", "169.254.169.254")),
    Control("http://10.1.2.3/", ("10.1.2.3", 80), policy=LISTED),
    Control("http://inside.example/", ("10.1.255.255", 80), ("10.1.255.255 8.8.8.8",), LISTED),
    Control("http://[fd12::1]/", ("fd12::1", 80), policy=LISTED),
    Control("http://[64:ff9b::8.8.8.8]/", ("64:ff9b::808:808", 80), policy=LISTED),
    Control("http://[2002:808:808::1]/", ("2002:808:808::1", 80), policy=LISTED),
    Control("http://hooks.internal/", ("127.0.0.1", 80), ("127.0.0.1 169.254.1.1",), LISTED),
    Control("http://localhost:8000/", ("::1", 8000), ("::1 127.0.0.1",), LISTED),
)


@dataclass
class Names:
    """A resolver: each lookup takes the next of `answers`, the last one for good; without any, as libc reads it."""

    answers: tuple[str, ...] = ()
    asked: list[tuple[str, int]] = field(default_factory=list)

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append((host, port))
        if self.answers:
            return self.answers[min(len(self.asked), len(self.answers)) - 1].split()
        try:
            return [socket.inet_ntoa(socket.inet_aton(host.removesuffix(".")))]
        except OSError:
            return [PUBLIC]


@dataclass
class Connector(httpcore.AsyncNetworkBackend):
    """Notes each attempt and opens nothing: whatever is reached says `reply`, whatever is in `down` refuses."""

    reply: bytes = b"HTTP/1.1 204 No Content\r\n\r\n"
    down: Iterable[str] = ()
    attempts: list[tuple[str, int]] = field(default_factory=list)
    waits_s: list[float | None] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        self.attempts.append((str(ip_address(host)), port))  # a name here would be resolved again
        self.waits_s.append(timeout)
        if host in self.down:
            raise httpcore.ConnectError("down")
        return Stream([self.reply], self.sent)


class Stream(httpcore.AsyncMockStream):
    """A stream of httpcore's own for tests that also keeps what is written."""

    def __init__(self, reply: list[bytes], sent: list[bytes]) -> None:
        super().__init__(reply)
        self._sent = sent

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._sent.append(buffer)
