"""A probe of a data set that the model was not trained on has its own key, result and column."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from orchestration.small import SMALL, write_small
from rich.console import Console

from umd_bench.config.errors import UserError
from umd_bench.config.sweep.resolve import load_sweep, load_trial
from umd_bench.data.builtin.digits import read as read_digits
from umd_bench.data.datasets import DATASETS, DatasetInfo, Splits
from umd_bench.data.open_data import open_pack
from umd_bench.data.packs.manifest import data_root
from umd_bench.orchestration.graph import sweep_record
from umd_bench.orchestration.launch import Site, execute, prepare
from umd_bench.orchestration.preflight import check_trials
from umd_bench.orchestration.scheduler import Scheduler
from umd_bench.orchestration.trial_source import Grid
from umd_bench.reporting.frames.sweep_frames import long_frame
from umd_bench.reporting.statistics.summary import summarize
from umd_bench.store import RunDir, write_sweep

OTHER = SMALL.replace(
    "    probe: {shots: [5], draws: 2}\n",
    "    probe: {shots: [5], draws: 2}\n"
    "    parity: {kind: probe, parent: pretrain, data: {name: parity}, shots: [5], draws: 2, ridge: 10}\n",
).replace("seeds: [0, 1]", "seeds: [0]\nstages: [probe, parity]")


def read_parity(folder: Path | None) -> Splits:
    """The digits' images with two classes: even and odd."""
    return {split: (images, np.asarray(labels % 2)) for split, (images, labels) in read_digits(None).items()}


@pytest.fixture(autouse=True)
def _a_second_small_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "parity", DatasetInfo("parity", 1, 8, 1, ("even", "odd"), "none", read_parity))


def test_a_model_is_probed_on_another_data_set_in_a_column_of_its_own(tmp_path: Path) -> None:
    root = tmp_path / "results"
    sweep = load_sweep(write_small(tmp_path, OTHER))
    site = Site(root, data_root(), "inline", 1)
    nodes = prepare(sweep.trials, site)
    assert execute(Scheduler(root, Grid(nodes)), site, Console(quiet=True)).complete
    specs = sweep.trials[0].specs
    assert specs["parity"].parent_key == specs["probe"].parent_key == specs["pretrain"].key
    result = RunDir(root, specs["parity"].key).result()
    assert result is not None
    assert result["data"] == {"name": "parity", "digest": open_pack("parity", data_root()).manifest.digest}
    assert result["facts"]["images_5shot"] == 10  # 5 of each of two classes
    assert result["metrics"]["acc_5shot"] > 0.5
    prepare(sweep.trials, site)  # accepts the results, since it compares the digest of the probed data set

    write_sweep(root, sweep_record(sweep))
    frame = long_frame(root, "small")
    assert set(frame[frame["stage"] == "parity"]["data"]) == {"parity"}
    assert set(frame[frame["stage"] == "probe"]["data"]) == {"digits"}
    summary = summarize(root, "small")
    assert [column.header for column in summary.columns] == ["probe 5-shot % ↑", "parity 5-shot % ↑"]
    assert any(note.startswith("parity: ") and "data parity; data digest" in note for note in summary.notes)


def test_naming_the_trials_own_data_set_does_not_change_the_key() -> None:
    keys = {load_trial("umd", sets=[f"stages.probe.data={data}"]).specs["probe"].key for data in ("null", "{name: digits}")}
    assert len(keys) == 1
    assert load_trial("umd", sets=["stages.probe.data={name: parity}"]).specs["probe"].key not in keys


def test_a_data_set_without_a_size_is_probed_at_the_trials_size() -> None:
    trial = load_trial("umd", tier="imagenet256_latent", sets=["stages.probe.data={name: food101}"])
    check_trials([trial])
    assert trial.specs["probe"].input_data.model_dump() == {"name": "food101", "size": 256, "vae": "sd-vae-ft-ema"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{name: fashion_mnist}", r"stages\.probe\.data\.name = 'fashion_mnist' .* images of 1x32x32, but the model .* 1x8x8"),
        ("{name: mnist}", r"stages\.probe\.data\.name = 'mnist' is not accepted: expected one of"),
        ("{name: cifar100, size: 32}", r"stages\.probe\.data\.name = 'cifar100' .* images of 3x32x32, .* for 1x8x8"),
    ],
)
def test_a_data_set_that_does_not_fit_the_model_is_refused(data: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_trials([load_trial("umd", sets=[f"stages.probe.data={data}"])])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("block=5", r"stages\.probe\.block = 5 is not accepted: expected 1\.\.4, the encoder's blocks"),
        ("pool=mean", r"stages\.probe\.pool = 'mean' is not accepted: expected class, first_class or patches"),
        ("shots=[]", r"stages\.probe\.shots: \[\] leaves nothing to measure: expected shots, knn or linear"),
        ("ridge=[]", r"stages\.probe\.ridge: \[\] is not accepted: expected a number above 0, or a list of such numbers"),
        ("ridge=0", r"stages\.probe\.ridge: 0\.0 is not accepted: expected a number above 0, or a list of such numbers"),
        ("ridge=[1, -1]", r"stages\.probe\.ridge: \[1\.0, -1\.0\] is not accepted: expected a number above 0"),
        ("linear={lr: 3}", r"unknown field stages\.probe\.linear\.lr: .*expected one of lr_per_256, batch"),
        ("linear={lr_per_256: []}", r"stages\.probe\.linear\.lr_per_256 = \[\] is not accepted"),
        ("linear={epochs: 5}", r"stages\.probe\.linear\.warmup_epochs: 5 is not accepted: expected less than epochs = 5"),
        ("knn=[0]", r"stages\.probe\.knn\.0 = 0 is not accepted"),
    ],
)
def test_the_error_names_an_invalid_probe_option_and_the_accepted_values(option: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_trials([load_trial("umd", sets=[f"stages.probe.{option}"])])
