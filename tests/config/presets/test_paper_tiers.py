"""The tiers at the paper's scale have the numbers of its table of runs, and can be planned without data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from umd_bench.config.sweep.resolve import Trial, load_sweep, load_trial
from umd_bench.config.trial.generate_stage import GenerateStage
from umd_bench.config.trial.probe_stage import ProbeStage
from umd_bench.config.trial.train_stage import TrainStage
from umd_bench.data.datasets import DATASETS, data_facts
from umd_bench.orchestration.preflight import check_trials

SWEEPS = Path(__file__).parents[3] / "sweeps"
GOLDEN = Path(__file__).parents[2] / "golden" / "lr_schedules.npz"
TIERS = ("imagenet64", "imagenet256", "imagenet256_latent")
N_TRAIN = 1_268_355  # train[:99%]

# The appendix's table: epochs, batch, mask_ratio, r_t0, mask_ratio_t0, weight decay; None is a dash.
PRETRAIN = {
    "umd": (800, 1024, 0.375, 0.5, 0.75, 0.05),
    "mae": (800, 4096, None, 1.0, 0.75, 0.05),
    "dit": (800, 1024, 0.0, 0.0, None, 0.05),
    "maskdit": (800, 1024, 0.5, 0.0, None, 0.05),
    "dit_scratch": (400, 256, 0.0, 0.0, None, 0.0),
}
FINETUNE = {
    "umd": (50, 256, 0.0, 0.05, 0.75, 0.0),
    "mae": (50, 256, 0.0, 0.05, 0.75, 0.0),
    "dit": (50, 256, 0.0, 0.0, None, 0.0),
    "maskdit": (50, 256, 0.0, 0.0, None, 0.0),
}
# width, encoder depth, decoder depth, heads, patch; image side, channels
SHAPES = {
    "imagenet64": (768, 12, 4, 12, 4, 64, 3),
    "imagenet256": (1024, 24, 8, 16, 16, 256, 3),
    "imagenet256_latent": (1024, 24, 8, 16, 2, 32, 4),
}
# smallest cropped area in pre-training and in fine-tuning; latents are packed from whole images only
CROPS = {"imagenet64": (0.8, 0.95), "imagenet256": (0.8, 0.95), "imagenet256_latent": (1, 1)}


def stage(trial: Trial, name: str) -> Any:
    return trial.specs[name].stage


def row(train: TrainStage) -> tuple[float | None, ...]:
    """The stage as a row of the table; a mask ratio that applies to no image is a dash."""
    corruption = train.corruption
    epochs = round(train.nimg / N_TRAIN)
    assert train.n_steps == round(epochs * N_TRAIN / train.batch)
    mask_ratio = corruption.mask_ratio if train.n_clean < train.batch else None
    mask_ratio_t0 = corruption.mask_ratio_t0 if train.n_clean else None
    return epochs, train.batch, mask_ratio, corruption.r_t0, mask_ratio_t0, train.optim.weight_decay


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("method", PRETRAIN)
def test_pretraining_is_the_papers_row(tier: str, method: str) -> None:
    trial = load_trial(method, tier=tier)
    train = stage(trial, "pretrain")
    assert row(train) == PRETRAIN[method]
    epochs, batch = PRETRAIN[method][:2]
    assert train.optim.warmup_nimg == round(int(0.05 * epochs) * N_TRAIN / batch) * batch
    assert train.lr_peak == pytest.approx(1.5e-4 * batch / 256)
    assert (train.optim.beta1, train.optim.beta2, train.optim.eps, train.optim.clip_norm) == (0.9, 0.95, 1e-8, 1.0)
    assert (train.augment.crop_area_min, train.augment.flip, train.precision) == (CROPS[tier][0], True, "bf16")
    assert train.labels == train.optim.ema == (method == "dit_scratch")
    assert trial.config.model.adaln == (method != "mae")


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("method", FINETUNE)
def test_fine_tuning_is_the_papers_row(tier: str, method: str) -> None:
    train = stage(load_trial(method, tier=tier), "finetune")
    assert row(train) == FINETUNE[method]
    assert train.optim.warmup_nimg == round(2 * N_TRAIN / 256) * 256
    assert (train.lr_peak, train.optim.beta1, train.optim.beta2) == (pytest.approx(1.5e-4), 0.9, 0.999)
    assert (train.augment.crop_area_min, train.augment.flip, train.precision) == (CROPS[tier][1], True, "bf16")
    assert (train.labels, train.optim.ema, train.ema_decay) == (True, True, pytest.approx(1 - 1e-4))


@pytest.mark.parametrize(
    ("run", "method", "name"),
    [("umd_b4", "umd", "pretrain"), ("mae_readme", "mae", "pretrain"), ("finetune", "umd", "finetune")],
)
def test_the_lengths_and_the_peak_are_those_of_the_official_runs(run: str, method: str, name: str) -> None:
    with np.load(GOLDEN) as golden:
        total, warmup, peak = golden[f"{run}/total_warmup_peak"].tolist()
    train = stage(load_trial(method, tier="imagenet64"), name)
    assert (train.n_steps, train.optim.warmup_nimg / train.batch) == (total, warmup)
    assert train.lr_peak == pytest.approx(peak)


@pytest.mark.parametrize("tier", TIERS)
def test_model_data_and_schedule_are_the_papers(tier: str) -> None:
    config = load_trial("umd", tier=tier).config
    model, data = config.model, data_facts(config.data)
    shape = (model.width, model.depth, model.decoder_depth, model.heads, model.patch, data.size, data.channels)
    assert shape == SHAPES[tier]
    assert (model.class_tokens, data.classes, config.noise.timesteps) == (4, 1000, 1000)
    assert config.noise.schedule == ("linear" if data.vae else "cosine")
    assert DATASETS["imagenet"].counts["train"] == N_TRAIN
    assert sum(DATASETS["imagenet"].counts.values()) == 1_281_167 + 50_000


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("method", PRETRAIN)
def test_the_evaluation_is_the_umd_paper_profile(tier: str, method: str) -> None:
    trial = load_trial(method, tier=tier)
    probes = [s.stage for s in trial.specs.values() if isinstance(s.stage, ProbeStage)]
    assert {(p.shots, p.draws, p.ridge, p.bias) for p in probes} == {((10, 100), 5, 1024, 100)}
    drawn = [s.stage for s in trial.specs.values() if isinstance(s.stage, GenerateStage)]
    assert [g.cfg_scale for g in drawn] == [1.5, 2.0, 4.0]
    assert {(g.n, g.reference, g.sampler, g.steps, g.eta, g.extractor, g.ema) for g in drawn} == {
        (10_000, "test", "ddim-official", 125, 1.0, "inception-v3-compat", True)
    }
    assert {g.clip for g in drawn} == {tier != "imagenet256_latent"}
    assert {g.parent for g in drawn} == {"pretrain" if method == "dit_scratch" else "finetune"}


@pytest.mark.parametrize("tier", TIERS)
def test_every_method_can_be_planned_without_data(tier: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UMD_BENCH_DATA", str(tmp_path))
    check_trials([load_trial(method, tier=tier) for method in PRETRAIN])
    assert list(tmp_path.iterdir()) == []


def test_a_tier_can_be_planned_with_another_model_size() -> None:
    trial = load_trial("umd", tier="imagenet64", sets=["model=S/4"])
    check_trials([trial])
    assert trial.config.model.width == 384


def test_a_trial_that_sets_a_stage_to_null_overrides_the_tier() -> None:
    assert list(load_trial("dit_scratch").specs) == ["pretrain", "probe", "best_probe", "generate", "probe_t1"]
    assert list(load_trial("umd", sets=["stages.finetune_probe=null", "stages.generate=null"]).specs) == [
        "pretrain", "probe", "best_probe", "finetune",
    ]  # fmt: skip


@pytest.mark.parametrize("path", sorted(SWEEPS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_sweep_can_be_planned_at_its_own_tier(path: Path) -> None:
    check_trials(load_sweep(path).trials)


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize(
    "name", ["mask_ratio", "r_t0", "noise_schedule", "methods", "finetune_curve", "latent", "training_cost"]
)
def test_sweeps_of_the_tier_digits_can_be_planned_at_the_papers_scale(name: str, tier: str) -> None:
    check_trials(load_sweep(SWEEPS / f"{name}.yaml", tier=tier).trials)


def test_transfer_probes_the_official_evaluations_nine_sets_with_ten_shots() -> None:
    specs = load_sweep(SWEEPS / "transfer.yaml").trials[0].specs
    probes = {spec.input_data.name: spec.stage for name, spec in specs.items() if name.startswith("transfer_")}
    official = "cifar100 stl10 dtd oxford_pets flowers102 food101 stanford_dogs imagenet_v2 uc_merced"
    assert set(probes) == set(official.split()) <= set(DATASETS)
    assert {(probe.shots, probe.ridge) for probe in probes.values() if isinstance(probe, ProbeStage)} == {((10,), 1024)}


@pytest.mark.parametrize("tier", [*TIERS, "digits", "contrast16", "fashion", "emoji64", "cifar32"])
def test_every_method_has_a_best_probe_with_the_shots_and_the_penalty_of_its_probe(tier: str) -> None:
    for method in ("umd", "mae", "dit", "maskdit", "dit_scratch"):
        stages = {name: spec.stage for name, spec in load_trial(method, tier=tier).specs.items()}
        shared = {"shots", "draws", "ridge", "bias"}
        also = ["best_probe"] + ["probe_t1"] * method.startswith(("dit", "maskdit"))
        for name in also:
            assert stages[name].model_dump(include=shared) == stages["probe"].model_dump(include=shared)
        assert ("probe_t1" in stages) == ("probe_t1" in also)
