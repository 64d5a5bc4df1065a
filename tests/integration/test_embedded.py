"""The embedded redis-server, the checks of a foreign one, the schema stamp, and scripts that Redis has forgotten."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import pytest

from herder import embedded
from herder.broker import Broker, connect
from herder.embedded import EmbeddedRedis, check_server, find_server, server_command, socket_url
from herder.errors import RedisUnavailable, SetupError
from herder.settings import Settings
from tests.integration.ring import Ring
from tests.simulation.server import IN_MEMORY, private_redis


async def test_a_second_herd_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    first = EmbeddedRedis(tmp_path)
    url = await first.start()
    try:
        assert url == socket_url(tmp_path)
        with pytest.raises(SetupError, match="a herd already runs"):
            await EmbeddedRedis(tmp_path).start()
        assert await embedded.answers(url)
        assert await check_server(url) == []
    finally:
        await first.stop()
    await first.stop()  # twice does no harm
    assert not await embedded.answers(url)


async def test_the_lock_of_a_folder_is_its_owners_alone(tmp_path: Path) -> None:
    lock = tmp_path / "herd.lock"
    lock.touch()
    lock.chmod(0o644)  # as earlier versions have left it
    server = EmbeddedRedis(tmp_path)
    server.take_folder()
    server.take_folder()  # twice does no harm
    try:
        assert stat.S_IMODE(lock.stat().st_mode) == 0o600
        with pytest.raises(SetupError, match="a herd already runs"):
            EmbeddedRedis(tmp_path).take_folder()
    finally:
        await server.stop()
    other = EmbeddedRedis(tmp_path)
    other.take_folder()
    await other.stop()


async def test_what_was_written_is_there_after_a_restart(tmp_path: Path, settings: Settings) -> None:
    settings = settings.model_copy(update={"redis_url": socket_url(tmp_path)})
    for expected in (10, 20):
        server = EmbeddedRedis(tmp_path)
        await server.start()
        broker = await connect(settings)
        ring = Ring(broker)
        if expected == 10:
            await ring.ledger.create_account("ann")
        record = await ring.ledger.deposit("ann", 10, f"d{expected}")
        assert record.available == expected
        await broker.close()
        await server.stop()


async def test_a_server_that_does_not_start_is_a_setup_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "appendonly.aof").write_bytes(b"this is no append-only file")
    server = EmbeddedRedis(tmp_path)
    with pytest.raises(SetupError, match="redis-server does not start"):
        await server.start()
    assert server.child is None
    (tmp_path / "appendonly.aof").unlink()
    await server.start()  # the folder is free again
    await server.stop()


def test_it_finds_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_server().exists()
    monkeypatch.setattr(shutil, "which", lambda name: "valkey" if name == "valkey-server" else None)
    assert find_server() == Path("valkey")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(embedded, "find_spec", lambda name: None)
    with pytest.raises(SetupError, match="no redis-server found: install one"):
        find_server()


def test_a_long_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="too long for a unix socket"):
        server_command(tmp_path / ("x" * 100))


async def test_a_server_that_evicts_is_refused() -> None:
    evicting = ("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
    refused = pytest.raises(SetupError, match="maxmemory-policy allkeys-lru, which can evict jobs and money")
    with private_redis(*IN_MEMORY, *evicting) as url, refused:
        await check_server(url)


async def test_a_server_without_an_append_only_file_is_warned_of() -> None:
    with private_redis(*IN_MEMORY) as url:
        (warning,) = await check_server(url)
        assert "APPENDONLY IS OFF" in warning


async def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="cannot be reached"):
        await check_server(f"unix://{tmp_path}/nobody.sock")


async def test_the_password_is_not_shown() -> None:
    with pytest.raises(SetupError) as refused:
        await check_server("redis://:hush@127.0.0.1:1/0")
    assert "hush" not in str(refused.value)


async def test_a_database_of_another_version_is_refused(settings: Settings) -> None:
    broker = await connect(settings)
    await broker.check_schema()
    await broker.redis.set(broker.keys("schema"), "99")
    with pytest.raises(SetupError, match="schema version 99"):
        await broker.check_schema()
    with pytest.raises(SetupError):
        await connect(settings)
    await broker.close()


async def test_scripts_that_redis_has_forgotten_are_sent_again(broker: Broker) -> None:
    ring = await Ring(broker).open("ann")
    for i in range(3):
        await broker.redis.script_flush()
        await ring.submit("ann")
        await broker.redis.script_flush()
        lease = await ring.lease_one()
        assert await ring.say(lease, "a") == "OK"
        await broker.redis.script_flush()
        await ring.settle(lease, 3)
        assert await ring.balances("ann") == (1_000_000 - 13 * (i + 1), 0)


async def test_a_redis_that_is_away_is_unavailable(settings: Settings, tmp_path: Path) -> None:
    away = settings.model_copy(update={"redis_url": f"unix://{tmp_path}/nobody.sock"})
    with pytest.raises(RedisUnavailable):
        await connect(away, attempts=1)
