"""llama.cpp as settings ask for it: what they change, what they must not, and what is refused in one line."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path

import llama_cpp
import numpy as np
import pytest

from tests.engines.bench import Driver, MeasuredEngine, a_lease
from worker import parameters, probe
from worker.engine import ModelUnusable
from worker.main import EXIT_BAD_MODEL, EXIT_USAGE, run
from worker.tuning import Tuning, Wanted, from_text, to_text

HERD_TINY = Path(str(files("herder") / "models" / "herd-tiny.gguf"))
LONG = "Once upon a time there was a shepherd who had many llamas, and each of the llamas had a name. " * 6
PROMPTS = ("What is the capital of France?", LONG, "x", "The quick brown fox jumps over the lazy dog.")
MEMORY = 2 * 1024**3
REDIS = ("--redis-url", "redis://127.0.0.1:1")

Open = Callable[..., MeasuredEngine]


@pytest.fixture
def opened() -> Iterator[Open]:
    """Opens the built-in model with four slots of 512 tokens, tuned so; closed at the end."""
    engines: list[MeasuredEngine] = []

    def opening(**tuning: object) -> MeasuredEngine:
        tuned = Tuning(**tuning)  # type: ignore[arg-type]
        engines.append(MeasuredEngine(HERD_TINY, slots=4, context=512, threads=1, tuning=tuned))
        return engines[-1]

    yield opening
    for engine in engines:
        engine.close()


@pytest.fixture
def without_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty folder, on a machine that has none, or shows none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr("worker.main.seen_by", lambda gpus, environment: {})


def moved(one: MeasuredEngine, other: MeasuredEngine) -> float:
    """How far the logits after the prompts are from each other, at most."""
    tokens = [one.tokenize(prompt) for prompt in PROMPTS]
    return max(float(np.abs(one.last_logits(t) - other.last_logits(t)).max()) for t in tokens)


def test_flash_attention_changes_the_rounding_and_no_more(opened: Open) -> None:
    on, off = opened(flash_attention="on"), opened(flash_attention="off")
    assert 0 < moved(on, off) < on.clear
    # The control: other tokens move them far more.
    a, b = (on.last_logits(on.tokenize(prompt)) for prompt in PROMPTS[:2])
    assert np.abs(a - b).max() > 10 * on.clear


@pytest.mark.parametrize(("kind", "most"), [("bf16", 1), ("q8_0", 1), ("q4_0", 6), ("iq4_nl", 6)])
def test_the_type_of_the_cache_is_what_was_asked_for(opened: Open, kind: str, most: float) -> None:
    plain, other = opened(), opened(kv_type_k=kind, kv_type_v=kind)
    assert 0 < moved(plain, other) < most * plain.clear
    answers = Driver(other).run(*(a_lease(prompt) for prompt in PROMPTS))
    assert all(answer.text for answer in answers)


@pytest.mark.parametrize(
    "tuning", [{"batch_tokens": 32}, {"ubatch_tokens": 16}, {"batch_tokens": 5, "ubatch_tokens": 2}]
)
def test_a_prompt_longer_than_a_batch_is_answered_the_same(opened: Open, tuning: dict[str, int]) -> None:
    plain, small = opened(), opened(**tuning)
    assert len(plain.tokenize(LONG)) > 100
    assert small.facts.batch_tokens == tuning.get("batch_tokens", 2_048)
    asked = [a_lease(prompt, tokens=12) for prompt in PROMPTS]
    answers = Driver(small).run(*asked)
    assert max(sum(len(row.tokens) for row in step.rows) for step in small.steps) <= small.facts.batch_tokens
    expected = Driver(plain).run(*(a_lease(prompt, tokens=12) for prompt in PROMPTS))
    assert [answer.text[:8] for answer in answers] == [answer.text[:8] for answer in expected]


def test_a_cache_in_parts_answers_as_a_unified_one(opened: Open) -> None:
    whole, parts = opened(), opened(kv_unified="off")
    assert (whole.facts.shares_cells, parts.facts.shares_cells) == (True, False)
    assert (parts.facts.sequences, parts.facts.kv_tokens, parts.facts.context) == (4, 2_048, 512)
    assert whole.facts.sequences > 4
    per_sequence = [llama_cpp.llama_n_ctx_seq(engine._context) for engine in (whole, parts)]
    assert per_sequence == [2_048, 512]
    driver = Driver(parts)
    answers = driver.run(*(a_lease(prompt, tokens=12) for prompt in PROMPTS))
    expected = Driver(whole).run(*(a_lease(prompt, tokens=12) for prompt in PROMPTS))
    assert [answer.text[:8] for answer in answers] == [answer.text[:8] for answer in expected]
    # The next turn goes on in the slot of the last one; each of four can be as long as the context.
    (again,) = driver.run(a_lease(LONG + "And then", tokens=4))
    assert again.cached > 100
    full = [a_lease(f"{i} " + LONG, tokens=512 - len(parts.tokenize(f"{i} " + LONG))) for i in range(4)]
    assert all(answer.finish is not None for answer in driver.run(*full))


def test_parts_copy_what_several_jobs_begin_with(opened: Open) -> None:
    whole, parts = opened(kv_unified="on"), opened(kv_unified="off")
    asked = [a_lease(f"{LONG} {end}", tokens=12) for end in ("First", "And then", "But", "So it was")]
    answers = Driver(parts).run(*asked)
    assert sum(answer.cached > 100 for answer in answers) == 3
    assert sum(len(step.copies) for step in parts.steps) == 3
    expected = [Driver(whole).run(lease)[0] for lease in asked]
    assert [answer.text[:8] for answer in answers] == [answer.text[:8] for answer in expected]


def test_memory_that_is_not_there_is_one_line() -> None:
    def probed(context: int) -> subprocess.CompletedProcess[str]:
        wanted = to_text(Wanted(slots=16, context=context, threads=1))
        return subprocess.run(
            [sys.executable, "-m", "worker.probe", str(HERD_TINY), wanted],
            capture_output=True, text=True, timeout=60, check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY)),
        )  # fmt: skip

    done = probed(100_000)  # nearly 5 GB
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "allocate" in done.stderr
    assert " / " not in done.stderr, "the cause, not what follows from it"
    assert "lower --slots or --ctx" in done.stderr
    assert probed(1_000).returncode == 0


def test_what_is_left_to_a_container_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(probe, "MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(probe, "CGROUP", tmp_path)
    assert probe.free_bytes() == 0
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:   8000 kB\n")
    assert probe.free_bytes() == 8_192_000
    (tmp_path / "memory.current").write_text("500000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 3000\nactive_file 200\n")
    for most, free in (("max", 8_192_000), ("1000000", 503_200), ("100", 0)):
        (tmp_path / "memory.max").write_text(f"{most}\n")
        assert probe.free_bytes() == free


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (
            ("--kv-type-v", "q8_0", "--flash-attention", "off"),
            EXIT_USAGE,
            "kv_type_v: q8_0 needs flash attention",
        ),
        (("--kv-type-k", "q9"), EXIT_USAGE, "'q8_0'"),
        (("--flash-attention", "perhaps"), EXIT_USAGE, "flash_attention"),
        (("--slots", "8", "--batch-tokens", "7"), EXIT_USAGE, "batch_tokens: 7 is less than the 8 slots"),
        (("--gpu", "0"), EXIT_BAD_MODEL, "llama.cpp sees none"),
        (("--gpu-layers", "-1"), EXIT_BAD_MODEL, "leave --gpu-layers, --gpu"),
        (("--gpu-layers", "5"), EXIT_BAD_MODEL, "llama.cpp sees none"),
        (("--split-mode", "row"), EXIT_BAD_MODEL, "llama.cpp sees none"),
        (("--gpu-layers", "-1", "--tensor-split", "3,1"), EXIT_BAD_MODEL, "llama.cpp sees none"),
        (("--gpu-layers", "-1", "--split-mode", "none", "--main-gpu", "2"), EXIT_BAD_MODEL, "sees none"),
        (("--template", "nowhere.jinja"), EXIT_USAGE, "name a Jinja file, or llama-2"),
        (("--template", "other=chatml"), EXIT_USAGE, "no model here is called other; it is herd-tiny"),
    ],
)
@pytest.mark.usefixtures("without_gpus")
def test_what_cannot_be_is_refused_at_the_start(
    capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], code: int, said: str
) -> None:
    assert run([*REDIS, *flags]) == code
    heard = capsys.readouterr().err
    assert said in heard
    assert heard.startswith("herder-worker: ")
    assert heard.count("\n") == 1


class Devices:
    """The part of ggml that tells of the machine: devices of these kinds."""

    def __init__(self, *kinds: int) -> None:
        self.ggml_backend_dev_count = lambda: len(kinds)
        self.ggml_backend_dev_get = lambda i: i.value + 1
        self.ggml_backend_dev_type = lambda device: kinds[device.value - 1]


CPU, GPU, IGPU = 0, 1, 2


@pytest.mark.parametrize(
    ("kinds", "seen"), [((), 0), ((CPU,), 0), ((GPU, IGPU, GPU, CPU), 2), ((CPU, IGPU), 1)]
)
def test_a_gpu_that_is_wanted_is_one_that_is_seen(
    monkeypatch: pytest.MonkeyPatch, kinds: tuple[int, ...], seen: int
) -> None:
    """Whether llama.cpp was built for processors alone, or for a GPU and there is none, is the same."""
    monkeypatch.setattr(parameters, "libggml", Devices(*kinds))
    assert parameters.gpus_seen() == seen
    parameters.check_gpus(0, Tuning())
    for layers, tuning in ((-1, Tuning()), (5, Tuning()), (0, Tuning(split_mode="row"))):
        if seen:
            parameters.check_gpus(layers, tuning)
        else:
            with pytest.raises(ModelUnusable, match="sees none"):
                parameters.check_gpus(layers, tuning)


@pytest.mark.parametrize(
    ("layers", "kinds", "limited"), [(0, (GPU,), True), (-1, (CPU,), True), (-1, (GPU,), False)]
)
def test_memory_is_watched_where_no_driver_reserves_it(
    monkeypatch: pytest.MonkeyPatch, layers: int, kinds: tuple[int, ...], limited: bool
) -> None:
    limits: list[int] = []
    monkeypatch.setattr(parameters, "libggml", Devices(*kinds))
    monkeypatch.setattr(sys, "argv", ["probe", "nowhere.gguf", to_text(Wanted(gpu_layers=layers))])
    monkeypatch.setattr(probe, "free_bytes", lambda: MEMORY)
    monkeypatch.setattr(resource, "setrlimit", lambda kind, _: limits.append(kind))
    assert probe.main() == 1
    assert (resource.RLIMIT_DATA in limits) is limited


def test_more_tokens_than_llama_cpp_can_count_are_refused() -> None:
    # 2**32 and 256 more: cut to 32 bits it would be a small cache.
    with pytest.raises(ModelUnusable, match="lower --slots or --ctx"):
        MeasuredEngine(HERD_TINY, slots=16, context=2**28 + 16)


def test_a_child_reads_what_it_was_told() -> None:
    wanted = Wanted(3, 99, 2, -1, Tuning(tensor_split=(3.0, 1.0), kv_type_k="q8_0"))
    assert from_text(to_text(wanted)) == wanted
    assert wanted.tuning.unusual == "--kv-type-k, --tensor-split"
