"""API keys: how one is made, recognised and stored. `hk_`, 30 random base62 characters, 6 of CRC-32.

The checksum (as in GitHub's tokens) lets a mistyped key be refused without a look at Redis, and a leaked one be
found by a scanner. Only an HMAC of a key is ever stored. Knows nothing of accounts, Redis or HTTP.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import re
import secrets
import zlib
from pathlib import Path

from herder.errors import SetupError
from herder.settings import Settings

PREFIX = "hk_"
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
RANDOM_CHARS = 30  # 178 bits
CHECKSUM_CHARS = 6  # 62^6 > 2^32
_PAIRS = [first + second for first in ALPHABET for second in ALPHABET]  # two digits at a time

_SHAPE = re.compile(rf"{PREFIX}([0-9A-Za-z]{{{RANDOM_CHARS}}})([0-9A-Za-z]{{{CHECKSUM_CHARS}}})", re.ASCII)
_SECRET_FILE = "key-secret"  # noqa: S105
_SECRET_BYTES_MIN = 16


def new_key() -> str:
    """A fresh secret key, from the operating system's randomness."""
    body = "".join(secrets.choice(ALPHABET) for _ in range(RANDOM_CHARS))
    return PREFIX + body + checksum(body)


def well_formed(key: str) -> bool:
    """Whether the key has the right shape and checksum; says nothing of whether it exists."""
    match = _SHAPE.fullmatch(key)
    return match is not None and checksum(match.group(1)) == match.group(2)


def checksum(body: str) -> str:
    """CRC-32 of the 30 random characters in base62, six digits, most significant first."""
    rest, last = divmod(zlib.crc32(body.encode("ascii")), len(_PAIRS))
    first, middle = divmod(rest, len(_PAIRS))
    return _PAIRS[first] + _PAIRS[middle] + _PAIRS[last]


def key_hmac(secret: bytes, key: str) -> str:
    """HMAC-SHA256 of a key in hexadecimal: what is stored, and what a request's key is looked up by."""
    return hmac.digest(secret, key.encode("utf-8", "surrogatepass"), "sha256").hex()


def has_key_secret(settings: Settings) -> bool:
    """Whether there is a secret already; `key_secret` would otherwise make one."""
    return bool(settings.key_secret.get_secret_value()) or (settings.data_dir / _SECRET_FILE).exists()


def key_secret(settings: Settings) -> bytes:
    """The secret of the HMAC: HERDER_KEY_SECRET, or a file (mode 0600) that is made once in the data directory.

    Raises SetupError where the setting is too short or the file cannot be made or read.
    """
    given = settings.key_secret.get_secret_value().encode()
    if given:
        if len(given) < _SECRET_BYTES_MIN:
            raise SetupError(
                f"HERDER_KEY_SECRET is shorter than {_SECRET_BYTES_MIN} bytes: openssl rand -hex 32"
            )
        return given
    path = settings.data_dir / _SECRET_FILE
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        return _make_or_read(path)
    except OSError as error:
        raise SetupError(f"cannot keep the key secret in {path}: {error}; set HERDER_KEY_SECRET") from error


def _make_or_read(path: Path) -> bytes:
    """Write beside, then link: the file appears whole or not at all, and the first of two replicas wins."""
    if not path.exists():
        draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_hex(32).encode())
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)
        finally:
            draft.unlink()
    secret = path.read_bytes().strip()
    if len(secret) < _SECRET_BYTES_MIN:
        raise SetupError(
            f"{path} holds no key secret: restore it, or write another one there (every key must then be made anew)"
        )
    return secret
