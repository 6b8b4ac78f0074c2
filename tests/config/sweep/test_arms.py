"""A name of exactly one arm finds this arm, any other name gives a one-line error; a baseline changes no key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from umd_bench.config.errors import UserError
from umd_bench.config.sweep.arms import arm_indices, arm_name, axis_names, parsed_arm
from umd_bench.config.sweep.resolve import load_sweep
from umd_bench.orchestration.graph import sweep_record
from umd_bench.store import read_sweep, write_sweep

SWEEPS = Path(__file__).parents[3] / "sweeps"
PRECISION = "stages.pretrain.precision, stages.generate.precision"
AXES: dict[str, list[Any]] = {"stages.generate.steps": [5, 10], PRECISION: ["fp32", "bf16"], "noise.schedule": ["cosine"]}
SWEEP = """
name: small
axes:
  stages.pretrain.corruption.mask_ratio: [0, 0.5]
  noise.schedule: [linear, cosine]
seeds: [0, 1]
"""


def test_axis_names_are_short_unless_two_would_be_equal() -> None:
    assert axis_names(["noise.schedule", "method"]) == {"noise.schedule": "schedule", "method": "method"}
    same = ["stages.pretrain.nimg", "stages.finetune.nimg"]
    assert axis_names(same) == {path: path for path in same}


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("sampler=ddim,steps=20", {"sampler": "ddim", "steps": 20}),
        ("mask_ratio=0.375", {"mask_ratio": 0.375}),
        ("a.x, b.x=fp32,steps=5", {"a.x, b.x": "fp32", "steps": 5}),
        ("cfg_interval=[0, 500],ema=true", {"cfg_interval": [0, 500], "ema": True}),
    ],
)
def test_an_arm_is_parsed_from_the_ids_of_trials(text: str, given: dict[str, Any]) -> None:
    assert parsed_arm(text) == given


@pytest.mark.parametrize(
    "text", ["", "ddim", "sampler=", "=ddim", "sampler=ddim,", "sampler=ddim,20", "a=1,a=2", "a=[1,2", "a={"]
)
def test_text_that_is_no_arm_gives_a_one_line_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|not a YAML value"):
        parsed_arm(text)


@pytest.mark.parametrize(
    "given",
    [
        {"steps": 10, "precision": "bf16"},
        {"stages.generate.steps": 10, PRECISION: "bf16", "schedule": "cosine"},
        {"steps": "10.0", PRECISION.replace(", ", ","): "bf16"},
    ],
)
def test_axes_have_short_names_or_paths_and_an_axis_with_one_value_may_be_left_out(given: dict[str, Any]) -> None:
    assert arm_indices(AXES, given) == {"stages.generate.steps": 1, PRECISION: 1, "noise.schedule": 0}


@pytest.mark.parametrize("values", [["1e-3", "1e-4"], [None, [0.0, 50.0]], [(0.0, 50.0), (0.0, 100.0)], [0.1234567, 0.7654321]])
def test_an_arm_is_found_by_its_values_in_the_spelling_of_ids_and_of_tables(values: list[Any]) -> None:
    for index, value in enumerate(values):
        for printed in (f"{value:g}" if isinstance(value, float) else str(value), arm_name({"a.x": value}).partition("=")[2]):
            assert arm_indices({"a.x": values}, parsed_arm(f"x={printed}")) == {"a.x": index}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"step": 10}, "'step' is not an axis: expected steps and precision and schedule"),
        ({"steps": 20, "precision": "bf16"}, "steps = 20 is no arm: expected one of 5, 10"),
        ({"steps": True, "precision": "bf16"}, "steps = True is no arm"),
        ({"steps": 10}, "names several arms: expected a value of precision too"),
        ({"steps": 10, "stages.generate.steps": 10}, "steps is given twice"),
    ],
)
def test_values_that_do_not_name_exactly_one_arm_are_refused(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        arm_indices(AXES, given)


def test_the_name_of_an_arm_is_its_trials_id_without_the_seed(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(SWEEP)
    trial = load_sweep(tmp_path / "s.yaml").trials[-1]
    assert f"{arm_name(trial.axes)},seed=1" == trial.id == "mask_ratio=0.5,schedule=cosine,seed=1"


@pytest.mark.parametrize(("ratio", "schedule"), [("0", "cosine"), ("0.5", "linear")])
def test_a_baseline_changes_no_key_and_is_recorded_with_the_values_of_its_trials(
    tmp_path: Path, ratio: str, schedule: str
) -> None:
    (tmp_path / "plain.yaml").write_text(SWEEP)
    (tmp_path / "with.yaml").write_text(SWEEP + f"report: {{baseline: {{mask_ratio: {ratio}, schedule: {schedule}}}}}\n")
    plain, compared = load_sweep(tmp_path / "plain.yaml"), load_sweep(tmp_path / "with.yaml")
    assert [trial.specs for trial in plain.trials] == [trial.specs for trial in compared.trials]
    write_sweep(tmp_path, sweep_record(compared))
    record = read_sweep(tmp_path, "small")
    assert record.report.baseline == {"stages.pretrain.corruption.mask_ratio": float(ratio), "noise.schedule": schedule}
    assert record.report.baseline in [trial.axes for trial in record.trials]
    assert sweep_record(plain).report.baseline is None


@pytest.mark.parametrize(
    ("baseline", "sentence"),
    [
        ("{mask_ratio: 0.3, schedule: cosine}", "report.baseline: mask_ratio = 0.3 is no arm: expected one of 0, 0.5"),
        ("{mask_ratio: 0}", "report.baseline: names several arms: expected a value of schedule too"),
        ("{}", "report.baseline"),
    ],
)
def test_a_baseline_that_is_no_arm_gives_a_one_line_error(tmp_path: Path, baseline: str, sentence: str) -> None:
    (tmp_path / "s.yaml").write_text(SWEEP + f"report: {{baseline: {baseline}}}\n")
    with pytest.raises(UserError, match=sentence):
        load_sweep(tmp_path / "s.yaml")


def test_the_command_line_changes_or_drops_a_baseline(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(SWEEP + "report: {baseline: {mask_ratio: 0, schedule: cosine}}\n")
    other = load_sweep(tmp_path / "s.yaml", sets=["report.baseline.schedule=linear"]).baseline
    assert other is not None
    assert other["noise.schedule"] == "linear"
    assert load_sweep(tmp_path / "s.yaml", sets=["report.baseline=null", "axes.noise.schedule=[edm]"]).baseline is None


def test_a_search_accepts_no_baseline(tmp_path: Path) -> None:
    text = "search: {trials: 2, space: {noise.schedule: {choices: [linear, cosine]}}, objectives: {probe.acc_10shot: maximise}}"
    (tmp_path / "s.yaml").write_text(f"name: small\n{text}\nreport: {{baseline: {{schedule: cosine}}}}\n")
    with pytest.raises(UserError, match=r"report.baseline: is not accepted with a search.*--against"):
        load_sweep(tmp_path / "s.yaml")


@pytest.mark.parametrize(
    ("name", "arm"),
    [
        ("mask_ratio", "mask_ratio=0.375"),
        ("sampler", "sampler=ddim,steps=20"),
        ("precision", "precision=fp32"),
        ("noise_schedule", "schedule=cosine"),
        ("methods", "method=umd"),
        ("prediction", "prediction=eps,schedule=cosine"),
    ],
)
def test_shipped_sweeps_compare_with_the_defaults_of_the_project(name: str, arm: str) -> None:
    baseline = load_sweep(SWEEPS / f"{name}.yaml").baseline
    assert baseline is not None
    assert arm_name(baseline) == arm
