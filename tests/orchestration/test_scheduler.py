"""The scheduler: parents before children, shared stages once, failures stay local, and lost attempts are repeated."""

from __future__ import annotations

from pathlib import Path

import pytest
from orchestration.scripted import Script, ScriptedExecutor, die, end_by, fail_with, succeed

from umd_bench.config.sweep.resolve import Sweep, load_sweep
from umd_bench.orchestration.executors.contract import MAX_ATTEMPTS, EndReason
from umd_bench.orchestration.graph import build_graph
from umd_bench.orchestration.scheduler import Scheduler, explain
from umd_bench.orchestration.trial_source import Changes, Grid, SweepProgress
from umd_bench.store import RunDir, StageState

SWEEPS = Path(__file__).parents[2] / "sweeps"


@pytest.fixture(scope="module")
def sweep() -> Sweep:
    return load_sweep(
        SWEEPS / "mask_ratio.yaml",
        sets=[*FIVE, "seeds=[0, 1]", "axes.stages.pretrain.corruption.mask_ratio=[0.25, 0.5]", "report.baseline=null"],
    )


FIVE = ["trial.stages.best_probe=null"]  # leaves five stages in each trial, which are enough here


def run(root: Path, sweep: Sweep, scripts: dict[str, Script] | None = None) -> tuple[SweepProgress, ScriptedExecutor]:
    executor = ScriptedExecutor(root, scripts)
    return Scheduler(root, Grid(build_graph(root, sweep.trials)), poll_seconds=0).run(executor), executor


def test_every_stage_runs_once_and_after_its_parent(tmp_path: Path, sweep: Sweep) -> None:
    progress, executor = run(tmp_path, sweep)
    assert progress.complete
    assert len(executor.submitted) == len(set(executor.submitted)) == 4 * 5
    for trial in sweep.trials:
        for spec in trial.specs.values():
            if spec.parent_key is not None:
                assert executor.submitted.index(spec.parent_key) < executor.submitted.index(spec.key)


def test_no_more_is_submitted_than_the_executor_has_slots(tmp_path: Path, sweep: Sweep) -> None:
    assert run(tmp_path, sweep)[1].most_at_once == 2


def test_a_second_run_submits_nothing(tmp_path: Path, sweep: Sweep) -> None:
    run(tmp_path, sweep)
    progress, executor = run(tmp_path, sweep)
    assert progress.complete
    assert progress.reused == 20
    assert executor.submitted == []


def test_a_parent_shared_by_trials_runs_once(tmp_path: Path) -> None:
    sweep = load_sweep(
        SWEEPS / "mask_ratio.yaml",
        sets=[*FIVE, "report.baseline=null", "axes={}", "axes.stages.finetune.nimg=[1280, 2560]", "seeds=[0]"],
    )
    sweep = Sweep(sweep.config, tuple(t for t in sweep.trials if t.axes["stages.pretrain.corruption.mask_ratio"] == 0.25))
    progress, executor = run(tmp_path, sweep)
    assert progress.complete
    assert len(sweep.trials) == 2
    assert len(executor.submitted) == 2 + 2 * 3


def test_a_failing_stage_blocks_only_its_descendants(tmp_path: Path, sweep: Sweep) -> None:
    broken = sweep.trials[0].specs["finetune"].key
    progress, executor = run(tmp_path, sweep, {broken: fail_with("it broke")})
    assert set(progress.failures) == {broken}
    assert progress.blocked == {sweep.trials[0].specs[name].key for name in ("finetune_probe", "generate")}
    assert progress.count(StageState.DONE) == 20 - 3
    assert executor.submitted.count(broken) == 1
    lines, code = explain(progress, "again")
    assert code == 1
    assert "it broke" in lines[0]
    assert "`again` continues from here" in lines[-1]


def test_a_failed_stage_is_tried_again_by_the_next_command(tmp_path: Path, sweep: Sweep) -> None:
    broken = sweep.trials[0].specs["finetune"].key
    run(tmp_path, sweep, {broken: fail_with("it broke")})
    progress, executor = run(tmp_path, sweep)
    assert progress.complete
    assert len(executor.submitted) == 3


def test_a_stage_whose_process_dies_gets_three_attempts(tmp_path: Path, sweep: Sweep) -> None:
    unlucky, doomed = sweep.trials[0].specs["pretrain"].key, sweep.trials[1].specs["pretrain"].key
    scripts: dict[str, Script] = {
        unlucky: lambda run, tries: die(run, tries) if tries < 2 else succeed(run, tries),
        doomed: die,
    }
    progress, executor = run(tmp_path, sweep, scripts)
    assert executor.submitted.count(unlucky) == 3
    assert executor.submitted.count(doomed) == 3
    assert set(progress.failures) == {doomed}
    assert progress.failures[doomed].state == "died"


def test_attempts_are_counted_apart_for_each_end_reason(tmp_path: Path, sweep: Sweep) -> None:
    key = sweep.trials[0].specs["pretrain"].key
    ends = [EndReason.PREEMPTED] * 5 + [EndReason.DIED] * 2 + [EndReason.NODE_FAIL] * 4 + [EndReason.TIMEOUT] * 6

    def script(run: RunDir, tries: int) -> EndReason | None:
        return end_by(ends[tries])(run, tries) if tries < len(ends) else succeed(run, tries)

    progress, executor = run(tmp_path, sweep, {key: script})
    assert progress.complete
    assert executor.submitted.count(key) == len(ends) + 1


