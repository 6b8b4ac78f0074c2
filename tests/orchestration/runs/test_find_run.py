"""A person names a run by its key or by its trial, or by the beginning of either."""

from __future__ import annotations

from pathlib import Path

import pytest
from orchestration.small import write_small

from umd_bench.config.errors import UserError
from umd_bench.config.sweep.resolve import Trial, load_sweep
from umd_bench.orchestration.graph import sweep_record
from umd_bench.orchestration.monitor.status import status_table
from umd_bench.orchestration.runs.find_run import find_run
from umd_bench.store import RunDir, write_sweep

TRIAL = "mask_ratio=0.25,seed=0"


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        (TRIAL, "finetune"),
        (f"small/{TRIAL}", "finetune"),
        (f"{TRIAL}:pretrain", "pretrain"),
        (f"small/{TRIAL}:finetune", "finetune"),
        ("mask_ratio=0.25", "finetune"),
    ],
)
def test_a_trial_means_its_last_weights_or_the_stage_after_the_colon(
    tmp_path: Path, trial: Trial, name: str, stage: str
) -> None:
    assert find_run(tmp_path, name).key == trial.specs[stage].key
    assert find_run(tmp_path, trial.specs[stage].key[:10]).key == trial.specs[stage].key


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("nosuch", "no run and no trial"),
        ("nosuch:pretrain", "'nosuch:pretrain' is not accepted: no run and no trial"),
        (f"{TRIAL}:probe", "expected one of finetune, pretrain after the colon"),
        ("mask_ratio=0", "2 trials begin with it"),
        ("mask_ratio=0.5,seed=0", "no training of the trial has begun"),
        ("probe", "it is a probe stage, expected a pretrain, finetune or import stage"),
    ],
)
def test_a_name_that_means_no_run_with_weights_gives_a_one_line_error(
    tmp_path: Path, trial: Trial, name: str, part: str
) -> None:
    with pytest.raises(UserError, match=r"^RUN = ") as error:
        find_run(tmp_path, trial.specs[name].key if name in trial.specs else name)
    assert part in str(error.value)


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
    with pytest.raises(UserError, match=f"its finetune has not begun; {TRIAL}:pretrain has"):
        find_run(tmp_path, TRIAL)


def test_status_shows_the_keys_that_other_verbs_take(tmp_path: Path, trial: Trial) -> None:
    keys = [str(cell) for cell in status_table(tmp_path, "small", keys=True).columns[2].cells]
    assert keys[:5] == [spec.key for spec in trial.specs.values()]
