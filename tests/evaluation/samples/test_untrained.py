"""Samples from initial weights, and plain noise in place of samples, are scored as a generate stage scores its samples."""

from __future__ import annotations

from pathlib import Path

import pytest
from evaluation.small_parents import NIMG, SHARED, TRAINED, digits

from umd_bench.config.errors import UserError
from umd_bench.config.trial.generate_stage import GenerateStage
from umd_bench.config.trial.stage_spec import COMPONENT_VERSIONS, StageSpec
from umd_bench.data.packs.pack import Pack
from umd_bench.engine.networks.initialise import build_model
from umd_bench.engine.training.snapshot import publish_snapshot
from umd_bench.evaluation.samples import untrained
from umd_bench.evaluation.samples.generate_stage import run_generate
from umd_bench.evaluation.samples.untrained import noise_scores, untrained_scores
from umd_bench.store.run import RunDir

STAGE = GenerateStage(
    parent="pretrain", n=20, steps=3, cfg_scale=2, extractor="digits_cnn", scores=("fd", "accuracy"), ema=False, batch=8
)
METRIC = "fd_digits_cnn"
WEIGHTS = StageSpec(stage=TRAINED, seed=0, **SHARED)
SPEC = StageSpec(stage=STAGE, seed=0, parent_key=WEIGHTS.key, parent_nimg=NIMG, parent_labels=True, **SHARED)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pack() -> Pack:
    return digits()


def test_untrained_scores_are_those_of_a_stage_whose_parent_kept_its_initial_weights(pack: Pack, tmp_path: Path) -> None:
    parent = RunDir(tmp_path, WEIGHTS.key)
    parent.prepare(WEIGHTS)
    initial = build_model(WEIGHTS.model, size=8, channels=1, classes=10, seed=0).state_dict()
    with parent.begin() as attempt:
        publish_snapshot(attempt, NIMG, initial, None, {})
    run = RunDir(tmp_path, SPEC.key)
    run.prepare(SPEC)
    with run.begin() as attempt:
        metrics = run_generate(SPEC, parent, pack, attempt).metrics
    scores = untrained_scores(SPEC, WEIGHTS, pack, METRIC)
    assert (scores.distance, scores.accuracy) == (metrics["fd_digits_cnn"], metrics["accuracy_digits_cnn"])


def test_noise_is_far_from_real_images_and_mostly_classified_wrongly(pack: Pack) -> None:
    scores = noise_scores(SPEC, WEIGHTS, pack, METRIC)
    assert scores.distance > 5
    assert scores.accuracy is not None
    assert scores.accuracy < 0.5


def test_scores_are_computed_once_for_equal_models_and_anew_for_others(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = SPEC.model_copy(update={"stage": STAGE.model_copy(update={"n": 10, "steps": 2})})
    first = untrained_scores(spec, WEIGHTS, pack, METRIC)
    drawn: list[int] = []
    build = untrained.initial_model
    monkeypatch.setattr(untrained, "initial_model", lambda *args, **kwargs: (drawn.append(1), build(*args, **kwargs))[1])
    longer = WEIGHTS.model_copy(update={"stage": TRAINED.model_copy(update={"nimg": 2 * NIMG})})
    assert untrained_scores(spec, longer, pack, METRIC) == first
    assert not drawn
    other = WEIGHTS.model_copy(update={"seed": 1})
    assert untrained_scores(spec, other, pack, METRIC) != first
    assert drawn


@pytest.mark.parametrize("component", ["engine", "generate"])
def test_scores_of_another_version_of_the_code_are_not_reused(
    component: str, pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = SPEC.model_copy(update={"stage": STAGE.model_copy(update={"n": 10, "steps": 2})})
    untrained_scores(spec, WEIGHTS, pack, METRIC)
    drawn: list[int] = []
    build = untrained.initial_model
    monkeypatch.setattr(untrained, "initial_model", lambda *args, **kwargs: (drawn.append(1), build(*args, **kwargs))[1])
    monkeypatch.setitem(COMPONENT_VERSIONS, component, 1_000)
    untrained_scores(spec, WEIGHTS, pack, METRIC)
    assert drawn


def test_samples_without_labels_have_no_accuracy(pack: Pack) -> None:
    stage = STAGE.model_copy(update={"cfg_scale": 1.0, "n": 10, "steps": 2})
    unlabelled = WEIGHTS.model_copy(update={"stage": TRAINED.model_copy(update={"labels": False})})
    spec = SPEC.model_copy(update={"stage": stage, "parent_labels": False})
    assert untrained_scores(spec, unlabelled, pack, METRIC).accuracy is None
    assert noise_scores(spec, unlabelled, pack, METRIC).accuracy is None


def test_the_metric_names_the_extractor(pack: Pack) -> None:
    stage = STAGE.model_copy(update={"n": 10, "steps": 2, "extractor": "contrast16_cnn", "more_extractors": ("digits_cnn",)})
    spec = SPEC.model_copy(update={"stage": stage})
    assert untrained_scores(spec, WEIGHTS, pack, METRIC).accuracy is not None
    with pytest.raises(UserError, match="fid is the distance of none of the stage's extractors: contrast16_cnn, digits_cnn"):
        untrained_scores(spec, WEIGHTS, pack, "fid")


def test_other_kinds_of_stages_are_refused(pack: Pack) -> None:
    with pytest.raises(UserError, match="a pretrain stage draws nothing: expected a generate stage"):
        untrained_scores(WEIGHTS, WEIGHTS, pack, METRIC)
    with pytest.raises(UserError, match="a generate stage has no initial weights: expected a pretrain or finetune stage"):
        untrained_scores(SPEC, SPEC, pack, METRIC)
