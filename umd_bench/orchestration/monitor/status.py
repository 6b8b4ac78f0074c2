"""The status of sweeps, trials and stages, and the metrics of stages, as tables for the terminal."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rich.table import Table

from umd_bench.config.gc_pause import gc_paused
from umd_bench.config.sweep.pruning import percent
from umd_bench.orchestration.graph import Node
from umd_bench.orchestration.monitor.stage_status import StageStatus, StatusReader, stage_keys, wanted_statuses
from umd_bench.store import RunDir, StageState, list_sweeps, read_sweep


@gc_paused()
def status_table(root: Path, name: str | None, *, keys: bool = False) -> Table:
    """Without ``name`` one row per sweep; with it one row per trial of that sweep, or with ``keys`` one row per stage.

    Raises :class:`UserError` for an unknown sweep.
    """
    if name is not None:
        return _keys_table(root, name) if keys else _trials_table(root, name)
    table = Table("sweep", "tier", "trials", *(state.value for state in StageState), box=None, pad_edge=False)
    reader = StatusReader(root)
    for sweep in list_sweeps(root):
        record = read_sweep(root, sweep)
        statuses = reader.read(stage_keys(record))
        counts = Counter(status.state for status in wanted_statuses(record, statuses).values())
        pruned = len(record.pruned())
        trials = f"{len(record.trials)}, {pruned} pruned" if pruned else str(len(record.trials))
        table.add_row(sweep, record.tier, trials, *(str(counts[state] or "") for state in StageState))
    if not table.rows:
        table.caption = f"there is no sweep in {root} yet: `umd-bench sweep FILE` runs one"
    return table


def _trials_table(root: Path, name: str) -> Table:
    record = read_sweep(root, name)
    stages = list(dict.fromkeys(stage for trial in record.trials for stage in trial.stages))
    table = Table("trial", *stages, box=None, pad_edge=False)
    statuses = StatusReader(root).read(stage_keys(record))
    wanted, pruned = wanted_statuses(record, statuses), record.pruned()
    for trial in record.trials:
        cells = {stage: _status_cell(statuses[key]) for stage, key in trial.stages.items() if key in wanted}
        first_dropped = next((stage for stage in trial.stages if stage not in cells), None)
        if first_dropped is not None:
            cells[first_dropped] = f"[dim]pruned at {percent(pruned[trial.id])}%[/]"
        table.add_row(trial.id, *(cells.get(stage, "") for stage in stages))
    return table


def _keys_table(root: Path, name: str) -> Table:
    record = read_sweep(root, name)
    table = Table("trial", "stage", "key", "state", box=None, pad_edge=False)
    statuses = StatusReader(root).read(stage_keys(record))
    for trial in record.trials:
        for i, (stage, key) in enumerate(trial.stages.items()):
            table.add_row("" if i else trial.id, stage, key, _status_cell(statuses[key]))
    return table


def metrics_table(root: Path, nodes: dict[str, Node]) -> Table:
    """The metrics of some stages, one row per metric, with the stage's key; a stage without metrics has one row."""
    table = Table("stage", "run", "metric", "value", box=None, pad_edge=False)
    for node in nodes.values():
        result = RunDir(root, node.key).result()
        metrics = sorted(result["metrics"].items()) if result is not None else []
        if not metrics:  # it has no result yet, or its training was too short to report metrics
            table.add_row(node.name, node.key, _coloured(node.state), "")
        for i, (metric, value) in enumerate(metrics):
            table.add_row(*((node.name, node.key) if i == 0 else ("", "")), metric, f"{value:.4g}")
    return table


def _status_cell(status: StageStatus) -> str:
    """The state; a new stage whose job waits is ``submitted``, an interrupted one ``interrupted, submitted``."""
    if not status.submitted:
        return _coloured(status.state)
    return "submitted" if status.state is StageState.NEW else f"{_coloured(status.state)}, submitted"


def _coloured(state: StageState) -> str:
    colour = {StageState.DONE: "green", StageState.FAILED: "red", StageState.RUNNING: "cyan"}.get(state, "dim")
    return f"[{colour}]{state.value}[/]"
