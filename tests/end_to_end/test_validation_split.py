"""A sweep on the validation split never opens the test split, and the same sweep on the test split reuses its trainings."""

from __future__ import annotations

from pathlib import Path

import pytest
from evaluation.small_parents import opened_splits
from orchestration.small import SMALL, write_small
from rich.console import Console

from umd_bench.config.sweep.resolve import load_sweep
from umd_bench.data.packs.manifest import data_root
from umd_bench.orchestration.graph import sweep_record
from umd_bench.orchestration.launch import Site, execute, prepare
from umd_bench.orchestration.scheduler import Scheduler
from umd_bench.orchestration.trial_source import Grid
from umd_bench.reporting.statistics.summary import summarize
from umd_bench.store import RunDir, write_sweep

ONE_TRIAL = SMALL.replace("[0.25, 0.5]", "[0.5]").replace("seeds: [0, 1]", "seeds: [0]")


@pytest.mark.slow
def test_a_sweep_on_the_validation_split_never_opens_the_test_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_small(tmp_path, ONE_TRIAL.replace("steps: 3}", "steps: 3, scores: [fd, kid, accuracy, memorised]}"))
    root = tmp_path / "results"
    site = Site(root, data_root(), "inline", 1)
    opened = opened_splits(monkeypatch)
    sweep = load_sweep(file, split="validation")
    assert execute(Scheduler(root, Grid(prepare(sweep.trials, site))), site, Console(quiet=True)).complete
    assert opened == {"train", "validation"}
    for name, spec in sweep.trials[0].specs.items():
        result = RunDir(root, spec.key).result()
        assert result is not None
        assert result["facts"].get("reference") == ("validation" if spec.kind in ("probe", "generate") else None), name
    write_sweep(root, sweep_record(sweep))
    assert summarize(root, "small").notes[0] == "Scored on the validation split."

    tested = load_sweep(file)
    graph = prepare(tested.trials, site)
    assert {node.name for node in graph.values() if node.state.value == "done"} == {"pretrain", "finetune"}
