"""Where sweeps and trials stand, as tables for the terminal."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rich.table import Table

from umd_bench.config.gc_pause import uncollected
from umd_bench.config.sweep.pruning import percent
from umd_bench.orchestration.graph import Node
from umd_bench.orchestration.monitor.stage_status import StageStatus, Survey, expected, keys_of
from umd_bench.store import RunDir, StageState, list_sweeps, read_sweep


@uncollected()
def status_table(root: Path, name: str | None, *, keys: bool = False) -> Table:
    """One row a sweep, or with ``name`` one row a trial of it with the state of each stage, or with ``keys`` one row a stage.

    Raises :class:`UserError` for an unknown sweep.
    """
    if name is not None:
        return _keys_table(root, name) if keys else _trials_table(root, name)
    table = Table("sweep", "tier", "trials", *(state.value for state in StageState), box=None, pad_edge=False)
    survey = Survey(root)
    for sweep in list_sweeps(root):
        record = read_sweep(root, sweep)
        stands = survey.look(keys_of(record))
        counts = Counter(stand.state for stand in expected(record, stands).values())
        pruned = len(record.pruned())
        trials = f"{len(record.trials)}, {pruned} pruned" if pruned else str(len(record.trials))
        table.add_row(sweep, record.tier, trials, *(str(counts[state] or "") for state in StageState))
    if not table.rows:
        table.caption = f"no sweep in {root} yet: `umd-bench sweep FILE` makes one"
    return table


def _trials_table(root: Path, name: str) -> Table:
    record = read_sweep(root, name)
    stages = list(dict.fromkeys(stage for trial in record.trials for stage in trial.stages))
    table = Table("trial", *stages, box=None, pad_edge=False)
    stands = Survey(root).look(keys_of(record))
    waited_for, pruned = expected(record, stands), record.pruned()
    for trial in record.trials:
        words = {stage: _stood(stands[key]) for stage, key in trial.stages.items() if key in waited_for}
        ended = next((stage for stage in trial.stages if stage not in words), None)
        if ended is not None:  # by a search, which left out what was to follow
            words[ended] = f"[dim]pruned at {percent(pruned[trial.id])}%[/]"
        table.add_row(trial.id, *(words.get(stage, "") for stage in stages))
    return table


def _keys_table(root: Path, name: str) -> Table:
    record = read_sweep(root, name)
    table = Table("trial", "stage", "key", "state", box=None, pad_edge=False)
    stands = Survey(root).look(keys_of(record))
    for trial in record.trials:
        for i, (stage, key) in enumerate(trial.stages.items()):
            table.add_row("" if i else trial.id, stage, key, _stood(stands[key]))
    return table


def metrics_table(root: Path, nodes: dict[str, Node]) -> Table:
    """The metrics of some stages, one row each, with the key of the run they stand in."""
    table = Table("stage", "run", "metric", "value", box=None, pad_edge=False)
    for node in nodes.values():
        result = RunDir(root, node.key).result()
        if result is None:
            table.add_row(node.name, node.key, _coloured(node.state), "")
            continue
        if not result["metrics"]:  # a training too short to have said any; its key is asked for all the same
            table.add_row(node.name, node.key, _coloured(node.state), "")
        for i, (metric, value) in enumerate(sorted(result["metrics"].items())):
            table.add_row(*((node.name, node.key) if i == 0 else ("", "")), metric, f"{value:.4g}")
    return table


def _stood(stand: StageStatus) -> str:
    """``new``, or ``submitted`` where a job waits; what was begun before says both."""
    if not stand.submitted:
        return _coloured(stand.state)
    return "submitted" if stand.state is StageState.NEW else f"{_coloured(stand.state)}, submitted"


def _coloured(state: StageState) -> str:
    colour = {StageState.DONE: "green", StageState.FAILED: "red", StageState.RUNNING: "cyan"}.get(state, "dim")
    return f"[{colour}]{state.value}[/]"
