"""What a person calls a run: its key, the beginning of it, or the trial it belongs to."""

from __future__ import annotations

from pathlib import Path

import pytest
from orchestration.small import write_small

from umd_bench.config.errors import UserError
from umd_bench.config.sweep.resolve import Trial, load_sweep
from umd_bench.config.trial.generate_stage import GenerateStage
from umd_bench.config.trial.probe_stage import ProbeStage
from umd_bench.orchestration.graph import sweep_record
from umd_bench.orchestration.monitor.status import status_table
from umd_bench.orchestration.runs.evaluate import Followed, evaluation_trial, find_run, sweeps_stages
from umd_bench.store import RunDir, write_sweep

TRIAL = "mask_ratio=0.25,seed=0"


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    """The first of the sweep small's, pre-trained, fine-tuned and probed as far as the store knows; nothing else has begun."""
    sweep = load_sweep(write_small(tmp_path), sets=("seeds=[0]",))
    write_sweep(tmp_path, sweep_record(sweep))
    for name in ("pretrain", "probe", "finetune"):
        run = RunDir(tmp_path, sweep.trials[0].specs[name].key)
        run.prepare(sweep.trials[0].specs[name])
        with run.begin() as attempt:
            attempt.finish({"kind": sweep.trials[0].specs[name].kind, "metrics": {}, "cost": {"seconds": 1.0}})
    return sweep.trials[0]


@pytest.mark.parametrize(
    ("what", "stage"),
    [
        (TRIAL, "finetune"),
        (f"small/{TRIAL}", "finetune"),
        (f"{TRIAL}:pretrain", "pretrain"),
        (f"small/{TRIAL}:finetune", "finetune"),
        ("mask_ratio=0.25", "finetune"),
    ],
)
def test_a_trial_is_its_last_weights_or_those_after_the_colon(tmp_path: Path, trial: Trial, what: str, stage: str) -> None:
    assert find_run(tmp_path, what).key == trial.specs[stage].key
    assert find_run(tmp_path, trial.specs[stage].key[:10]).key == trial.specs[stage].key


@pytest.mark.parametrize(
    ("what", "part"),
    [
        ("nosuch", "no run and no trial"),
        ("nosuch:pretrain", "'nosuch:pretrain' is not accepted: no run and no trial"),
        (f"{TRIAL}:probe", "expected one of finetune, pretrain after the colon"),
        ("mask_ratio=0", "2 trials begin with it"),
        ("mask_ratio=0.5,seed=0", "no training of the trial has begun"),
        ("probe", "it is a probe stage, expected a pretrain, finetune or import stage"),
    ],
)
def test_what_is_no_run_with_weights_is_one_sentence(tmp_path: Path, trial: Trial, what: str, part: str) -> None:
    with pytest.raises(UserError, match=r"^RUN = ") as error:
        find_run(tmp_path, trial.specs[what].key if what in trial.specs else what)
    assert part in str(error.value)


def test_status_shows_the_keys_that_other_verbs_take(tmp_path: Path, trial: Trial) -> None:
    keys = [str(cell) for cell in status_table(tmp_path, "small", keys=True).columns[2].cells]
    assert keys[:5] == [spec.key for spec in trial.specs.values()]


@pytest.fixture
def generated(tmp_path: Path, trial: Trial) -> Trial:
    """The trial, with samples drawn of its fine-tuning by ddim."""
    spec = trial.specs["generate"]
    RunDir(tmp_path, spec.key).prepare(spec)
    return trial


