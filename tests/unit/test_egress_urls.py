"""Webhook URLs as they are kept, the settings that loosen the rules, and Retry-After. Opens no connection."""

from __future__ import annotations

import time
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from herder.addresses import URL_CHARS_MAX, Policy, checked_url, endpoint_of, host_of
from herder.egress import retry_after_s
from herder.errors import InvalidRequest, SetupError
from herder.settings import Settings
from tests.unit.egress_tricks import ANY_PORT, CONTROLS, TRICKS

NOW_S = 1_800_000_000.0  # Fri, 15 Jan 2027 08:00:00 GMT


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("HTTP://Hooks.Example", "http://hooks.example/"),
        ("https://hooks.example.:443/A/../b?C=D&e", "https://hooks.example/b?C=D&e"),
        ("http://hooks.example:443/", "http://hooks.example:443/"),
        ("https://hooks.example:/", "https://hooks.example/"),
        ("https://hooks.example?", "https://hooks.example/?"),
        ("https://Bücher.example/ü?q=ü", "https://xn--bcher-kva.example/%C3%BC?q=%C3%BC"),
        ("https://[2606:4700:0:0::1111]:8443/", "https://[2606:4700::1111]:8443/"),
        ("http://8.8.8.8./", "http://8.8.8.8/"),
        ("https://hooks.example//a//", "https://hooks.example//a//"),
        ("https://hooks.example/..", "https://hooks.example/"),
    ],
)
def test_a_url_is_kept_in_one_form(url: str, kept: str) -> None:
    assert checked_url(url, ANY_PORT) == kept


def test_the_length_counts_once_it_is_encoded() -> None:
    start = "https://hooks.example/"
    assert checked_url(start + "a" * (URL_CHARS_MAX - len(start)), ANY_PORT)
    for path in ("a" * (URL_CHARS_MAX - len(start) + 1), "ü" * 400):
        with pytest.raises(InvalidRequest, match="longer than 2048"):
            checked_url(start + path, ANY_PORT)


_CHARS = "htps:/@#?[]%.\\ 0127xaé。-_\t\x00\u200bZ&;,+~'\""
anything = st.text(st.sampled_from(_CHARS), max_size=40) | st.text(max_size=40)


@given(
    st.builds("{}{}".format, st.sampled_from(["", "http://", "https://", "http://hooks.example"]), anything)
)
@example("http://hooks.example:8_0/")
@example("http://[2606:4700::1]80/")
@example("http://a%zz.example/")
def test_what_is_kept_reads_the_same_to_everybody(url: str) -> None:
    """Whatever is let through is plain ASCII, its own normal form, and one host to two parsers."""
    try:
        kept = checked_url(url, ANY_PORT)
    except InvalidRequest:
        return
    assert kept.isascii()
    assert kept.isprintable()
    assert checked_url(kept, ANY_PORT) == kept
    ours, theirs = httpx.URL(kept), urlsplit(kept)
    assert ours.raw_host.decode() == theirs.hostname
    assert ours.port == theirs.port
    assert ours.raw_path.decode().partition("?")[0] == theirs.path
    assert theirs.username is None
    assert not theirs.fragment


@pytest.mark.parametrize("url", [row.url for row in CONTROLS] + ["http://hooks.example/%41?%"])
def test_what_may_be_reached_is_its_own_normal_form(url: str) -> None:
    policy = next((row.policy for row in CONTROLS if row.url == url), ANY_PORT)
    kept = checked_url(url, policy)
    assert checked_url(kept, policy) == kept
    assert len(endpoint_of(kept)) <= len(kept)


def test_two_urls_that_differ_in_the_query_are_one_endpoint() -> None:
    kept = [
        checked_url(f"https://Hooks.example:8443/a{query}", ANY_PORT)
        for query in ("", "?", "?a=1", "?b=//x?")
    ]
    assert {endpoint_of(url) for url in kept} == {"https://hooks.example:8443/a"}
    assert endpoint_of("https://hooks.example/b") != endpoint_of("https://hooks.example/a")


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://hooks.example/", "hooks.example:443"),
        ("http://hooks.example/", "hooks.example:80"),
        ("http://hooks.example:8080/?a", "hooks.example:8080"),
        ("https://[2606:4700::1111]/", "[2606:4700::1111]:443"),
    ],
)
def test_the_host_always_has_its_port(url: str, host: str) -> None:
    assert host_of(url) == host


