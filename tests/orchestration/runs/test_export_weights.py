"""An export loads in another process and names its source. A failed export leaves nothing, and no file is overwritten."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from engine.published.published_files import dit_state
from evaluation.small_parents import MODEL, NIMG, SHARED, TRAINED, parent_run

from umd_bench.config.errors import UserError
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.config.trial.train_stage import CorruptionConfig
from umd_bench.data.datasets import dataset_info
from umd_bench.data.packs.manifest import data_root
from umd_bench.engine.networks.initialise import build_model
from umd_bench.engine.training.snapshot import load_snapshot, publish_snapshot, restore_model
from umd_bench.orchestration.runs import export_weights
from umd_bench.orchestration.runs.export_weights import export_run
from umd_bench.orchestration.runs.import_weights import import_trial
from umd_bench.orchestration.stage_process.run_stage import run_stage
from umd_bench.store import RunDir

IMAGES = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
# Reads config.json without this project, and loads the weights in both of timm's ways.
READER = """\
import json, sys, timm, torch
folder, images = sys.argv[1], torch.load(sys.argv[2], weights_only=True)
config = json.load(open(folder + "/config.json"))
by_folder = timm.create_model("local-dir:" + folder, pretrained=True)
by_file = timm.create_model(config["architecture"], checkpoint_path=folder + "/model.safetensors", **config["model_args"])
given = [model.eval().forward_features(images)[:, :4].mean(1) for model in (by_folder, by_file)]
data = timm.data.resolve_model_data_config(by_folder)
assert [*data["mean"], *data["std"], *data["input_size"]] == [0.5, 0.5, 1, 8, 8], data
assert not any(name.startswith("umd_bench") for name in sys.modules)
torch.save(given, sys.argv[3])
"""


def finished(root: Path, **fields: object) -> RunDir:
    """A finished parent with a result."""
    run = parent_run(root, **fields)  # type: ignore[arg-type]
    write_result(run)
    return run


def write_result(run: RunDir) -> None:
    result = {"data": {"name": "digits", "digest": "d1"}, "environment": {"torch": "2", "umd_bench": "0", "commit": "c"}}
    (run.path / "result.json").write_text(json.dumps(result))


@pytest.mark.slow
@pytest.mark.parametrize("ema", [False, True])
def test_timm_loads_an_export_in_another_process(tmp_path: Path, ema: bool) -> None:
    run = finished(tmp_path)
    out, images, given = tmp_path / "out", tmp_path / "images.pt", tmp_path / "given.pt"
    export_run(tmp_path, run.key, "timm", out, ema=ema)
    torch.save(IMAGES, images)
    subprocess.run([sys.executable, "-c", READER, str(out), str(images), str(given)], cwd=tmp_path, check=True, timeout=120)
    model = restore_model(run, NIMG, source=dataset_info("digits"), ema=ema)
    expected = model.represent(IMAGES, torch.zeros(3, dtype=torch.int64))
    for representation in torch.load(given, weights_only=True):
        torch.testing.assert_close(representation, expected, rtol=1e-5, atol=1e-5)


def test_provenance_names_run_data_and_versions(tmp_path: Path) -> None:
    run = finished(tmp_path)
    export_run(tmp_path, run.key[:5], "timm", tmp_path / "out", ema=True)
    provenance = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert (provenance["run"], provenance["nimg"], provenance["ema"]) == (run.key, NIMG, True)
    assert provenance["data"]["digest"] == "d1"
    assert provenance["representation"].startswith("mean of class tokens: model.forward_features")
    assert {"timm", "torch", "umd_bench"} <= provenance["exported_with"].keys()


def test_exported_official_parameters_can_be_imported_again(tmp_path: Path) -> None:
    run = finished(tmp_path)
    out = tmp_path / "official.npz"
    export_run(tmp_path, run.key, "small-vision", out, ema=False)
    trial, _ = import_trial(out, "small-vision", nimg=NIMG, sees_clean=True)
    assert trial.config.model == MODEL
    spec = trial.specs["import"]
    back = RunDir(tmp_path, spec.key)
    back.prepare(spec)
    run_stage(tmp_path, spec.key, data_root())
    weights = load_snapshot(run, NIMG)
    assert all(torch.equal(value, weights[name]) for name, value in load_snapshot(back, NIMG).items())
    export_run(tmp_path, spec.key, "small-vision", tmp_path / "again.npz", ema=False)
    with np.load(out) as first, np.load(tmp_path / "again.npz") as second:
        assert set(first.files) == set(second.files)
        assert all(first[name].tobytes() == second[name].tobytes() for name in first.files)


def test_an_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    run = finished(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    (tmp_path / "mine.npz").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="expected a folder that is new or empty"):
        export_run(tmp_path, run.key, "timm", tmp_path / "full", ema=False)
    with pytest.raises(UserError, match="it exists"):
        export_run(tmp_path, run.key, "small-vision", tmp_path / "mine.npz", ema=False)
    export_run(tmp_path, run.key, "timm", tmp_path / "empty", ema=False)
    assert {path.name for path in (tmp_path / "empty").iterdir()} == {"config.json", "model.safetensors", "provenance.json"}


def test_an_export_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = finished(tmp_path)

    def full_disk(path: Path, value: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(export_weights, "write_json", full_disk)
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(OSError, match="no space"):
        export_run(tmp_path, run.key, "timm", tmp_path / "out", ema=False)
    assert {path.name for path in tmp_path.iterdir()} == before


def without_clean_images(root: Path) -> RunDir:
    spec = StageSpec(stage=TRAINED.model_copy(update={"corruption": CorruptionConfig(r_t0=0)}), seed=0, **SHARED)
    run = RunDir(root, spec.key)
    run.prepare(spec)
    with run.begin() as attempt:
        publish_snapshot(attempt, NIMG, build_model(MODEL, size=8, channels=1, classes=10, seed=0).state_dict(), None, {})
    write_result(run)
    return run


def imported_dit(root: Path) -> RunDir:
    torch.save(dit_state(), root / "dit.pt")
    trial, _ = import_trial(root / "dit.pt", "dit", nimg=500, heads=3)
    spec = trial.specs["import"]
    run = RunDir(root, spec.key)
    run.prepare(spec)
    run_stage(root, spec.key, data_root())
    return run


def test_a_run_that_cannot_be_exported_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="saw no clean image, so its representation at t = 0"):
        export_run(tmp_path, without_clean_images(tmp_path).key, "timm", tmp_path / "out", ema=False)
    dit = imported_dit(tmp_path).key
    with pytest.raises(UserError, match="the family dit cannot be written for timm"):
        export_run(tmp_path, dit, "timm", tmp_path / "out", ema=False)
    with pytest.raises(UserError, match="has the family dit: expected umd"):
        export_run(tmp_path, dit, "small-vision", tmp_path / "out.npz", ema=False)
    with pytest.raises(UserError, match="keeps no average"):
        export_run(tmp_path, dit, "timm", tmp_path / "out", ema=True)
    with pytest.raises(UserError, match=r"--to = 'onnx' is not accepted: expected one of small-vision, timm"):
        export_run(tmp_path, dit, "onnx", tmp_path / "out", ema=False)
    with pytest.raises(UserError, match=r"expected a file that ends in \.npz"):
        export_run(tmp_path, finished(tmp_path).key, "small-vision", tmp_path / "out", ema=False)
    assert not list(tmp_path.glob("*out*"))