def test_a_trial_whose_last_training_has_not_begun_is_no_run(tmp_path: Path) -> None:
    sweep = load_sweep(write_small(tmp_path), sets=("seeds=[0]",))
    write_sweep(tmp_path, sweep_record(sweep))
    with pytest.raises(UserError, match="no training of the trial has begun"):
        find_run(tmp_path, f"{TRIAL}:pretrain")
    spec = sweep.trials[0].specs["pretrain"]
    run = RunDir(tmp_path, spec.key)
    run.prepare(spec)
    with run.begin() as attempt:
        attempt.finish({"kind": "pretrain", "metrics": {}, "cost": {"seconds": 1.0}})
    assert find_run(tmp_path, f"{TRIAL}:pretrain").key == spec.key
    with pytest.raises(UserError, match=f"its finetune has not begun; {TRIAL}:pretrain is what there is"):
        find_run(tmp_path, TRIAL)


def test_an_evaluation_is_what_the_sweep_does_with_the_run_and_so_its_result(tmp_path: Path, generated: Trial) -> None:
    for trained, kind in (("pretrain", "probe"), ("finetune", "generate")):
        key = generated.specs[trained].key
        followed = sweeps_stages(tmp_path, key)
        assert {name: one.trial for name, one in followed.items()} == {kind: f"small/{TRIAL}"}
        evaluation = evaluation_trial(tmp_path, key, [], followed=followed)
        assert evaluation.specs[kind].key == generated.specs[kind].key
        changed = evaluation_trial(tmp_path, key, ["probe.ridge=7", "generate.steps=5"], followed=followed)
        assert changed.specs[kind].key != generated.specs[kind].key


def test_what_is_set_by_hand_wins_over_what_an_evaluation_follows(tmp_path: Path, generated: Trial) -> None:
    pretrained, tuned = generated.specs["pretrain"].key, generated.specs["finetune"].key
    full = evaluation_trial(tmp_path, pretrained, ["probe.protocol=full"], followed=sweeps_stages(tmp_path, pretrained))
    probe = full.specs["probe"].stage
    assert isinstance(probe, ProbeStage)
    assert probe.shots == (1, 5, 10, 100)
    assert probe.linear is not None
    followed = sweeps_stages(tmp_path, tuned)
    drawn = evaluation_trial(tmp_path, tuned, ["generate.sampler=heun"], followed=followed).specs["generate"].stage
    assert isinstance(drawn, GenerateStage)
    assert (drawn.sampler, drawn.eta, drawn.steps) == ("heun", None, 3)
    profiled = evaluation_trial(tmp_path, tuned, [], ["umd-paper"], followed).specs["generate"].stage
    assert isinstance(profiled, GenerateStage)
    assert profiled.steps != 3


def test_another_reference_file_is_not_taken_for_the_one_of_the_sweep(tmp_path: Path, generated: Trial) -> None:
    tuned = generated.specs["finetune"].key
    fields = {"reference": "a.npz", "reference_sha256": "a" * 64, "extractor": "inception-v3-compat"}
    followed = {"generate": Followed("small/x", {**fields, "n": 20, "steps": 3})}
    stage = evaluation_trial(tmp_path, tuned, ["generate.reference=test"], followed=followed).specs["generate"].stage
    assert isinstance(stage, GenerateStage)
    assert (stage.reference, stage.reference_sha256) == ("test", None)


def test_where_trials_differ_in_what_they_do_with_a_run_an_evaluation_follows_none(tmp_path: Path, trial: Trial) -> None:
    other = load_sweep(write_small(tmp_path), sets=("seeds=[0]", "name=other", "trial.stages.probe.ridge=7"))
    write_sweep(tmp_path, sweep_record(other))
    probe = other.trials[0].specs["probe"]
    RunDir(tmp_path, probe.key).prepare(probe)
    assert probe.parent_key == trial.specs["pretrain"].key
    assert sweeps_stages(tmp_path, trial.specs["pretrain"].key) == {}


def test_a_run_that_nothing_reads_is_evaluated_by_the_defaults(tmp_path: Path, trial: Trial) -> None:
    key = trial.specs["finetune"].key
    assert sweeps_stages(tmp_path, key) == {}
    stage = evaluation_trial(tmp_path, key, []).specs["generate"].stage
    assert isinstance(stage, GenerateStage)
    assert (stage.n, stage.steps) == (500, 50)
