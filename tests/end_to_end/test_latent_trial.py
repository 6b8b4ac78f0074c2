"""A trial on latents of a VAE: packing, training with an exact resume, probing, sampling and scoring."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from data.small_vaes import SIZE, TINIES, pack_small, write_vae
from PIL import Image

from umd_bench.config.errors import UserError
from umd_bench.config.sweep.resolve import Trial, load_trial
from umd_bench.config.trial.generate_stage import GenerateStage
from umd_bench.data.datasets import DATASETS
from umd_bench.data.open_data import open_data, open_pack
from umd_bench.engine.training.snapshot import load_snapshot
from umd_bench.orchestration.preflight import check_trials, prepare_data
from umd_bench.orchestration.runs.evaluate import evaluation_trial
from umd_bench.orchestration.runs.sample import draw_samples
from umd_bench.orchestration.stage_process.run_stage import run_stage
from umd_bench.store import RunDir, StageState, stage_state

DATA = f"data={{name: tinies, size: {SIZE}, vae: vae-f2c4}}"
SMALL = [
    DATA,
    "model={patch: 2, width: 16, depth: 1, decoder_depth: 1, heads: 2}",
    "noise={schedule: linear, timesteps: 50}",
    "resources.device=cpu",
    "stages.pretrain={nimg: 160, batch: 16, checkpoint_every_nimg: 16, augment: {flip: true}}",
    "stages.probe={shots: [3], draws: 2}",
    "stages.best_probe={shots: [3], draws: 2, choose: {times: [clean, 10]}}",  # the preset also has 51, beyond the 50 timesteps
    "stages.finetune={nimg: 40, batch: 20}",
    "stages.finetune_probe=null",
    "stages.generate={n: 12, steps: 2, clip: false, extractor: efficientnet_lite0, reference: train}",
]


@pytest.fixture(autouse=True)
def _tinies() -> Iterator[None]:
    DATASETS["tinies"] = TINIES
    yield
    del DATASETS["tinies"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with the images and their latents. The VAE's own folder no longer exists."""
    DATASETS["tinies"] = TINIES
    root, vaes = tmp_path_factory.mktemp("root"), tmp_path_factory.mktemp("vaes")
    vae = write_vae(vaes / "vae")
    pack_small(root, vae)
    vae.rename(vaes / "gone")
    return root


def trial(*sets: str) -> Trial:
    return load_trial("umd", sets=[*SMALL, *sets])


def run(results: Path, root: Path, small: Trial, name: str) -> RunDir:
    spec = small.specs[name]
    folder = RunDir(results, spec.key)
    folder.prepare(spec)
    run_stage(results, spec.key, root)
    return folder


@pytest.fixture(scope="module")
def done(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunDir]:
    DATASETS["tinies"] = TINIES
    small, results = trial(), tmp_path_factory.mktemp("results")
    check_trials([small])
    prepare_data([small], root)
    return {name: run(results, root, small, name) for name in small.specs}


@pytest.mark.slow
def test_every_stage_has_a_result_made_from_the_latents(done: dict[str, RunDir], root: Path) -> None:
    digest = open_data(trial().config.data, root).manifest.digest
    for name, stage in done.items():
        result = stage.result()
        assert result is not None, (name, stage.failure())
        assert result["data"] == {"name": "tinies", "digest": digest}
    probe, generate = done["probe"].result(), done["generate"].result()
    assert probe is not None
    assert generate is not None
    assert {"acc_3shot", "latent_acc_3shot"} <= set(probe["metrics"])
    assert probe["metrics"]["latent_acc_3shot"] > 0.9  # red or blue
    assert {"fd_efficientnet_lite0", "floor_fd_efficientnet_lite0"} <= set(generate["metrics"])
    assert generate["metrics"]["fd_efficientnet_lite0"] > generate["metrics"]["floor_fd_efficientnet_lite0"]


@pytest.mark.slow
def test_a_stopped_and_resumed_training_has_the_same_bits(done: dict[str, RunDir], root: Path, tmp_path: Path) -> None:
    spec = trial().specs["pretrain"]
    parts = RunDir(tmp_path, spec.key)
    parts.prepare(spec)
    for _ in range(2):
        steps = itertools.count()
        run_stage(tmp_path, spec.key, root, stop=lambda steps=steps: next(steps) >= 3)
        assert stage_state(parts) is StageState.INTERRUPTED
    run_stage(tmp_path, spec.key, root)
    whole = load_snapshot(done["pretrain"], 160)
    for name, value in load_snapshot(parts, 160).items():
        assert torch.equal(value, whole[name]), name


@pytest.mark.slow
def test_samples_are_rgb_pictures_at_any_batch_size_of_decoding(done: dict[str, RunDir], root: Path, tmp_path: Path) -> None:
    run, pictures = done["finetune"], []
    for batch in (10, 3):
        out = tmp_path / f"{batch}.png"
        settings = GenerateStage(parent="run", n=10, steps=2, extractor="none", batch=batch)
        draw_samples(run.root, run.key, out, settings, 0, data_root=root)
        pictures.append(np.asarray(Image.open(out)).astype(int))
    assert pictures[0].shape[2] == 3
    assert np.abs(pictures[0] - pictures[1]).max() <= 1
    assert pictures[0].std() > 1
    grid = np.asarray(Image.open(done["generate"].artifacts / "samples.png"))
    assert grid.shape[2] == 3


@pytest.mark.slow
def test_an_evaluation_by_hand_does_not_clip_latents(done: dict[str, RunDir]) -> None:
    run = done["finetune"]
    generate = evaluation_trial(run.root, run.key, []).specs["generate"].stage
    assert isinstance(generate, GenerateStage)
    assert not generate.clip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "stages.pretrain.augment.crop_area_min=0.8",
            r"pretrain\.augment\.crop_area_min = 0\.8 .* expected 1 on latents",
        ),
        ("stages.generate.clip=true", r"stages\.generate\.clip = True .* latents are not bounded"),
        ("model.patch=3", r"model\.patch = 3 .* divisor of the image size 8"),
        ("data.size=15", r"data\.size = 15 .* multiple of 2"),
        ("data.vae=any", r"data\.vae = 'any' .* a name that ends in -f<factor>c<channels>"),
    ],
)
def test_options_that_latents_cannot_have_are_refused(change: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_trials([trial(change)])


def test_the_error_names_missing_images_and_the_command_that_packs_them(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tinies-16-vae-f2c4-v1\.2 is missing; `umd-bench data pack tinies"):
        prepare_data([trial()], tmp_path)


def test_latents_of_two_vaes_with_one_name_are_refused(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "others", TINIES.__class__(**{**vars(TINIES), "name": "others"}))
    pack_small(root, write_vae(tmp_path / "vae", seed=1), name="others")
    small = trial("stages.probe.data={name: others}")
    check_trials([small])
    with pytest.raises(UserError, match="hold latents of two VAEs under one name, vae-f2c4"):
        prepare_data([small], root)


def test_a_trial_on_images_needs_no_latents(root: Path) -> None:
    small = load_trial("umd", sets=[*SMALL[1:], f"data={{name: tinies, size: {SIZE}}}", "stages.generate.clip=true"])
    check_trials([small])
    assert prepare_data([small], root)[small.config.data] == open_pack("tinies", root, size=SIZE).manifest.digest
