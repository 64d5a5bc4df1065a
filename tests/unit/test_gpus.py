"""Which GPUs a worker sees, and which wishes for GPUs contradict themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from herder.environment import check_gpus, of_child, of_worker
from herder.errors import SetupError
from herder.gpus import VISIBLE, seen_by
from herder.settings import Settings
from herder.sources import load
from herder.up import Herd
from worker.main import EXIT_USAGE, read_plan, run

REDIS = ("--redis-url", "redis://127.0.0.1:1")


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty folder, and no variables of the machine's own."""
    for name in [
        *VISIBLE,
        "CUDA_DEVICE_ORDER",
        *(f"HERDER_{field.upper()}" for field in Settings.model_fields),
    ]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_a_worker_sees_its_own_gpus_alone() -> None:
    assert seen_by("1", {}) == dict.fromkeys(VISIBLE, "1") | {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert seen_by("2+0", {})["CUDA_VISIBLE_DEVICES"] == "2,0"
    assert seen_by("0", {"CUDA_DEVICE_ORDER": "FASTEST_FIRST"})["CUDA_DEVICE_ORDER"] == "FASTEST_FIRST"


def test_what_the_environment_shows_is_counted_from_0() -> None:
    shown = {"CUDA_VISIBLE_DEVICES": "GPU-5a, 6,7"}
    assert seen_by("0+2", shown)["CUDA_VISIBLE_DEVICES"] == "GPU-5a,7"
    with pytest.raises(ValueError, match=r"GPU 3 is not among the 3 of CUDA_VISIBLE_DEVICES"):
        seen_by("3", shown)


def test_each_worker_of_a_herd_has_gpus_of_its_own() -> None:
    settings = Settings(gpu="0,2+3", workers=2, model="a=herd-tiny,b=herd-tiny")  # type: ignore[arg-type]
    herd = Herd(settings)
    workers = herd._workers()
    assert [worker.name for worker in workers] == [f"worker-{i}" for i in range(1, 9)]
    assert [(w.command()[-1], w.env["HERDER_GPU"], w.env["CUDA_VISIBLE_DEVICES"]) for w in workers] == [
        (f"{model}=herd-tiny", gpu, seen)
        for model in "ab"
        for gpu, seen in [("0", "0"), ("0", "0"), ("2+3", "2,3"), ("2+3", "2,3")]
    ]
    assert {w.env["HERDER_GPU_LAYERS"] for w in workers} == {"-1"}
    # What is no worker sees what there is to see.
    assert "CUDA_VISIBLE_DEVICES" not in herd._child("api", "serve").env
    (worker,) = Herd(Settings())._workers()
    assert not {*VISIBLE, "CUDA_DEVICE_ORDER"} & worker.env.keys()


def test_a_child_s_environment_keeps_what_the_drivers_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "4,5")
    monkeypatch.setenv("GGML_CUDA_FORCE_MMQ", "1")
    child = of_child(Settings(), 1)
    assert (child["HIP_VISIBLE_DEVICES"], child["GGML_CUDA_FORCE_MMQ"]) == ("4,5", "1")
    assert of_worker(child, "1")["HIP_VISIBLE_DEVICES"] == "5"
    with pytest.raises(SetupError, match=r"^HERDER_GPU: GPU 2 is not among the 2"):
        check_gpus(("0", "2"))


def test_threads_that_share_cores_do_not_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.setattr("herder.environment.cores", lambda: 4)
    found = [
        of_child(Settings(threads=threads), workers) for threads, workers in ((0, 4), (2, 2), (2, 3), (0, 5))
    ]
    assert [child["HERDER_THREADS"] for child in found] == ["1", "2", "2", "1"]
    assert [child.get("GOMP_SPINCOUNT") for child in found] == [None, None, "0", "0"]
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    assert of_child(Settings(threads=2), 3)["GOMP_SPINCOUNT"] == "7"


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"gpu": "a"}, "HERDER_GPU: 'a' is no GPU; write 0,1"),
        ({"gpu": "0+"}, "HERDER_GPU: .* is no GPU"),
        ({"gpu": "0,0"}, "HERDER_GPU: GPU 0 is there twice; .*HERDER_WORKERS=2"),
        ({"gpu": "0+1,1+2"}, "HERDER_GPU: GPU 1 is there twice"),
        ({"gpu": "0", "gpu_layers": 0}, "HERDER_GPU: .*HERDER_GPU_LAYERS=0"),
        ({"gpu": "0,1", "tensor_split": "3,1"}, r"HERDER_TENSOR_SPLIT: 2 shares.*0\+1 for one worker over 2"),
        ({"gpu": "0+1", "tensor_split": "3"}, "HERDER_TENSOR_SPLIT: 1 shares"),
        ({"tensor_split": "3,1"}, "HERDER_TENSOR_SPLIT: .*HERDER_GPU_LAYERS=-1"),
        ({"gpu": "0+1", "tensor_split": "0,0"}, "HERDER_TENSOR_SPLIT: all shares are 0"),
        ({"gpu": "0+1", "split_mode": "none"}, "HERDER_SPLIT_MODE: none uses one GPU"),
        (
            {"gpu_layers": -1, "split_mode": "none", "tensor_split": "3,1"},
            "HERDER_TENSOR_SPLIT: .*HERDER_SPLIT_MODE",
        ),
        ({"gpu": "0", "main_gpu": 1}, "HERDER_MAIN_GPU: "),
    ],
)
def test_wishes_that_contradict_themselves(wish: dict[str, object], said: str) -> None:
    with pytest.raises(SetupError, match=f"^{said}"):
        load(**wish)


def test_several_gpus_for_one_worker() -> None:
    settings = load(gpu="0+1", tensor_split="3,1")
    assert (settings.gpu, settings.tensor_split, settings.gpu_layers) == (("0+1",), (3.0, 1.0), -1)
    assert load(gpu="0", gpu_layers=20).gpu_layers == 20


def test_a_worker_by_hand_chooses_for_itself(capsys: pytest.CaptureFixture[str]) -> None:
    plan = read_plan([*REDIS, "--gpu", "1+2"])
    assert plan.gpus_seen["CUDA_VISIBLE_DEVICES"] == "1,2"
    # Its supervisor has chosen, and a number means the same no more.
    assert read_plan([*REDIS, "--gpu", "1+2", "--supervised"]).gpus_seen == {}
    assert run([*REDIS, "--gpu", "0,1"]) == EXIT_USAGE
    assert "write 0+1 for one over all" in capsys.readouterr().err
