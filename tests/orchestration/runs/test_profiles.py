"""Each profile becomes a generate stage of an evaluation, and options override its fields.

A score that the extractor cannot give is left out with a note if a profile asks for it, and refused if an option does.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from evaluation.small_parents import parent_run

from umd_bench.config.documents.document import Document
from umd_bench.config.documents.presets import load_profile, profile_names
from umd_bench.config.documents.validation import validate
from umd_bench.config.errors import UserError
from umd_bench.config.trial.generate_stage import GenerateStage
from umd_bench.orchestration.preflight import check_trials
from umd_bench.orchestration.runs.evaluate import evaluation_trial, left_out_notes
from umd_bench.store import RunDir
from umd_bench.store.files import write_json


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A finished run of untrained weights."""
    parent = parent_run(tmp_path)
    write_json(parent.path / "result.json", {"metrics": {}})
    return parent


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_is_a_generate_stage_without_parent_and_extractor(name: str) -> None:
    stage = validate(GenerateStage, Document({"parent": "p", "extractor": "x"}).over(load_profile(name)))
    assert {"fd", "is"} <= set(stage.scores)
    assert (stage.n, stage.reference) == {"umd-paper": (10_000, "test"), "adm-50k": (50_000, "train")}[name]


def test_a_profile_is_the_generate_stage_and_options_override_it(run: RunDir) -> None:
    trial = evaluation_trial(run.root, run.key, ["generate.cfg_scale=2"], ["umd-paper"])
    stage = trial.specs["generate"].stage
    assert isinstance(stage, GenerateStage)
    assert (stage.n, stage.steps, stage.sampler, stage.cfg_scale) == (10_000, 125, "ddim-official", 2)
    assert stage.scores == ("fd", "fd_inf", "is")
    assert list(left_out_notes(trial, ["umd-paper"])) == []


def test_each_of_several_profiles_has_its_own_stage(run: RunDir) -> None:
    profiles = ["umd-paper", "adm-50k"]
    trial = evaluation_trial(run.root, run.key, ["generate.steps=10"], profiles)
    assert set(trial.specs) == {"pretrain", "probe", "generate_umd_paper", "generate_adm_50k"}
    assert [trial.specs[f"generate_{name}"].stage.n for name in ("umd_paper", "adm_50k")] == [10_000, 50_000]
    check_trials([trial])
    assert list(left_out_notes(trial, profiles)) == [
        "adm-50k is scored without sfid: digits_cnn has no spatial features, only inception-v3-compat has"
    ]


def test_an_explicit_sfid_without_spatial_features_is_refused(run: RunDir) -> None:
    trial = evaluation_trial(run.root, run.key, ["generate.scores=[fd, sfid]"])
    with pytest.raises(UserError, match=r"stages\.generate\.scores = 'sfid' is not accepted: only inception-v3-compat"):
        check_trials([trial])


def test_an_unknown_profile_is_refused_with_the_valid_names(run: RunDir) -> None:
    with pytest.raises(UserError, match="--profile 'fid50k' is not accepted: expected one of adm-50k, umd-paper"):
        evaluation_trial(run.root, run.key, [], ["fid50k"])
