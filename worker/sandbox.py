"""A worker's sandbox: it writes no file, opens no TCP connection but to Redis's port, and signals nobody outside.

Linux's Landlock, which needs no root, by three system calls; it holds for this process, for every thread and child that
it starts from then on, and it cannot be undone. What native code can do with a stranger's model file shrinks to reading
files and talking to Redis. Not covered: UDP (and so DNS), raw sockets, unix sockets in the file system, reading,
files' modes, owners and times, and other hosts that listen on the port of Redis. Must not know of models or of jobs.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

REDIS_PORT = 6379
ABI_LEAST = 4
"""The first with rules for TCP: Linux 6.7."""
ABI_SCOPES = 6
"""The first that keeps signals and abstract unix sockets inside: Linux 6.12."""

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
CREATE_RULESET_VERSION = 1
PATH_BENEATH, NET_PORT = 1, 2
PR_SET_NO_NEW_PRIVS = 38

WRITE_FILE, TRUNCATE = 1 << 1, 1 << 14
CHANGES = WRITE_FILE | TRUNCATE | sum(1 << bit for bit in range(4, 14))
"""Every right that changes a file or a folder; reading and executing stay free."""
BIND_TCP, CONNECT_TCP = 1 << 0, 1 << 1
SCOPES = 0b11

DEVICES = ("null", "nvidia*", "dri", "kfd")
"""What may be written to all the same, in `/dev`: nothing at all, and graphics cards."""


class SandboxError(Exception):
    """The sandbox cannot be had here; the message says why, and what to do."""


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathRule(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


class _PortRule(ctypes.Structure):
    _fields_ = (("allowed", ctypes.c_uint64), ("port", ctypes.c_uint64))


def tcp_port(redis_url: str) -> int | None:
    """The TCP port that a worker needs; None for a Redis on a unix socket. Raises SandboxError."""
    try:
        parts = urlsplit(redis_url)
        return None if parts.scheme == "unix" else parts.port or REDIS_PORT
    except ValueError as error:
        raise SandboxError(f"HERDER_REDIS_URL is no address of a Redis: {error}") from error


def landlock_abi() -> int:
    """The version of Landlock that the kernel speaks; 0 where it has none."""
    if not sys.platform.startswith("linux"):
        return 0
    abi = _libc().syscall(CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(CREATE_RULESET_VERSION))
    return int(max(abi, 0))


def enter(port: int | None) -> None:
    """Shut this process in; `port` is the TCP port that it may connect to. Raises SandboxError, and then is not in.

    To be called while there is one thread: the others would stay outside.
    """
    abi = landlock_abi()
    if abi < ABI_LEAST:
        found = f"this kernel has Landlock version {abi}" if abi else "this system has no Landlock"
        raise SandboxError(f"--sandbox needs Linux 6.7 or later with Landlock; {found}. Run without it")
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads != 1:
        raise SandboxError(f"--sandbox: {threads} threads run already, which would stay outside")
    ruleset = _Ruleset(CHANGES, BIND_TCP | CONNECT_TCP, SCOPES if abi >= ABI_SCOPES else 0)
    size = ctypes.sizeof(ruleset) if abi >= ABI_SCOPES else ctypes.sizeof(ruleset) - 8
    rules = _call(CREATE_RULESET, ctypes.byref(ruleset), ctypes.c_size_t(size), ctypes.c_uint32(0))
    try:
        for pattern in DEVICES:
            for device in Path("/dev").glob(pattern):
                _allow_writing(rules, device)
        if port is not None:
            rule = _PortRule(CONNECT_TCP, port)
            _call(ADD_RULE, rules, NET_PORT, ctypes.byref(rule), ctypes.c_uint32(0))
        if _libc().prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            raise SandboxError("--sandbox: the kernel refused to drop privileges for good")
        _call(RESTRICT_SELF, rules, ctypes.c_uint32(0))
    finally:
        os.close(rules)


def _allow_writing(rules: int, device: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        parent = os.open(device, os.O_PATH | os.O_CLOEXEC)
        try:
            rule = _PathRule(WRITE_FILE | TRUNCATE, parent)
            _call(ADD_RULE, rules, PATH_BENEATH, ctypes.byref(rule), ctypes.c_uint32(0))
        finally:
            os.close(parent)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _call(number: int, *arguments: object) -> int:
    """One system call. Raises SandboxError."""
    answer = int(_libc().syscall(number, *arguments))
    if answer < 0:
        reason = os.strerror(ctypes.get_errno())
        raise SandboxError(f"--sandbox: the kernel refused a rule ({reason})")
    return answer
