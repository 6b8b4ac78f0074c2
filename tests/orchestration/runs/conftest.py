"""A sweep in which one trial has results."""

from __future__ import annotations

from pathlib import Path

import pytest
from orchestration.small import write_small

from umd_bench.config.sweep.resolve import Trial, load_sweep
from umd_bench.orchestration.graph import sweep_record
from umd_bench.store import RunDir, write_sweep


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    """The first trial of the sweep small, with results of pretrain, finetune and probe; no other stage has begun."""
    sweep = load_sweep(write_small(tmp_path), sets=("seeds=[0]",))
    write_sweep(tmp_path, sweep_record(sweep))
    for name in ("pretrain", "probe", "finetune"):
        run = RunDir(tmp_path, sweep.trials[0].specs[name].key)
        run.prepare(sweep.trials[0].specs[name])
        with run.begin() as attempt:
            attempt.finish({"kind": sweep.trials[0].specs[name].kind, "metrics": {}, "cost": {"seconds": 1.0}})
    return sweep.trials[0]
