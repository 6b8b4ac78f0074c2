"""Published weights become a run that other verbs accept like a trained one; a mistake gives a one-line error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from engine.published.published_files import dit_state, mae_state
from orchestration.small import write_small

from umd_bench.config.errors import UserError
from umd_bench.config.sweep.resolve import Trial, load_sweep, load_trial
from umd_bench.config.trial.generate_stage import GenerateStage
from umd_bench.config.trial.model import ModelConfig
from umd_bench.config.trial.train_stage import ImportStage
from umd_bench.data.packs.manifest import data_root
from umd_bench.engine.networks.initialise import build_model
from umd_bench.engine.published.small_vision_conversion import to_official
from umd_bench.engine.training.snapshot import load_snapshot
from umd_bench.orchestration.launch import Site, prepare
from umd_bench.orchestration.preflight import check_trials
from umd_bench.orchestration.runs.evaluate import evaluation_trial
from umd_bench.orchestration.runs.import_weights import import_trial, next_steps
from umd_bench.orchestration.runs.sample import draw_samples
from umd_bench.orchestration.stage_process.run_stage import run_stage
from umd_bench.store import RunDir, StageState, stage_state

MODEL = ModelConfig(patch=2, width=16, depth=1, decoder_depth=1, heads=2)


def official_file(folder: Path, *, classes: int = 10, model: ModelConfig = MODEL) -> Path:
    path = folder / "official.npz"
    state = build_model(model, size=8, channels=1, classes=classes, seed=3).state_dict()
    np.savez(path, **to_official(state, model.heads))
    return path


def dit_file(folder: Path) -> Path:
    torch.save(dit_state(), folder / "dit.pt")
    return folder / "dit.pt"


def mae_file(folder: Path) -> Path:
    torch.save({"model": mae_state(width=48, patch=16, size=64)}, folder / "mae.pth")
    return folder / "mae.pth"


def run(results: Path, trial: Trial, *, stages: tuple[str, ...] | None = None) -> dict[str, RunDir]:
    """Check everything, then run the stages."""
    prepare([trial], Site(results, data_root(), "inline"))
    runs = {}
    for name, spec in trial.specs.items():
        if stages is None or name in stages:
            runs[name] = RunDir(results, spec.key)
            runs[name].prepare(spec)
            run_stage(results, spec.key, data_root())
            assert stage_state(runs[name]) is StageState.DONE, runs[name].failure()
    return runs


def metrics(folder: RunDir) -> dict[str, float]:
    result = folder.result()
    assert result is not None
    return dict(result["metrics"])


def test_official_weights_are_evaluated_and_sampled(tmp_path: Path) -> None:
    trial, _ = import_trial(official_file(tmp_path), "small-vision", nimg=500, sees_clean=True)
    imported = run(tmp_path, trial)["import"]
    result = imported.result()
    assert result is not None
    stage = trial.config.stages["import"]
    assert isinstance(stage, ImportStage)
    assert result["facts"]["layout"] == "small-vision"
    assert result["facts"]["sha256"] == stage.sha256
    assert result["facts"]["parameters"] == sum(value.numel() for value in load_snapshot(imported, 500).values())
    sets = ["probe.shots=[5]", "probe.draws=2", "generate.n=20", "generate.steps=2", "generate.cfg_scale=2"]
    evaluated = run(tmp_path, evaluation_trial(tmp_path, imported.key[:6], sets))
    assert evaluated["import"].key == imported.key
    assert imported.attempts() == [1]
    assert 0 <= metrics(evaluated["probe"])["acc_5shot"] <= 1
    assert {"fd_digits_cnn", "accuracy_digits_cnn"} <= metrics(evaluated["generate"]).keys()
    settings = GenerateStage(parent="run", n=10, steps=2, extractor="none")
    draw_samples(tmp_path, imported.key, tmp_path / "grid.png", settings, 0, data_root=data_root())
    assert (tmp_path / "grid.png").stat().st_size > 100


def test_imported_weights_equal_the_weights_that_the_file_was_written_from(tmp_path: Path) -> None:
    trial, _ = import_trial(official_file(tmp_path), "small-vision", nimg=500, sees_clean=True)
    weights = load_snapshot(run(tmp_path, trial)["import"], 500)
    expected = build_model(MODEL, size=8, channels=1, classes=10, seed=3).state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], value) for name, value in expected.items())


def test_a_published_dit_is_probed_on_noised_images_and_sampled_with_guidance(tmp_path: Path) -> None:
    trial, notes = import_trial(dit_file(tmp_path), "dit", nimg=500, heads=3)
    assert any("variance" in note for note in notes)
    imported = run(tmp_path, trial)["import"]
    sets = ["probe.shots=[5]", "probe.draws=2", "generate.n=20", "generate.steps=2", "generate.cfg_scale=2"]
    evaluation = evaluation_trial(tmp_path, imported.key, sets)
    assert evaluation.specs["probe"].stage.t == 51  # type: ignore[union-attr]
    runs = run(tmp_path, evaluation)
    result = runs["probe"].result()
    assert result is not None
    assert result["facts"]["probe_position"] == "mean of patch tokens after the last block"
    assert "accuracy_digits_cnn" in metrics(runs["generate"])
    clean = evaluation_trial(tmp_path, imported.key, ["probe.t=0"])
    with pytest.raises(UserError, match="no input for clean images"):
        check_trials([clean])


def test_a_published_mae_is_probed_and_not_sampled(tmp_path: Path) -> None:
    trial, _ = import_trial(mae_file(tmp_path), "mae", nimg=500, heads=3)
    assert trial.config.data.name == "emoji64"
    check_trials([trial])
    spec = trial.specs["import"]
    folder = RunDir(tmp_path, spec.key)
    folder.prepare(spec)
    (folder.path / "result.json").write_text("{}")  # as if it had run
    assert set(evaluation_trial(tmp_path, spec.key, []).specs) == {"import", "probe"}
    with pytest.raises(UserError, match="family mae, which has no sampler"):
        evaluation_trial(tmp_path, spec.key, ["generate.n=10"])
    assert not any("sample" in command for command in next_steps(trial, spec.key))


def test_a_moved_file_is_the_same_run_and_other_bytes_are_another(tmp_path: Path) -> None:
    path = official_file(tmp_path)
    first, _ = import_trial(path, "small-vision", nimg=500, sees_clean=True)
    run(tmp_path, first)
    moved = path.rename(tmp_path / "moved.npz")
    again, _ = import_trial(moved, "small-vision", nimg=500, sees_clean=True)
    assert again.specs["import"].key == first.specs["import"].key
    prepare([first], Site(tmp_path, data_root(), "inline"))  # the file has moved, but its result remains
    with np.load(moved) as file:
        np.savez(moved, **{name: file[name] + 1 for name in file.files})
    other, _ = import_trial(moved, "small-vision", nimg=500, sees_clean=True)
    assert other.specs["import"].key != first.specs["import"].key


def replaced(stage: str, *sets: str) -> Trial:
    return load_trial("umd", sets=[f"stages.pretrain={stage}", *sets])


def test_a_sweep_file_can_import_weights_in_place_of_training_and_all_seeds_share_them(tmp_path: Path) -> None:
    path = official_file(tmp_path, classes=0)
    imported, _ = import_trial(path, "small-vision", nimg=500, sees_clean=True)
    stage = imported.config.stages["import"]
    assert isinstance(stage, ImportStage)
    text = write_small(tmp_path).read_text()
    trained = "pretrain: {nimg: 640, batch: 64, checkpoint_every_nimg: 64}"
    named = f"pretrain: {{kind: import, layout: small-vision, file: {path}, sha256: '{stage.sha256}', nimg: 500}}"
    text = text.replace(trained, named).replace(
        "stages.pretrain.corruption.mask_ratio: [0.25, 0.5]", "noise.schedule: [cosine]"
    )
    assert named in text
    trials = load_sweep(write_small(tmp_path, text)).trials
    assert len(trials) == 2
    assert trials[0].specs["pretrain"].key == trials[1].specs["pretrain"].key == imported.specs["import"].key
    assert trials[0].specs["finetune"].key != trials[1].specs["finetune"].key
    runs = run(tmp_path, trials[0])
    assert {"pretrain", "probe", "finetune", "finetune_probe", "generate"} == set(runs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha256": "0" * 64}, "is another file"),
        ({"classes": 7}, r"stages.pretrain.classes = 7 is not accepted: expected 0, or the 10 classes"),
        ({"classes": 0}, r"stages.pretrain.classes = 0 is not accepted: the weights .* have 10 classes"),
        ({"layout": "mae"}, r"model.family = 'umd' is not accepted: expected mae"),
        (
            {"layout": "open-clip"},
            r"stages.pretrain.layout = 'open-clip' is not accepted: expected one of dit, mae, small-vision",
        ),
        ({"pool": "patches"}, r"stages.pretrain.pool = 'patches' is not accepted"),
        ({"file": "nowhere.npz"}, "nowhere.npz cannot be read"),
    ],
)
def test_a_stage_that_does_not_fit_its_file_is_refused_before_anything_starts(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    imported, _ = import_trial(official_file(tmp_path), "small-vision", nimg=500, sees_clean=True)
    stage = imported.config.stages["import"].model_dump(mode="json") | change
    model = "model={patch: 2, width: 16, depth: 1, decoder_depth: 1, heads: 2}"
    with pytest.raises(UserError, match=message):
        prepare([replaced(str(stage).replace("None", "null"), model)], Site(tmp_path / "results", data_root(), "inline"))
    assert not (tmp_path / "results").exists()


def test_a_model_that_differs_from_the_files_is_refused(tmp_path: Path) -> None:
    imported, _ = import_trial(official_file(tmp_path), "small-vision", nimg=500, sees_clean=True)
    stage = str(imported.config.stages["import"].model_dump(mode="json")).replace("None", "null")
    trial = replaced(stage, "model={patch: 2, width: 16, depth: 2, decoder_depth: 1, heads: 2}")
    with pytest.raises(UserError, match=r"model.depth = 2 is not accepted: the weights of .*official.npz have 1"):
        prepare([trial], Site(tmp_path / "results", data_root(), "inline"))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            "stages.finetune={kind: finetune, parent: import, nimg: 64, batch: 8, corruption: {r_t0: 0}}",
            r"model.family = 'dit' is not accepted: only the family umd can be trained",
        ),
        ("noise.schedule=cosine", r"noise.schedule = 'cosine' is not accepted: expected linear with timesteps = 1000"),
        ("stages.import.sees_clean=true", r"stages.import.sees_clean = True is not accepted"),
        ("model.decoder_depth=1", "expected 0, which the family dit has"),
    ],
)
def test_a_published_architecture_cannot_be_trained_or_changed(tmp_path: Path, option: str, message: str) -> None:
    def check() -> None:
        trial, _ = import_trial(dit_file(tmp_path), "dit", nimg=500, heads=3, sets=[option])
        check_trials([trial])

    with pytest.raises(UserError, match=message):
        check()


def test_a_generate_stage_of_an_imported_mae_is_refused(tmp_path: Path) -> None:
    generate = "stages.generate={kind: generate, parent: import, n: 10, extractor: emoji_cnn}"
    trial, _ = import_trial(mae_file(tmp_path), "mae", nimg=500, heads=3, sets=[generate])
    with pytest.raises(UserError, match=r"stages.generate.parent = 'import' is not accepted: the family mae has no sampler"):
        check_trials([trial])


def test_facts_that_the_file_does_not_hold_are_requested(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give --clean or --no-clean"):
        import_trial(official_file(tmp_path), "small-vision", nimg=500)
    with pytest.raises(UserError, match=r"take 8 x 8 images of 1 channels and 7 classes; data sets that fit: none"):
        import_trial(official_file(tmp_path, classes=7), "small-vision", nimg=500, sees_clean=True)
    with pytest.raises(UserError, match=r"--data = 'emoji64' is not accepted: .* data sets that fit: digits"):
        import_trial(official_file(tmp_path), "small-vision", nimg=500, sees_clean=True, data="emoji64")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--from", "small-vision", "--clean"], "run "),
        (["--from", "open-clip"], "expected one of dit, mae, small-vision"),
        (["--from", "mae"], "'patch_embed.proj.weight' is missing"),
        (["--from", "small-vision", "--clean", "--heads", "3"], "attention kernels have 2"),
        (["--from", "small-vision", "--clean", "--pool", "max"], "stages.import.pool = 'max'"),
        (["--from", "small-vision", "--clean", "--data", "mnist"], "mnist"),
    ],
)
def test_a_mistake_in_the_command_gives_one_line_and_exit_code_2(tmp_path: Path, options: list[str], message: str) -> None:
    command = [
        sys.executable,
        "-c",
        "from umd_bench.cli import main; main()",
        "import",
        str(official_file(tmp_path)),
        "--nimg",
        "9",
    ]
    done = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    if message == "run ":
        assert done.returncode == 0, done.stderr
        key = next((tmp_path / "results" / "stages").iterdir()).name
        for verb in ("evaluate", "sample", "export"):
            assert f"umd-bench {verb} {key}" in done.stdout
        return
    assert done.returncode == 2, done.stdout + done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert message in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["official.npz"]
