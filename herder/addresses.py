"""Which addresses webhooks may be sent to: pure rules over URLs and IP addresses.

Knows neither DNS nor sockets: `herder/egress.py` asks it about each address that it is about to connect to. A network
that translates IPv4 under a prefix of its own, and not under a well-known one, cannot be told from any other here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import httpx

from herder.errors import InvalidRequest, SetupError
from herder.settings import Settings

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

URL_CHARS_MAX = 2_048
HOST_CHARS_MAX = 253
PORT_OF = {"http": 80, "https": 443}
ALLOW = "HERDER_WEBHOOK_ALLOW"
PORTS = "HERDER_WEBHOOK_PORTS"

_NAME = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
# Resolvers take any of these for an IPv4 address: 127.1, 2130706433, 0x7f.1, 0177.0.0.1.
_NUMERIC = re.compile(r"(.*\.)?(0x[0-9a-f]*|[0-9]+)")

# The first network that has an address names it. Written out, since what `ipaddress` calls global differs from one
# Python to the next, and lets multicast through.
_FORBIDDEN: tuple[tuple[Network, str], ...] = tuple((ip_network(network), reason) for network, reason in (
    ("169.254.169.254/32", "a cloud's metadata address"),
    ("169.254.170.2/32", "a cloud's metadata address"),
    ("100.100.100.200/32", "a cloud's metadata address"),
    ("168.63.129.16/32", "a cloud's metadata address"),
    ("192.0.0.192/32", "a cloud's metadata address"),
    ("0.0.0.0/8", "unspecified"),
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "shared behind a carrier's NAT"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local"),
    ("172.16.0.0/12", "private"),
    ("192.0.0.0/24", "reserved"),
    ("192.0.2.0/24", "for documentation"),
    ("192.88.99.0/24", "a 6to4 relay"),
    ("192.168.0.0/16", "private"),
    ("198.18.0.0/15", "for benchmarks"),
    ("198.51.100.0/24", "for documentation"),
    ("203.0.113.0/24", "for documentation"),
    ("224.0.0.0/4", "multicast"),
    ("255.255.255.255/32", "broadcast"),
    ("240.0.0.0/4", "reserved"),
    ("fd00:ec2::/32", "a cloud's metadata address"),
    ("fd20:ce::254/128", "a cloud's metadata address"),
    ("::/128", "unspecified"),
    ("::1/128", "loopback"),
    ("2001:db8::/32", "for documentation"),
    ("3fff::/20", "for documentation"),
    ("2001:2::/48", "for benchmarks"),
    ("2001::/23", "reserved"),
    ("fc00::/7", "private"),
    ("fe80::/10", "link-local"),
    ("fec0::/10", "site-local"),
    ("ff00::/8", "multicast"),
))  # fmt: skip
_UNICAST = IPv6Network("2000::/3")

# IPv6 addresses that a translator or a tunnel turns into IPv4: how far right the IPv4 address is to be shifted.
_CARRIERS: tuple[tuple[IPv6Network, str, tuple[int, ...]], ...] = (
    (IPv6Network("::ffff:0:0/96"), "an IPv4-mapped address", (0,)),
    (IPv6Network("::ffff:0:0:0/96"), "an IPv4-translated address", (0,)),
    (IPv6Network("::/96"), "an IPv4-compatible address", (0,)),
    (IPv6Network("64:ff9b::/96"), "a NAT64-mapped address", (0,)),
    # A site's own translator may be anywhere in here; it is read as the /96 that nearly all are.
    (IPv6Network("64:ff9b:1::/48"), "a NAT64-mapped address", (0,)),
    (IPv6Network("2002::/16"), "a 6to4 address", (80,)),
    (IPv6Network("2001::/32"), "a Teredo address", (0, 64)),
)
_TEREDO = IPv6Network("2001::/32")
_NOT_CARRIERS = frozenset({IPv6Address("::"), IPv6Address("::1")})
_IPV4_MASK = 0xFFFF_FFFF


@dataclass(frozen=True)
class Policy:
    """What the operator allows beside the public internet; `ports` None is any port."""

    allow_networks: tuple[Network, ...] = ()
    allow_hosts: frozenset[str] = frozenset()
    ports: frozenset[int] | None = frozenset({80, 443})

    @classmethod
    def of(cls, settings: Settings) -> Policy:
        """The policy of the settings. Raises SetupError for an entry that is no network, address, host or port."""
        networks: list[Network] = []
        hosts: set[str] = set()
        for entry in settings.webhook_allow:
            network = _network(entry)
            if network is not None:
                networks.append(network)
            else:
                hosts.add(_allowed_host(entry))
        ports = None if "*" in settings.webhook_ports else frozenset(map(_port, settings.webhook_ports))
        return cls(tuple(networks), frozenset(hosts), ports)


def forbidden(address: Address, policy: Policy) -> str | None:
    """Why an address must not be reached, to be read after "it is"; None where it may be.

    An address that carries an IPv4 address is refused for that alone; where its network is listed, the IPv4 address
    has to pass as well, so that listing a NAT64 prefix does not open the loopback behind it.
    """
    listed = any(address in network for network in policy.allow_networks)
    carrier = _carrier(address) if isinstance(address, IPv6Address) else None
    if carrier is not None:
        kind, carried = carrier
        if not listed:
            return kind
        inner = ((ipv4, forbidden(ipv4, policy)) for ipv4 in carried)
        return next((f"{kind} of {ipv4}, which is {reason}" for ipv4, reason in inner if reason), None)
    if listed:
        return None
    for network, reason in _FORBIDDEN:
        if address in network:
            return reason
    if isinstance(address, IPv6Address) and address not in _UNICAST:
        return "not globally routable"
    return None


def _carrier(address: IPv6Address) -> tuple[str, list[IPv4Address]] | None:
    """What kind of carrier an address is, and the IPv4 addresses in it."""
    bits = int(address)
    if address in _NOT_CARRIERS:
        return None
    for network, kind, shifts in _CARRIERS:
        if address in network:
            # Teredo writes its client inverted.
            bits ^= _IPV4_MASK if network == _TEREDO else 0
            return kind, [IPv4Address(bits >> shift & _IPV4_MASK) for shift in shifts]
    # ISATAP is in the lower half, whatever the prefix: 0000:5efe or 0200:5efe, then the IPv4 address.
    if bits >> 32 & 0xFCFF_FFFF == 0x5EFE:
        return "an ISATAP address", [IPv4Address(bits & _IPV4_MASK)]
    return None


def checked_url(url: str, policy: Policy) -> str:
    """The URL as it will be sent: ASCII, scheme and host in lower case, no default port, a path of at least `/`.

    Looks nothing up. Raises InvalidRequest for what can never be delivered: not http(s), no host, userinfo, a
    fragment (no receiver ever sees it), a port or an address that is not allowed, an address in an unusual notation,
    `localhost`, characters that parsers disagree about, more than URL_CHARS_MAX characters.
    """
    if len(url) > URL_CHARS_MAX:
        raise _refused(f"longer than {URL_CHARS_MAX} characters")
    if any(not char.isprintable() or char.isspace() or char == "\\" for char in url):
        raise _refused("a space, a backslash or a control character stands in it; write it as %XX")
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        raise _refused("not a URL; write it as https://host/path") from None
    if parsed.scheme not in PORT_OF:
        raise _refused("must start with https:// or http://")
    if "@" in re.split("[/?#]", url.partition("://")[2], maxsplit=1)[0]:
        raise _refused("a user or password stands in it; let the receiver check the signature instead")
    if "#" in url:
        raise _refused("a fragment (#...) is never sent; leave it out")
    host = _checked_host(parsed.raw_host.decode("ascii"), policy)
    port = parsed.port
    if port is None:
        port = PORT_OF[parsed.scheme]
    _check_port(port, policy)
    netloc = host if port == PORT_OF[parsed.scheme] else f"{host}:{port}"
    whole = f"{parsed.scheme}://{netloc}{parsed.raw_path.decode('ascii')}"
    if len(whole) > URL_CHARS_MAX:
        raise _refused(f"longer than {URL_CHARS_MAX} characters once it is encoded")
    return whole


def endpoint_of(url: str) -> str:
    """A checked URL without its query: scheme, host, port and path."""
    return url.partition("?")[0]


def host_of(url: str) -> str:
    """The `host:port` of a checked URL, the port always with it."""
    parsed = httpx.URL(url)
    host = parsed.raw_host.decode("ascii")
    return f"{f'[{host}]' if ':' in host else host}:{parsed.port or PORT_OF[parsed.scheme]}"


def _checked_host(host: str, policy: Policy) -> str:
    """A host as it stands in a URL, its trailing dot gone. What is no plain name or address is refused."""
    host = host.removesuffix(".")
    if ":" in host or _NUMERIC.fullmatch(host):
        try:
            address = ip_address(host)
        except ValueError:
            raise _refused("its host is an address in an unusual notation; write 8.8.8.8 or a name") from None
        if "%" in host:
            raise _refused("an address with a zone (%) is one of this machine's own network")
        reason = forbidden(address, policy)
        if reason is not None:
            raise _refused(why_not(str(address), reason))
        return f"[{address}]" if isinstance(address, IPv6Address) else str(address)
    if not host:
        raise _refused("it has no host; write it as https://host/path")
    if len(host) > HOST_CHARS_MAX or not _NAME.fullmatch(host):
        raise _refused("its host is not a host name")
    if (host == "localhost" or host.endswith(".localhost")) and host not in policy.allow_hosts:
        raise _refused(why_not(host, "loopback"))
    return host


def _check_port(port: int, policy: Policy) -> None:
    if not 1 <= port <= 65_535:
        raise _refused("its port is not between 1 and 65535")
    if policy.ports is not None and port not in policy.ports:
        raise _refused(f"port {port} is not one that webhooks may go to; the operator can add it to {PORTS}")


def why_not(what: str, reason: str) -> str:
    """One line that says why `what` is not reached, and who can change that."""
    return f"{what} is {reason}; the operator can allow it with {ALLOW}"


def _refused(message: str) -> InvalidRequest:
    return InvalidRequest(f"webhook_url: {message}", errors=[{"field": "webhook_url", "message": message}])


def _network(entry: str) -> Network | None:
    """An entry of the allow-list as a network; None where it is none."""
    try:
        return ip_network(entry) if "%" not in entry else None
    except ValueError:
        return None


def _allowed_host(entry: str) -> str:
    """An entry of the allow-list as a host name, written as `checked_url` writes it."""
    try:
        host = httpx.URL(f"http://{entry}/").raw_host.decode("ascii").removesuffix(".")
        plain = not re.search(r"[/:@?#\[\]]", entry)
    except (httpx.InvalidURL, ValueError):
        host, plain = "", False
    if not plain or len(host) > HOST_CHARS_MAX or not _NAME.fullmatch(host) or _NUMERIC.fullmatch(host):
        raise SetupError(
            f"{ALLOW}: {entry!r} is neither a network (10.1.0.0/16, its host bits zero), nor an address (10.1.2.3),"
            " nor a host name (hooks.internal)"
        )
    return host


def _port(entry: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", entry) or not 1 <= int(entry) <= 65_535:
        raise SetupError(f"{PORTS}: {entry!r} is not a port (1 to 65535); * stands for any")
    return int(entry)
