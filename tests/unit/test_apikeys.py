"""API keys: their shape, their checksum, their HMAC, and the secret that is made once."""

from __future__ import annotations

import stat
import string
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from herder.apikeys import ALPHABET, PREFIX, checksum, key_hmac, key_secret, new_key, well_formed
from herder.errors import SetupError
from herder.settings import Settings


def made_in(folder: Path, secret: str = "") -> Settings:
    return Settings(data_dir=folder / "data", key_secret=SecretStr(secret))


def test_a_new_key_has_its_shape_and_is_new() -> None:
    keys = {new_key() for _ in range(1_000)}
    assert len(keys) == 1_000
    for key in keys:
        assert len(key) == 39
        assert key.startswith(PREFIX)
        assert set(key[3:]) <= set(string.ascii_letters + string.digits)
        assert well_formed(key)


def test_the_checksum_is_crc32_in_base62() -> None:
    body = new_key()[3:33]
    number = 0
    for digit in checksum(body):
        number = number * 62 + ALPHABET.index(digit)
    assert number == zlib.crc32(body.encode())
    assert len(ALPHABET) == len(set(ALPHABET)) == 62


@given(st.integers(min_value=0, max_value=38), st.sampled_from(ALPHABET + "_- é\n"))
def test_one_mistyped_character_is_noticed(at: int, character: str) -> None:
    key = new_key()
    mistyped = key[:at] + character + key[at + 1 :]
    assert well_formed(mistyped) == (mistyped == key)


@given(st.text(max_size=60))
def test_other_text_is_no_key(text: str) -> None:
    assert not well_formed(text)
    assert not well_formed(new_key() + text + "x")


def test_the_hmac_needs_the_secret_and_takes_any_text() -> None:
    key = new_key()
    assert key_hmac(b"a", key) == key_hmac(b"a", key)
    assert len({key_hmac(b"a", key), key_hmac(b"b", key), key_hmac(b"a", new_key())}) == 3
    assert key_hmac(b"a", "\ud800")


def test_the_secret_is_made_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    settings = made_in(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: key_secret(settings), range(32)))
    assert len(found) == 1
    (file,) = (tmp_path / "data").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert key_secret(settings) == file.read_bytes()


def test_the_setting_goes_before_the_file(tmp_path: Path) -> None:
    assert key_secret(made_in(tmp_path, "s" * 32)) == b"s" * 32
    assert not (tmp_path / "data").exists()


def test_a_short_secret_or_an_unusable_file_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="HERDER_KEY_SECRET"):
        key_secret(made_in(tmp_path, "short"))
    (tmp_path / "data").write_text("a file where the folder should be")
    with pytest.raises(SetupError, match="key secret"):
        key_secret(made_in(tmp_path))
    other = tmp_path / "other"
    (other / "data").mkdir(parents=True)
    (other / "data" / "key-secret").write_text("")
    with pytest.raises(SetupError, match="restore it"):
        key_secret(made_in(other))
