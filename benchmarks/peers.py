"""What the herd is measured beside: llama.cpp's own programs, and arq, saq and LiteLLM in environments of their own.

`python -m benchmarks.peers` makes all of them (`python -m benchmarks.peers llama saq` some), once, in a cache outside
the tree: `BENCH_PEERS`, or `~/.cache/llama-herder/peers`. The llama.cpp is the one inside the source package of the
very llama-cpp-python that the worker runs on, built with the flags that its wheel is built with. Set `BENCH_CMAKE`
(say, to `-DGGML_CUDA=ON`) to build another one beside it. Must not know of the herd.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CACHE = Path(os.environ.get("BENCH_PEERS") or Path.home() / ".cache" / "llama-herder" / "peers")
LLAMA = "llama-cpp-python"
PROGRAMS = ("llama-server", "llama-batched-bench")
ENVIRONMENTS = {
    "arq": ("arq==0.28.0", "redis[hiredis]==5.3.1", "uvloop==0.23.0"),
    "saq": ("saq[hiredis]==0.26.4", "typing-extensions==4.16.0", "uvloop==0.23.0"),
    "litellm": ("litellm[proxy]==1.106.2",),
    # Draws what was measured.
    "chart": ("matplotlib>=3.10,<4",),
    # For machines that have no build tools but a compiler.
    "cmake": ("cmake>=3.28,<5", "ninja>=1.11"),
}
# As the wheel is built, less what a server on the loopback does not use.
CMAKE = (
    "-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=ON", "-DLLAMA_CURL=OFF", "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_UI=OFF", "-DLLAMA_USE_PREBUILT_UI=OFF",
)  # fmt: skip
BUILD_S = 4 * 3600.0
FETCH_S = 1800.0


def environment(name: str) -> Path:
    """The python of an environment with one peer's pinned packages, made on first use.

    `name` is a key of ENVIRONMENTS; console scripts lie in the same folder. Raises CalledProcessError where a package
    cannot be had.
    """
    pins = ENVIRONMENTS[name]
    folder = CACHE / f"{name}-{_digest((*pins, sys.version))}"
    python = folder / "bin" / "python"
    with _alone(name):
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            uv = _uv()
            _run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)], FETCH_S)
            _run([uv, "pip", "install", "--quiet", "--python", str(python), *pins], FETCH_S)
            (folder / "complete").touch()
    return python


def program(name: str) -> Path:
    """One of PROGRAMS, built on first use (about half an hour on two cores). Raises CalledProcessError."""
    assert name in PROGRAMS
    more = tuple(os.environ.get("BENCH_CMAKE", "").split())
    build = CACHE / (f"build-{_digest(more)}" if more else "build")
    wanted = "\n".join((version(LLAMA), *CMAKE, *more))
    mark = build / "complete"
    with _alone(build.name):
        if not mark.exists() or mark.read_text("utf-8") != wanted:
            mark.unlink(missing_ok=True)
            _build(source(), build, more)
            mark.write_text(wanted, "utf-8")
    return build / "bin" / name


def source() -> Path:
    """The folder of llama.cpp inside llama-cpp-python's source package, fetched and unpacked on first use."""
    with _alone("source"):
        folder = CACHE / f"llama_cpp_python-{version(LLAMA)}"
        if not (folder / "complete").exists():
            archive = next(CACHE.glob(f"{folder.name}*.tar.gz"), None) or _fetch()
            shutil.rmtree(folder, ignore_errors=True)
            with tarfile.open(archive) as members:
                members.extractall(CACHE, filter="data")
            (folder / "complete").touch()
    return folder / "vendor" / "llama.cpp"


def _fetch() -> Path:
    """The source package, checked against the hash in requirements.lock."""
    lock = (ROOT / "requirements.lock").read_text("utf-8")
    pin = re.search(rf"^{LLAMA}==\S+(?: \\\n +--hash=\S+)+", lock, re.MULTILINE)
    assert pin is not None, f"{LLAMA} is not in requirements.lock"
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        requirement = Path(folder) / "requirement.txt"
        requirement.write_text(pin[0] + "\n", "utf-8")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        pip += ["--no-binary", LLAMA, "--require-hashes", "--dest", folder, "-r", str(requirement)]
        _run(pip, FETCH_S)
        archive = next(Path(folder).glob("*.tar.gz"))
        return archive.rename(CACHE / archive.name)


def _build(tree: Path, build: Path, more: Sequence[str]) -> None:
    cmake, ninja = shutil.which("cmake"), shutil.which("ninja")
    if cmake is None or ninja is None:
        tools = environment("cmake").parent
        cmake, ninja = str(tools / "cmake"), str(tools / "ninja")
    generator = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
    _run([cmake, "-S", str(tree), "-B", str(build), *generator, *CMAKE, *more], BUILD_S)
    jobs = str(os.cpu_count() or 1)
    # The lowest priority but for idle: whoever works on this machine goes first.
    _run(
        ["nice", "-n", "15", cmake, "--build", str(build), "--parallel", jobs, "--target", *PROGRAMS], BUILD_S
    )


def _run(command: list[str], limit_s: float) -> None:
    """Run it, its output on stderr, where it does not end up among results."""
    subprocess.run(command, check=True, timeout=limit_s, stdin=subprocess.DEVNULL, stdout=sys.stderr.fileno())


def _uv() -> str:
    beside = Path(sys.executable).parent / "uv"
    return str(beside) if beside.exists() else "uv"


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


@contextlib.contextmanager
def _alone(name: str) -> Iterator[None]:
    """One process at a time makes a thing; the others wait and find it made."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> None:
    """Make what is named, or everything, and say where it is."""
    names = sys.argv[1:] or ["arq", "saq", "litellm", "llama"]
    for name in names:
        for path in [program(p) for p in PROGRAMS] if name == "llama" else [environment(name)]:
            print(f"{name}: {path}")


if __name__ == "__main__":
    main()
