"""A search on a real Slurm prunes the same trials as in a single process, and the job of a pruned training ends early."""

from __future__ import annotations

from pathlib import Path

import pytest
from cluster.lab import CLUSTER, query_often, wait_for
from cluster.minislurm import MiniSlurm
from orchestration.search.test_pruned_search import run, run_on
from orchestration.stepping import STEPS, steps_of

from umd_bench.config.sweep.resolve import load_sweep
from umd_bench.orchestration.executors.registry import start_executor
from umd_bench.store import RunDir, StageState, read_sweep, stage_state

pytestmark = pytest.mark.slow
SEARCH = """\
name: small
question: Which rate is best?
tier: digits
trial:
  method: mae
  model: {width: 16, depth: 1, decoder_depth: 1, heads: 2}
  stages:
    pretrain: {nimg: 640, batch: 64}
    probe: {shots: [5], draws: 2}
    finetune: null
    finetune_probe: null
    generate: null
seeds: [0]
search:
  sampler: random
  trials: 4
  parallel: 2
  space: {stages.pretrain.optim.lr_per_256: {low: 0.01, high: 1}}
  objectives: {probe.acc_5shot: maximise}
  pruner: {kind: median, metric: probe.acc_5shot, direction: maximise, startup: 1, rungs: [0.5]}
"""


def test_a_pruned_search_on_slurm_gives_the_record_of_a_single_process(slurm: MiniSlurm, tmp_path: Path) -> None:
    (tmp_path / "search.yaml").write_text(SEARCH)
    sweep = load_sweep(tmp_path / "search.yaml")
    alone, there = tmp_path / "alone", tmp_path / "slurm"
    expected, _, _ = run(alone, sweep)
    trials = {trial.id: trial for trial in read_sweep(alone, "small").trials}
    pruned = [RunDir(there, trials[name].stages["pretrain"]) for s in expected.suggestions if s.pruned_at for name in s.trials]
    assert 1 <= len(pruned) < len(trials)
    for training in pruned:  # so that none ends before the search has read its rung
        training.path.mkdir(parents=True)
        (training.path / "lingers").touch()
    executor = start_executor(
        "slurm", there, there, workers=1, threads=1, cluster=CLUSTER, entry_point="orchestration.stepping:run_here"
    )
    query_often(executor)
    try:
        found, progress = run_on(executor, there, sweep, poll_seconds=0.2)
    finally:
        executor.close()
    assert found == expected
    assert progress.failures == {}
    for training in pruned:
        assert steps_of(training) == STEPS // 2
        assert stage_state(training) is StageState.INTERRUPTED
    wait_for(lambda: not slurm.unfinished(), "an empty queue")
