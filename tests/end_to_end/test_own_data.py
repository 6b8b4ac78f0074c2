"""A user's own folder of pictures is packed, trained on, probed and exported, in any data root."""

from __future__ import annotations

from pathlib import Path

import pytest
from data.pictures import class_folders
from rich.console import Console

from umd_bench.config.errors import UserError
from umd_bench.config.sweep.resolve import load_trial
from umd_bench.data.packing.images import PackOptions, pack_data
from umd_bench.orchestration.launch import Site, execute, prepare
from umd_bench.orchestration.preflight import check_trials
from umd_bench.orchestration.runs.export_weights import export_run
from umd_bench.orchestration.scheduler import Scheduler
from umd_bench.orchestration.trial_source import Grid
from umd_bench.store import RunDir

TRIAL = """
method: umd
data: {name: pets, size: 8}
model: {patch: 2, width: 16, depth: 1, decoder_depth: 1, heads: 2}
stages:
  pretrain: {nimg: 64, batch: 16, optim: {warmup_nimg: 16}}
  probe: {shots: [2], draws: 2}
  finetune: null
  finetune_probe: null
  generate: null
"""


def test_a_folder_of_pictures_becomes_a_trained_probed_and_exported_model(tmp_path: Path) -> None:
    class_folders(tmp_path / "raw", {"cat": 12, "dog": 12})
    packs, results = tmp_path / "packs", tmp_path / "results"
    (tmp_path / "trial.yaml").write_text(TRIAL)
    trial = load_trial(str(tmp_path / "trial.yaml"), tier="digits", sets=[])
    site = Site(results, packs, "inline", 1)
    with pytest.raises(UserError, match=r"trial\.yaml:3: data\.name = 'pets' is not accepted"):
        prepare([trial], site)
    packed = pack_data("pets", tmp_path / "raw", packs, PackOptions(size=8, workers=1))
    assert execute(Scheduler(site.results, Grid(prepare([trial], site))), site, Console(quiet=True)).complete
    result = RunDir(results, trial.specs["probe"].key).result()
    assert result is not None
    assert result["data"] == {"name": "pets", "digest": packed.manifest.digest}
    assert result["metrics"]["acc_2shot"] > 0
    export_run(results, trial.specs["pretrain"].key, "timm", tmp_path / "timm", ema=False, data_root=packs)
    assert (tmp_path / "timm" / "model.safetensors").exists()
    with pytest.raises(UserError, match=r"data\.size = 16 .*expected one of 8, at which pets is packed below"):
        check_trials([load_trial(str(tmp_path / "trial.yaml"), tier="digits", sets=["data.size=16"])], packs)
