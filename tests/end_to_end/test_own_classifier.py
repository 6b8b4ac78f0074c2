"""A user's own grey data set has its own classifier: found by name, hashed into the key, checked before anything runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from data.grey_pack import pack_of_digits
from rich.console import Console

from umd_bench.config.errors import UserError
from umd_bench.config.sweep.resolve import Trial, load_sweep, load_trial
from umd_bench.config.trial.stage_spec import reseeded
from umd_bench.evaluation.extractors.classifiers.training import TrainOptions, train_extractor
from umd_bench.orchestration.launch import Site, execute, prepare
from umd_bench.orchestration.preflight import check_trials
from umd_bench.orchestration.runs.evaluate import evaluation_trial
from umd_bench.orchestration.scheduler import Scheduler
from umd_bench.orchestration.search.rungs import checked_corners
from umd_bench.orchestration.stage_process.run_stage import Outcome, run_stage
from umd_bench.orchestration.trial_source import Grid
from umd_bench.store import RunDir

TRIAL = """
method: umd
data: {name: mine, size: 8}
model: {patch: 4, width: 16, depth: 1, decoder_depth: 1, heads: 2}
stages:
  pretrain: {nimg: 64, batch: 32, optim: {warmup_nimg: 16}}
  probe: null
  finetune: {nimg: 64, batch: 32, optim: {warmup_nimg: 16}}
  finetune_probe: null
  generate: {n: 20, steps: 2, extractor: mine_cnn, scores: [fd, accuracy]}
"""
SEARCH = """
name: own
question: Does a search find it too?
trial:
  method: umd
  data: {name: mine, size: 8}
  stages: {generate: {n: 20, steps: 2, extractor: mine_cnn, scores: [fd]}}
tier: digits
seeds: [0, 1]
search:
  trials: 2
  space: {stages.pretrain.optim.weight_decay: {low: 0.1, high: 0.2}}
  objectives: {generate.fd_mine_cnn: minimise}
  pruner: {kind: median, metric: generate.fd_mine_cnn, rungs: [0.5]}
"""


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with the grey pack ``mine`` and its classifier."""
    root = tmp_path_factory.mktemp("packs")
    pack_of_digits(root)
    train_extractor("mine", root, TrainOptions(size=8, epochs=1))
    return root


def trial(folder: Path, data_root: Path | None, *sets: str) -> Trial:
    (folder / "trial.yaml").write_text(TRIAL)
    return load_trial(str(folder / "trial.yaml"), tier="digits", sets=sets, data_root=data_root)


@pytest.fixture
def other_packs(packs: Path, tmp_path: Path) -> Path:
    """The same pack in another data root, with a classifier that was trained for longer."""
    root = tmp_path / "other"
    shutil.copytree(packs, root, ignore=shutil.ignore_patterns("extractors"))
    train_extractor("mine", root, TrainOptions(size=8, epochs=2))
    return root


def test_the_classifiers_hash_is_in_the_key_of_the_stage_that_uses_it_and_of_no_other(
    packs: Path, other_packs: Path, tmp_path: Path
) -> None:
    ours, theirs = trial(tmp_path, packs).specs, trial(tmp_path, other_packs).specs
    assert {name for name in ours if ours[name].key != theirs[name].key} == {"generate"}
    assert ours["generate"].identity()["extractors"].keys() == {"mine_cnn"}
    assert ours["generate"].key == trial(tmp_path, packs).specs["generate"].key
    (again,) = reseeded(ours, [1])
    assert again["generate"].key == trial(tmp_path, packs, "seed=1").specs["generate"].key
    general = [trial(tmp_path, root, "stages.generate.extractor=efficientnet_lite0") for root in (packs, other_packs)]
    assert general[0].specs["generate"].key == general[1].specs["generate"].key
    assert "extractors" not in general[0].specs["generate"].identity()


def test_a_search_finds_the_classifier_in_its_data_root(packs: Path, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(SEARCH)
    corner = checked_corners(load_sweep(tmp_path / "own.yaml", data_root=packs))[0]
    stages = [spec for spec in corner.specs.values() if spec.kind == "generate"]
    assert len(stages) == 2  # one of them at a rung
    for spec in stages:
        assert spec.extractor_sha256 == trial(tmp_path, packs).specs["generate"].extractor_sha256
    check_trials([corner], packs)


def test_a_classifier_that_is_missing_or_of_other_images_stops_a_trial_before_anything_runs(
    packs: Path, tmp_path: Path
) -> None:
    root = tmp_path / "other"
    pack_of_digits(root, shift=1)
    site = Site(tmp_path / "results", root, "inline", 1)
    how = "`umd-bench extractor train mine --size 8` trains it"
    with pytest.raises(UserError, match=rf"trial\.yaml:10: stages\.generate\.extractor = 'mine_cnn' is not accepted: .*{how}"):
        prepare([trial(tmp_path, root)], site)
    shutil.copytree(packs / "extractors", root / "extractors")
    with pytest.raises(UserError, match="mine_cnn was trained on another mine"):
        prepare([trial(tmp_path, root)], site)
    with pytest.raises(UserError, match="the trial was resolved without the data root of this classifier"):
        check_trials([trial(tmp_path, None)], packs)
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_samples_of_grey_images_are_scored_by_the_own_classifier_and_by_one_for_rgb(
    packs: Path, other_packs: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    made = trial(tmp_path, packs, "stages.generate.more_extractors=[efficientnet_lite0]")
    site = Site(results, packs, "inline", 1)
    assert execute(Scheduler(results, Grid(prepare([made], site))), site, Console(quiet=True)).complete
    generate = made.specs["generate"]
    result = RunDir(results, generate.key).result()
    assert result is not None
    assert {"fd_mine_cnn", "accuracy_mine_cnn", "fd_efficientnet_lite0"} <= result["metrics"].keys()
    assert "accuracy_efficientnet_lite0" not in result["metrics"]
    facts, of_rgb = result["facts"], result["facts"]["by_metric"]["fd_efficientnet_lite0"]
    assert facts["extractor_hash"] == generate.extractor_sha256["mine_cnn"]
    assert (facts["resize"], 0 < facts["extractor_accuracy"] < 1) == ("none", True)
    assert of_rgb["resize"] == "none, at the images' own side; grey repeated in three channels"
    assert of_rgb["extractor_accuracy"] is None
    evaluated = evaluation_trial(results, made.specs["finetune"].key, ["generate.n=30"], data_root=packs)
    assert evaluated.specs["generate"].extractor_sha256 == generate.extractor_sha256

    # The classifier was trained again after the stage was planned.
    shutil.copytree(other_packs / "extractors", packs / "extractors", dirs_exist_ok=True)
    later = RunDir(results, evaluated.specs["generate"].key)
    later.prepare(evaluated.specs["generate"])
    assert run_stage(results, later.key, packs) is Outcome.FAILED
    failure = later.failure()
    assert failure is not None
    assert "mine_cnn was trained again after this stage was planned" in failure.message
