"""Measuring for a forecast: every kind of stage really runs, nothing is left behind, and running out of time is no error."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from orchestration.small import write_small

from umd_bench.config.sweep.resolve import load_sweep
from umd_bench.data.packs.manifest import data_root
from umd_bench.orchestration.forecast import pilot
from umd_bench.orchestration.forecast.forecast import make_forecast, without_past
from umd_bench.orchestration.forecast.pilot import PilotMeasurement, measure_stages
from umd_bench.orchestration.graph import Node, build_graph
from umd_bench.orchestration.preflight import prepare_data


def small(root: Path, *sets: str) -> dict[str, Node]:
    trials = load_sweep(write_small(root), sets=["seeds=[0, 1]", *sets]).trials
    prepare_data(trials, data_root())
    return build_graph(root / "results", trials)


@pytest.mark.slow
def test_one_stage_of_each_shape_without_past_results_is_measured_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(pilot.tempfile, "tempdir", None)
    nodes = small(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    unknown = without_past(tmp_path / "results", nodes)
    assert sorted(node.spec.kind for node in unknown) == ["finetune", "generate", "pretrain", "pretrain", "probe"]
    parents = [nodes[node.spec.parent_key].spec if node.spec.parent_key else None for node in unknown]
    stages = [(node.spec, parent) for node, parent in zip(unknown, parents, strict=True)]
    measured = measure_stages(stages, tmp_path / "results", data_root(), 8.0)
    assert {key: one.error for key, one in measured.items()} == {node.key: "" for node in unknown}
    assert all(min(one.seconds) > 0 for one in measured.values())
    assert sorted(path.name for path in tmp_path.iterdir()) == before

    made = make_forecast(tmp_path / "results", nodes, 1, measurements=measured)
    assert (made.stages, made.measured, made.past, made.without_basis) == (len(nodes), len(nodes), 0, {})
    assert 0 < made.low < made.seconds < made.high
    assert made.bytes_on_disk > 0
    assert f"{len(nodes)} measured" in made.lines(1)[0]


@pytest.mark.slow
def test_the_training_with_labels_counts_in_the_cost_of_its_probe(tmp_path: Path) -> None:
    steps = 200_000  # far more than the rest of the stage costs, on any machine
    nodes = small(tmp_path, f"trial.stages.probe.supervised={{nimg: {16 * steps}, batch: 16}}", "stages=[probe]")
    probe = next(node for node in nodes.values() if node.spec.kind == "probe")
    assert probe.spec.parent_key is not None
    measured = measure_stages([(probe.spec, nodes[probe.spec.parent_key].spec)], tmp_path / "results", data_root(), 4.0)
    assert measured[probe.key].error == ""
    assert min(measured[probe.key].seconds) > steps * 0.0005


@pytest.mark.slow
def test_a_process_that_does_not_end_is_killed_and_its_measurements_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "endless.py"
    line = '{"key": "a", "seconds": [2.0], "bytes_on_disk": 0.0, "whole": true, "error": ""}'
    code = "import sys, os, time, pathlib\nfolder = pathlib.Path(sys.argv[1])\n"
    code += f"(folder / 'measurements.jsonl').write_text('{line}\\n')\n"
    module.write_text(f"{code}pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))\ntime.sleep(600)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(pilot, "MODULE", "endless")
    monkeypatch.setattr(pilot, "START_SECONDS", 3.0)
    node = next(iter(small(tmp_path).values()))
    measured = measure_stages([(node.spec, None)], tmp_path, tmp_path, 0.1)
    assert measured == {"a": PilotMeasurement("a", (2.0,), whole=True)}
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_measurement_is_the_cost_of_a_whole_stage_and_is_used_for_all_seeds_of_its_shape(tmp_path: Path) -> None:
    nodes = small(tmp_path, "stages=[pretrain]", "trial.resources.devices=2")
    first, other = without_past(tmp_path / "results", nodes)
    measured = {
        first.key: PilotMeasurement(first.key, (10.0, 20.0), whole=True),
        other.key: PilotMeasurement(other.key, (100.0,), whole=True),
    }
    made = make_forecast(tmp_path / "results", nodes, 1, measurements=measured)
    assert made.seconds == pytest.approx(2 * (15.0 + 100.0))
    assert (made.low, made.high) == pytest.approx((2 * (10 / 1.5 + 100 / 1.5), 2 * (20 * 1.5 + 100 * 1.5)))
    longer = small(tmp_path, "stages=[pretrain]", "trial.stages.pretrain.nimg=1280")
    measured |= {
        node.key: measured[key] for key, node in zip(measured, without_past(tmp_path / "results", longer), strict=True)
    }
    again = make_forecast(
        tmp_path / "results", longer, 1, measurements={key: one for key, one in measured.items() if key in longer}
    )
    assert again.seconds == pytest.approx(made.seconds), "the same seconds were measured for the longer stages"