@pytest.mark.parametrize("kind", [EndReason.OOM, EndReason.NODE_FAIL, EndReason.CANCELLED])
def test_every_end_reason_has_a_limit_of_attempts(tmp_path: Path, sweep: Sweep, kind: EndReason) -> None:
    key = sweep.trials[0].specs["pretrain"].key
    progress, executor = run(tmp_path, sweep, {key: end_by(kind)})
    assert progress.failures[key].state == kind
    assert executor.submitted.count(key) == MAX_ATTEMPTS[kind]


def test_jobs_alive_from_an_earlier_command_are_not_submitted_again(tmp_path: Path, sweep: Sweep) -> None:
    executor = ScriptedExecutor(tmp_path)
    executor.left_alive = {sweep.trials[0].specs["pretrain"].key}
    progress = Scheduler(tmp_path, Grid(build_graph(tmp_path, sweep.trials)), poll_seconds=0).run(executor)
    assert progress.complete
    assert executor.left_alive.isdisjoint(executor.submitted)


def test_the_sweep_stops_when_the_first_failures_have_one_cause(tmp_path: Path) -> None:
    sweep = load_sweep(SWEEPS / "mask_ratio.yaml", sets=FIVE)
    scripts = {trial.specs["pretrain"].key: fail_with("no such thing") for trial in sweep.trials}
    progress, executor = run(tmp_path, sweep, scripts)
    assert executor.stopped
    assert len(executor.submitted) <= 3 + executor.slots
    assert progress.stopped_because is not None
    assert "no such thing" in progress.stopped_because


def test_failures_of_different_causes_do_not_stop_the_sweep(tmp_path: Path, sweep: Sweep) -> None:
    scripts = {trial.specs["pretrain"].key: fail_with(f"cause {i}") for i, trial in enumerate(sweep.trials)}
    progress, executor = run(tmp_path, sweep, scripts)
    assert not executor.stopped
    assert len(progress.failures) == 4


def test_a_stopped_scheduler_submits_nothing_more(tmp_path: Path, sweep: Sweep) -> None:
    executor = ScriptedExecutor(tmp_path)
    scheduler = Scheduler(tmp_path, Grid(build_graph(tmp_path, sweep.trials)), poll_seconds=0)

    def stop_after_three(progress: SweepProgress) -> None:
        if progress.finished >= 3:
            scheduler.stop()

    progress = scheduler.run(executor, observe=stop_after_three)
    assert progress.stopped_because == "interrupted"
    assert len(executor.submitted) <= 3 + executor.slots
    assert explain(progress, "again")[1] == 130


def test_a_scheduler_that_is_stopped_before_it_runs_stops_the_jobs_that_it_adopts(tmp_path: Path, sweep: Sweep) -> None:
    executor = ScriptedExecutor(tmp_path)
    executor.left_alive = {sweep.trials[0].specs["pretrain"].key}
    scheduler = Scheduler(tmp_path, Grid(build_graph(tmp_path, sweep.trials)), poll_seconds=0)
    scheduler.stop()
    progress = scheduler.run(executor)
    assert executor.stopped
    assert executor.submitted == []
    assert progress.finished == 1


class InTwoParts:
    """A source that adds the rest of a sweep's trials once the first ones are done."""

    grows = True

    def __init__(self, root: Path, sweep: Sweep) -> None:
        self._root, self._first, self._rest = root, sweep.trials[:1], sweep.trials[1:]

    def update(self, progress: SweepProgress) -> Changes:
        trials = ()
        if not progress.nodes:
            trials = self._first
        elif progress.complete:
            trials, self._rest = self._rest, ()
        return Changes(build_graph(self._root, trials))


@pytest.mark.parametrize("done_before", [False, True])
def test_trials_that_are_added_when_all_others_are_done_run_too(tmp_path: Path, sweep: Sweep, done_before: bool) -> None:
    if done_before:
        run(tmp_path, Sweep(sweep.config, sweep.trials[:1]))
    executor = ScriptedExecutor(tmp_path)
    progress = Scheduler(tmp_path, InTwoParts(tmp_path, sweep), poll_seconds=0).run(executor)
    assert progress.complete
    assert len(progress.trials) == 4
    assert (progress.reused, progress.finished) == ((5, 15) if done_before else (0, 20))
    assert len(executor.submitted) == progress.finished


def test_the_scheduler_waits_for_a_stage_that_another_command_owns(tmp_path: Path, sweep: Sweep) -> None:
    key = sweep.trials[0].specs["pretrain"].key
    other = RunDir(tmp_path, key)
    other.prepare(sweep.trials[0].specs["pretrain"])
    attempt = other.begin()
    calls = 0

    def finish_elsewhere(progress: SweepProgress) -> None:
        nonlocal calls
        calls += 1
        if calls == 30:
            attempt.finish({"metrics": {}})
            attempt.__exit__(None, None, None)

    executor = ScriptedExecutor(tmp_path)
    progress = Scheduler(tmp_path, Grid(build_graph(tmp_path, sweep.trials)), poll_seconds=0).run(
        executor, observe=finish_elsewhere
    )
    assert progress.complete
    assert key not in executor.submitted
