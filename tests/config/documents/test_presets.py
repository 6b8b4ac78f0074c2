"""Presets: a protocol's fields override the documents below it, and fields of the same document override the protocol."""

from __future__ import annotations

from pathlib import Path

import pytest

from umd_bench.config.documents.presets import protocol_names
from umd_bench.config.errors import UserError
from umd_bench.config.sweep.resolve import load_sweep, load_trial
from umd_bench.config.trial.probe_stage import LinearConfig, ProbeStage

SWEEP = """\
name: small
tier: digits
trial:
  stages: {probe: {protocol: full, draws: 2, linear: {batch: 256}}}
axes:
  method: [umd, mae]
seeds: [0]
"""


def probe(*sets: str) -> ProbeStage:
    stage = load_trial("umd", sets=[f"stages.probe.{option}" for option in sets]).config.stages["probe"]
    assert isinstance(stage, ProbeStage)
    return stage


def test_a_protocol_overrides_the_tier_and_fields_of_the_same_document_override_it() -> None:
    assert probe().ridge == 10  # the tier's
    paper = probe("protocol=paper")
    assert (paper.shots, paper.draws, paper.ridge, paper.bias, paper.knn, paper.linear) == ((10, 100), 5, 1024, 100, (), None)
    overridden = probe("protocol=paper", "ridge=3")
    assert (overridden.ridge, overridden.draws) == (3, 5)
    assert probe("ridge=3", "protocol=paper") == overridden


def test_the_full_protocol_has_every_read_out() -> None:
    full = probe("protocol=full")
    assert (full.shots, full.knn, full.linear) == ((1, 5, 10, 100), (20,), LinearConfig())
    assert isinstance(full.ridge, tuple)
    assert 1024 in full.ridge


def test_the_key_depends_on_the_fields_and_not_on_the_protocols_name(tmp_path: Path) -> None:
    spelled = ["stages.probe.shots=[10, 100]", "stages.probe.draws=5", "stages.probe.ridge=1024"]
    keys = [load_trial("umd", sets=sets).specs["probe"].key for sets in (spelled, ["stages.probe.protocol=paper"])]
    assert keys[0] == keys[1]


def test_a_sweep_may_use_a_protocol_and_change_a_nested_field(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP)
    stage = load_sweep(path).trials[0].config.stages["probe"]
    assert isinstance(stage, ProbeStage)
    assert (stage.draws, stage.knn, stage.linear) == (2, (20,), LinearConfig(batch=256))


def test_a_protocol_may_be_an_axis(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP.replace("method: [umd, mae]", "stages.probe.protocol: [paper, full]").replace("protocol: full, ", ""))
    trials = load_sweep(path).trials
    assert [trial.id for trial in trials] == ["protocol=paper,seed=0", "protocol=full,seed=0"]
    assert len({trial.specs["probe"].key for trial in trials}) == 2


def test_the_error_for_an_unknown_protocol_has_its_location_and_lists_the_known(tmp_path: Path) -> None:
    assert protocol_names() == ["best", "full", "paper"]
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP.replace("protocol: full", "protocol: dino"))
    with pytest.raises(UserError) as error:
        load_sweep(path)
    assert str(error.value) == (f"{path}:4: stages.probe.protocol = 'dino' is not accepted: expected one of best, full, paper")
