"""The tier cifar32 trains the ViT-Tiny that its sources describe, and every trial at the tier can be planned without data."""

from __future__ import annotations

from pathlib import Path

import pytest

from umd_bench.config.sweep.resolve import load_sweep, load_trial
from umd_bench.config.trial.probe_stage import ProbeStage
from umd_bench.config.trial.train_stage import TrainStage
from umd_bench.data.datasets import data_facts
from umd_bench.orchestration.preflight import check_trials

SWEEPS = Path(__file__).parents[3] / "sweeps"
METHODS = ("umd", "mae", "dit", "maskdit", "dit_scratch")
N_TRAIN = 45_000  # a tenth of the publisher's 50,000 training images is the validation split


def train_stage(method: str, name: str) -> TrainStage:
    train = load_trial(method, tier="cifar32").specs[name].stage
    assert isinstance(train, TrainStage)
    return train


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_a_vit_tiny_on_64_tokens(method: str) -> None:
    config = load_trial(method, tier="cifar32").config
    model, data = config.model, data_facts(config.data)
    assert (data.name, data.size, data.channels, data.classes) == ("cifar10", 32, 3, 10)
    assert (model.width, model.depth, model.decoder_depth, model.heads, model.patch) == (192, 12, 4, 3, 4)
    assert (data.size // model.patch) ** 2 == 64


@pytest.mark.parametrize("method", METHODS)
def test_pretraining_lasts_at_least_200_epochs_and_warms_up_for_a_tenth(method: str) -> None:
    train = train_stage(method, "pretrain")
    assert train.nimg >= 200 * N_TRAIN
    if method != "dit_scratch":
        assert 10 * train.optim.warmup_nimg == train.nimg
        finetune = train_stage(method, "finetune")
        assert 10 * finetune.optim.warmup_nimg == finetune.nimg


@pytest.mark.parametrize("method", METHODS)
def test_the_probe_has_the_row_trained_with_labels_that_the_headroom_gate_needs(method: str) -> None:
    probe = load_trial(method, tier="cifar32").specs["probe"].stage
    assert isinstance(probe, ProbeStage)
    assert probe.supervised is not None
    assert probe.supervised.nimg >= 100 * N_TRAIN


def test_the_baseline_from_scratch_sees_as_many_images_as_both_stages_of_the_others() -> None:
    assert (
        train_stage("dit_scratch", "pretrain").nimg == train_stage("dit", "pretrain").nimg + train_stage("dit", "finetune").nimg
    )


def test_the_methods_with_five_seeds_are_planned_without_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UMD_BENCH_DATA", str(tmp_path))
    trials = load_sweep(SWEEPS / "methods.yaml", tier="cifar32", sets=["seeds=[0, 1, 2, 3, 4]"]).trials
    check_trials([*trials, load_trial("dit_scratch", tier="cifar32")])
    assert len(trials) == 4 * 5
    assert list(tmp_path.iterdir()) == []


def test_the_sweep_blocks_probes_every_block_of_the_same_pretrainings() -> None:
    blocks = load_sweep(SWEEPS / "blocks.yaml").trials
    methods = load_sweep(SWEEPS / "methods.yaml", tier="cifar32", sets=["seeds=[0, 1, 2, 3, 4]"]).trials
    assert {trial.config.stages["probe"].block for trial in blocks} == set(range(1, 13))  # type: ignore[union-attr]
    assert {trial.specs["pretrain"].key for trial in blocks} == {trial.specs["pretrain"].key for trial in methods}
    last = {trial.specs["probe"].key for trial in blocks if trial.axes["stages.probe.block"] == 12}
    assert last == {trial.specs["probe"].key for trial in methods}
