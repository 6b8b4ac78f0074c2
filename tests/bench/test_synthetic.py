"""Synthetic results look like the results of a finished sweep, and synthetic trials differ."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from umd_bench.bench.synthetic import NAME, synthetic_axis_sweep, synthetic_results, synthetic_sweep
from umd_bench.config.sweep.resolve import load_sweep
from umd_bench.orchestration.graph import build_graph
from umd_bench.reporting.frames.sweep_frames import long_frame
from umd_bench.store import StageState


def test_synthetic_results_are_a_finished_sweep(tmp_path: Path) -> None:
    sweep = synthetic_results(tmp_path, 3)
    assert {node.state for node in build_graph(tmp_path, sweep.trials).values()} == {StageState.DONE}
    frame = long_frame(tmp_path, NAME)
    assert sorted(frame["seed"].unique()) == [0, 1, 2]
    assert set(frame["metric"]) >= {"made_up"}


@pytest.mark.parametrize("write", [synthetic_sweep, synthetic_axis_sweep])
def test_a_synthetic_sweep_has_the_given_number_of_different_trials(tmp_path: Path, write: Callable[[Path, int], Path]) -> None:
    trials = load_sweep(write(tmp_path, 4)).trials
    assert len({trial.specs["probe"].key for trial in trials}) == len(trials) == 4
