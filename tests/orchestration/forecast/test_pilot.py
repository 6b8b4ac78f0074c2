"""Measuring for a forecast: every kind of stage is tried for real, nothing is left behind, and time runs out quietly."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from orchestration.small import write_small

from umd_bench.config.sweep.resolve import load_sweep
from umd_bench.data.packs.manifest import data_root
from umd_bench.orchestration.forecast import pilot
from umd_bench.orchestration.forecast.forecast import forecast, without_past
from umd_bench.orchestration.forecast.pilot import Measured, measure_stages
from umd_bench.orchestration.graph import Node, build_graph
from umd_bench.orchestration.preflight import prepare_data


def small(root: Path, *sets: str) -> dict[str, Node]:
    trials = load_sweep(write_small(root), sets=["seeds=[0, 1]", *sets]).trials
    prepare_data(trials, data_root())
    return build_graph(root / "results", trials)


@pytest.mark.slow
def test_what_has_no_past_is_measured_by_shape_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(pilot.tempfile, "tempdir", None)
    nodes = small(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    asked = without_past(tmp_path / "results", nodes)
    assert sorted(node.spec.kind for node in asked) == ["finetune", "generate", "pretrain", "pretrain", "probe"]
    parents = [nodes[node.spec.parent_key].spec if node.spec.parent_key else None for node in asked]
    stages = [(node.spec, parent) for node, parent in zip(asked, parents, strict=True)]
    found = measure_stages(stages, tmp_path / "results", data_root(), 8.0)
    assert {key: one.error for key, one in found.items()} == {node.key: "" for node in asked}
    assert all(min(one.seconds) > 0 for one in found.values())
    assert sorted(path.name for path in tmp_path.iterdir()) == before

    made = forecast(tmp_path / "results", nodes, 1, measured=found)
    assert (made.stages, made.measured, made.past, made.without_basis) == (len(nodes), len(nodes), 0, {})
    assert 0 < made.low < made.seconds < made.high
    assert made.bytes_on_disk > 0
    assert f"{len(nodes)} of them measured" in made.lines(1)[0]


def test_a_process_that_does_not_come_to_an_end_is_ended_and_what_it_said_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "endless.py"
    line = '{"key": "a", "seconds": [2.0], "bytes_on_disk": 0.0, "whole": true, "error": ""}'
    code = (
        f"import sys, os, time, pathlib\nfolder = pathlib.Path(sys.argv[1])\n(folder / 'found.jsonl').write_text('{line}\\n')\n"
    )
    module.write_text(f"{code}pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))\ntime.sleep(600)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(pilot, "MODULE", "endless")
    monkeypatch.setattr(pilot, "START_SECONDS", 3.0)
    node = next(iter(small(tmp_path).values()))
    found = measure_stages([(node.spec, None)], tmp_path, tmp_path, 0.1)
    assert found == {"a": Measured("a", (2.0,), whole=True)}
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_measurement_serves_stages_of_other_lengths_and_devices_and_its_shape_before_others(tmp_path: Path) -> None:
    nodes = small(tmp_path, "stages=[pretrain]", "trial.resources.devices=2")
    first, other = without_past(tmp_path / "results", nodes)
    brief = {first.key: Measured(first.key, (10.0, 20.0), whole=True), other.key: Measured(other.key, (100.0,), whole=True)}
    made = forecast(tmp_path / "results", nodes, 1, measured=brief)
    assert made.seconds == pytest.approx(2 * (15.0 + 100.0))
    assert (made.low, made.high) == pytest.approx((2 * (10 / 1.5 + 100 / 1.5), 2 * (20 * 1.5 + 100 * 1.5)))
    longer = small(tmp_path, "stages=[pretrain]", "trial.stages.pretrain.nimg=1280")
    brief |= {node.key: brief[key] for key, node in zip(brief, without_past(tmp_path / "results", longer), strict=True)}
    again = forecast(tmp_path / "results", longer, 1, measured={key: one for key, one in brief.items() if key in longer})
    assert again.seconds == pytest.approx(made.seconds), "as given for stages of this length"