# ------------------------------------------------------------------------------------------------- settings


def policy_of(allow: str = "", ports: str = "80,443") -> Policy:
    """The policy of two settings as they stand in the environment."""
    fields = {
        "webhook_allow": tuple(filter(None, allow.split(","))),
        "webhook_ports": tuple(ports.split(",")),
    }
    return Policy.of(Settings.model_construct(**fields))  # type: ignore[arg-type]


def test_the_settings_as_a_policy() -> None:
    policy = policy_of("10.1.0.0/16,192.168.7.7,fd00::/8,Hooks.Internal.,bücher.example,localhost", "80,8443")
    assert [str(network) for network in policy.allow_networks] == [
        "10.1.0.0/16",
        "192.168.7.7/32",
        "fd00::/8",
    ]
    assert policy.allow_hosts == {"hooks.internal", "xn--bcher-kva.example", "localhost"}
    assert policy.ports == frozenset({80, 8443})
    assert policy_of().allow_networks == ()
    assert policy_of(ports="80,*").ports is None
    assert checked_url("http://192.168.7.7/", policy)
    with pytest.raises(
        InvalidRequest, match=r"192\.168\.7\.8 is private; the operator can allow it with HERDER_"
    ):
        checked_url("http://192.168.7.8/", policy)


@pytest.mark.parametrize(
    "entry",
    ["10.1.2.3/8", "127.1", "2130706433", "0x7f.1", "*.internal", "http://hooks.internal", "hooks.internal:80", "a b",
     "user@hooks", "10.0.0.0/33", "fe80::1%eth0", "[::1]", "a..b", "hooks.internal/x", "#", "a\\b"],
)  # fmt: skip
def test_an_entry_that_is_nothing_stops_the_start(entry: str) -> None:
    with pytest.raises(SetupError, match=r"HERDER_WEBHOOK_ALLOW: .* is neither a network"):
        policy_of(entry)


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1", "8 0", "٨٠", "1e3", "123456"])
def test_a_port_that_is_none_stops_the_start(port: str) -> None:
    with pytest.raises(SetupError, match=r"HERDER_WEBHOOK_PORTS: .* is not a port"):
        policy_of(ports=port)


def test_the_default_settings_open_nothing_of_the_corpus() -> None:
    policy = Policy.of(Settings.model_construct())
    assert policy == Policy()
    for trick in TRICKS:
        if trick.in_the_url:
            with pytest.raises(InvalidRequest):
                checked_url(trick.url, policy)


# ---------------------------------------------------------------------------------------------- Retry-After


@pytest.mark.parametrize(
    ("text", "wait_s"),
    [
        ("0", 0),
        (" 120 ", 120),
        ("86400", 86_400),
        ("86401", 86_400),
        ("9" * 5_000, 86_400),
        ("Fri, 15 Jan 2027 08:01:00 GMT", 60),
        ("Friday, 15-Jan-27 08:01:00 GMT", 60),
        ("Fri Jan 15 08:01:00 2027", 60),
        ("Fri, 15 Jan 2027 08:01:00 -0000", 60),
        ("Fri, 15 Jan 2027 07:00:00 GMT", 0),
        ("Fri, 15 Jan 2999 07:00:00 GMT", 86_400),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("١٢", None),
        ("nan", None),
        ("Fri, 99 Jan 2027 08:01:00 GMT", None),
    ],
)
@pytest.mark.parametrize("zone", ["UTC0", "XYZ-5"])
def test_retry_after(text: str, wait_s: float | None, zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as here:
        here.setenv("TZ", zone)
        time.tzset()
        found = retry_after_s(text, NOW_S)
    time.tzset()
    assert found == wait_s


@given(st.text() | st.text("0123456789 :,-+GMTJanFri", max_size=40))
def test_retry_after_is_within_its_bounds_or_nothing(text: str) -> None:
    found = retry_after_s(text, NOW_S)
    assert found is None or 0 <= found <= 86_400
