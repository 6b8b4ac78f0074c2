"""Every probe and score reads the split that a sweep or a trial states, and training stages keep their keys."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from umd_bench.config.errors import UserError
from umd_bench.config.sweep.resolve import load_sweep, load_trial
from umd_bench.config.trial.generate_stage import GenerateStage
from umd_bench.config.trial.probe_stage import ProbeStage
from umd_bench.config.trial.stage_spec import StageSpec

SWEEP = """\
name: small
tier: digits
axes:
  noise.schedule: [linear]
seeds: [0]
"""


def write(folder: Path, text: str, name: str = "sweep.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def scored_splits(stages: Mapping[str, StageSpec]) -> dict[str, object]:
    """The split that each probe stage scores; of each generate stage, its reference and its held-out split."""
    found: dict[str, object] = {}
    for name, spec in stages.items():
        if isinstance(spec.stage, ProbeStage):
            found[name] = spec.stage.split
        if isinstance(spec.stage, GenerateStage):
            found[name] = (spec.stage.reference, spec.stage.held_out_split)
    return found


PROBES = ("probe", "best_probe", "finetune_probe")


@pytest.mark.parametrize("given", ["option", "file", "set"])
def test_every_probe_and_score_reads_the_split_of_the_sweep(given: str, tmp_path: Path) -> None:
    text = SWEEP + "split: validation\n" * (given == "file")
    sets = ["split=validation"] if given == "set" else []
    sweep = load_sweep(write(tmp_path, text), split="validation" if given == "option" else None, sets=sets)
    found = scored_splits(sweep.trials[-1].specs)
    assert found == dict.fromkeys(PROBES, "validation") | {"generate": ("validation", "validation")}
    plain = load_sweep(write(tmp_path, SWEEP)).trials[-1].specs
    assert scored_splits(plain) == dict.fromkeys(PROBES, "test") | {"generate": ("test", "test")}
    assert {name for name, spec in sweep.trials[-1].specs.items() if spec.key != plain[name].key} == found.keys()
    again = load_sweep(write(tmp_path, text), split="test", sets=sets if given == "file" else [])
    assert {name: spec.key for name, spec in again.trials[-1].specs.items()} == {n: s.key for n, s in plain.items()}


def test_every_probe_and_score_reads_the_split_of_the_trial(tmp_path: Path) -> None:
    expected = dict.fromkeys(PROBES, "validation") | {"generate": ("validation", "validation")}
    assert scored_splits(load_trial("umd", split="validation").specs) == expected
    file = write(tmp_path, "method: umd\ntier: digits\nsplit: validation\n", "trial.yaml")
    assert scored_splits(load_trial(str(file)).specs) == expected
    assert scored_splits(load_trial(str(file), split="test").specs)["probe"] == "test"
    with pytest.raises(UserError, match=r"--split: split = 'dev' is not accepted: expected one of test, validation$"):
        load_trial("umd", split="dev")


def test_a_training_reference_stays_and_its_held_out_images_follow_the_split() -> None:
    sets = ["stages.generate.reference=train"]
    assert scored_splits(load_trial("umd", split="validation", sets=sets).specs)["generate"] == ("train", "validation")
    sets = ["stages.generate.held_out=test"]
    assert scored_splits(load_trial("umd", split="validation", sets=sets).specs)["generate"] == ("validation", "validation")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (SWEEP, "--split: split = 'dev' is not accepted: expected test or validation"),
        (
            SWEEP.replace("noise.schedule: [linear]", "stages.generate.reference: [train, test]"),
            "it decides stages.generate.reference, which varies; leave one of the two out",
        ),
    ],
)
def test_a_split_that_is_unknown_or_also_an_axis_is_refused(text: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_sweep(write(tmp_path, text), split="dev" if "dev" in problem else "validation")
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)
