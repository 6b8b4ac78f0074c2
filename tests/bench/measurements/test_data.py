"""The benchmark of the loader times the real loader and the real step, and names the data and the device."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from umd_bench.bench.measurements.data import LoaderResult, bench_data, synthetic_pack
from umd_bench.bench.timing.throughput import Throughput
from umd_bench.config.errors import FieldError, UserError
from umd_bench.config.trial.data import DataConfig
from umd_bench.data.packs.manifest import data_root

RATE = Throughput(median=100.0, slowest=90.0, fastest=110.0, repeats=3, calls=1)
RESULT = LoaderResult(
    data="made up",
    images=10,
    shape=(3, 64, 64),
    batch=16,
    precision="fp32",
    device="cpu",
    device_name="a processor",
    threads=1,
    torch="2.0",
    loaders={"a": RATE, "b": replace(RATE, median=200.0)},
    step=replace(RATE, median=10.0),
)


@pytest.mark.slow
def test_random_images_form_a_pack_like_any_other(tmp_path: Path) -> None:
    split = synthetic_pack(tmp_path, 9000).split("train")
    assert split.images.shape == (9000, 3, 64, 64)
    assert len(list(tmp_path.glob("train-images-*.npy"))) == 2
    assert split.images[:100].std() > 70


def test_a_loader_ten_times_as_fast_is_fast_enough() -> None:
    assert RESULT.fast_enough
    assert "10.0 times as fast" in RESULT.verdict
    slow = replace(RESULT, step=replace(RATE, median=10.1))
    assert not slow.fast_enough
    assert "only 9.90 times as fast" in slow.verdict
    assert slow.as_json()["fast_enough"] is False


@pytest.mark.slow
def test_a_packed_data_set_is_measured_with_the_training_step_of_the_s4_model() -> None:
    result = bench_data(
        data=DataConfig(name="digits"), data_root=data_root(), images=1, batch=2, repeats=1, threads=1, device="cpu"
    )
    assert (result.data, result.shape, result.images, result.batch) == ("digits", (1, 8, 8), 1047, 2)
    assert (result.device, result.threads, result.torch, result.precision) == ("cpu", 1, torch.__version__, "fp32")
    assert len(result.loaders) == 2
    assert all(rate.median > result.step.median > 0 for rate in result.loaders.values())


def test_a_missing_data_set_or_device_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="imagenet"):
        bench_data(
            data=DataConfig(name="imagenet", size=64), data_root=tmp_path, images=1, batch=2, repeats=1, threads=1, device="cpu"
        )
    if not torch.cuda.is_available():
        with pytest.raises(FieldError, match="expected auto or cpu"):
            bench_data(data=None, data_root=tmp_path, images=1, batch=2, repeats=1, threads=1, device="cuda")


@pytest.mark.slow
def test_the_verb_prints_json_alone() -> None:
    command = [sys.executable, "-c", "from umd_bench.cli import main; main()", "bench", "data"]
    arguments = ["--data", "digits", "--batch", "2", "--repeats", "1", "--json"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=200, check=True)
    result = json.loads(done.stdout)
    assert result["ratio"] == pytest.approx(
        min(rate["median"] for rate in result["loaders"].values()) / result["step"]["median"]
    )
    assert result["torch"] == torch.__version__
