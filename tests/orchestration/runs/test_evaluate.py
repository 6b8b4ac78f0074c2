"""An evaluation of a run has the stages of the run's sweep; options and profiles change their fields."""

from __future__ import annotations

from pathlib import Path

import pytest
from orchestration.small import write_small

from umd_bench.config.sweep.resolve import Trial, load_sweep
from umd_bench.config.trial.generate_stage import GenerateStage
from umd_bench.config.trial.probe_stage import ProbeStage
from umd_bench.orchestration.graph import sweep_record
from umd_bench.orchestration.runs.evaluate import SweepStage, evaluation_trial, sweep_stages
from umd_bench.store import RunDir, write_sweep

TRIAL = "mask_ratio=0.25,seed=0"


@pytest.fixture
def generated(tmp_path: Path, trial: Trial) -> Trial:
    """The trial, with a run directory for the generate stage of its fine-tuning."""
    spec = trial.specs["generate"]
    RunDir(tmp_path, spec.key).prepare(spec)
    return trial


def test_an_evaluation_has_the_keys_of_the_sweeps_stages_and_so_reuses_their_results(tmp_path: Path, generated: Trial) -> None:
    for trained, kind in (("pretrain", "probe"), ("finetune", "generate")):
        key = generated.specs[trained].key
        defaults = sweep_stages(tmp_path, key)
        assert {name: one.trial for name, one in defaults.items()} == {kind: f"small/{TRIAL}"}
        evaluation = evaluation_trial(tmp_path, key, [], defaults=defaults)
        assert evaluation.specs[kind].key == generated.specs[kind].key
        changed = evaluation_trial(tmp_path, key, ["probe.ridge=7", "generate.steps=5"], defaults=defaults)
        assert changed.specs[kind].key != generated.specs[kind].key


def test_set_options_and_profiles_win_over_the_sweeps_fields(tmp_path: Path, generated: Trial) -> None:
    pretrained, tuned = generated.specs["pretrain"].key, generated.specs["finetune"].key
    full = evaluation_trial(tmp_path, pretrained, ["probe.protocol=full"], defaults=sweep_stages(tmp_path, pretrained))
    probe = full.specs["probe"].stage
    assert isinstance(probe, ProbeStage)
    assert probe.shots == (1, 5, 10, 100)
    assert probe.linear is not None
    defaults = sweep_stages(tmp_path, tuned)
    drawn = evaluation_trial(tmp_path, tuned, ["generate.sampler=heun"], defaults=defaults).specs["generate"].stage
    assert isinstance(drawn, GenerateStage)
    assert (drawn.sampler, drawn.eta, drawn.steps) == ("heun", None, 3)
    profiled = evaluation_trial(tmp_path, tuned, [], ["umd-paper"], defaults).specs["generate"].stage
    assert isinstance(profiled, GenerateStage)
    assert profiled.steps != 3


def test_another_reference_drops_the_hash_of_the_sweeps_reference_file(tmp_path: Path, generated: Trial) -> None:
    tuned = generated.specs["finetune"].key
    fields = {"reference": "a.npz", "reference_sha256": "a" * 64, "extractor": "inception-v3-compat"}
    defaults = {"generate": SweepStage("small/x", {**fields, "n": 20, "steps": 3})}
    stage = evaluation_trial(tmp_path, tuned, ["generate.reference=test"], defaults=defaults).specs["generate"].stage
    assert isinstance(stage, GenerateStage)
    assert (stage.reference, stage.reference_sha256) == ("test", None)


def test_another_reference_drops_the_split_of_the_sweeps_held_out_images(tmp_path: Path, generated: Trial) -> None:
    tuned = generated.specs["finetune"].key
    fields = {"reference": "train", "held_out": "validation", "extractor": "digits_cnn", "n": 20, "steps": 3}
    defaults = {"generate": SweepStage("small/x", fields)}
    for sets, expected in (([], "validation"), (["generate.reference=test"], "test")):
        stage = evaluation_trial(tmp_path, tuned, sets, defaults=defaults).specs["generate"].stage
        assert isinstance(stage, GenerateStage)
        assert stage.held_out_split == expected


def test_an_evaluation_follows_no_sweep_if_trials_differ(tmp_path: Path, trial: Trial) -> None:
    other = load_sweep(write_small(tmp_path), sets=("seeds=[0]", "name=other", "trial.stages.probe.ridge=7"))
    write_sweep(tmp_path, sweep_record(other))
    probe = other.trials[0].specs["probe"]
    RunDir(tmp_path, probe.key).prepare(probe)
    assert probe.parent_key == trial.specs["pretrain"].key
    assert sweep_stages(tmp_path, trial.specs["pretrain"].key) == {}


def test_of_several_probes_of_a_sweep_the_official_one_is_followed(tmp_path: Path, trial: Trial) -> None:
    """In the shipped methods the same parent also has best_probe, and in some of them probe_t1."""
    sets = ("seeds=[0]", "trial.stages.best_probe={kind: probe, parent: pretrain, choose: {}}")
    sweep = load_sweep(write_small(tmp_path), sets=sets)
    write_sweep(tmp_path, sweep_record(sweep))
    best, key = sweep.trials[0].specs["best_probe"], trial.specs["pretrain"].key
    RunDir(tmp_path, best.key).prepare(best)
    assert best.parent_key == key
    defaults = sweep_stages(tmp_path, key)
    assert evaluation_trial(tmp_path, key, [], defaults=defaults).specs["probe"].key == trial.specs["probe"].key
    chosen = evaluation_trial(tmp_path, key, ["probe.protocol=best"], defaults=defaults).specs["probe"].stage
    assert isinstance(chosen, ProbeStage)
    assert chosen.choose is not None


def test_a_chosen_read_out_gives_way_to_a_stated_one(tmp_path: Path, trial: Trial) -> None:
    fields = {"choose": {"blocks": "all", "pools": "all", "times": [0]}, "shots": [5]}
    defaults = {"probe": SweepStage("small/x", fields)}
    stage = evaluation_trial(tmp_path, trial.specs["pretrain"].key, ["probe.t=1"], defaults=defaults).specs["probe"].stage
    assert isinstance(stage, ProbeStage)
    assert (stage.choose, stage.t, stage.shots) == (None, 1, (5,))


def test_a_run_without_child_stages_is_evaluated_by_the_defaults(tmp_path: Path, trial: Trial) -> None:
    key = trial.specs["finetune"].key
    assert sweep_stages(tmp_path, key) == {}
    stage = evaluation_trial(tmp_path, key, []).specs["generate"].stage
    assert isinstance(stage, GenerateStage)
    assert (stage.n, stage.steps) == (500, 50)
