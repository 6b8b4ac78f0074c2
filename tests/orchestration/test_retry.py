"""A retry sets aside only failures of the chosen state or cause, and a running sweep runs their stages again."""

from __future__ import annotations

from pathlib import Path

import pytest
from orchestration.scripted import ScriptedExecutor, die, fail_with, succeed
from orchestration.small import write_small

from umd_bench.config.errors import UserError
from umd_bench.config.sweep.resolve import Sweep, load_sweep
from umd_bench.orchestration.graph import build_graph, sweep_record
from umd_bench.orchestration.monitor.stage_status import status_json
from umd_bench.orchestration.retry import retry
from umd_bench.orchestration.scheduler import Scheduler
from umd_bench.orchestration.trial_source import Grid, SweepProgress
from umd_bench.store import RunDir, write_sweep


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """Four trials: one failed with NaN, one with an error, one died, and one is done."""
    sweep = load_sweep(write_small(tmp_path))
    keys = [trial.specs["pretrain"].key for trial in sweep.trials]
    scripts = dict(zip(keys, [fail_with("loss is not finite", "nan"), fail_with("broken", "error"), die], strict=False))
    Scheduler(tmp_path, Grid(build_graph(tmp_path, sweep.trials)), poll_seconds=0).run(ScriptedExecutor(tmp_path, scripts))
    write_sweep(tmp_path, sweep_record(sweep))
    return sweep


def files(root: Path) -> set[Path]:
    return set(root.rglob("*"))


@pytest.mark.parametrize(
    ("chosen", "state"), [({"state": "nan"}, "nan"), ({"fingerprint": "bro"}, "error"), ({"state": "died"}, "died")]
)
def test_only_the_chosen_failures_are_set_aside(tmp_path: Path, sweep: Sweep, chosen: dict[str, str], state: str) -> None:
    before = files(tmp_path)
    (retried,) = retry(tmp_path, "small", **chosen)
    assert (retried.stage, retried.failure.state) == ("pretrain", state)
    assert {path.name for path in files(tmp_path) ^ before} == {"failure.json", "failure-retried.json"}
    assert status_json(tmp_path, "small")["sweeps"][0]["counts"]["failed"] == 2
    assert retried.trial in str(retried)
    assert retried.failure.headline in str(retried)


def test_without_options_all_failures_are_retried_and_none_is_left(tmp_path: Path, sweep: Sweep) -> None:
    assert len(retry(tmp_path, "small")) == 3
    assert retry(tmp_path, "small") == []
    assert status_json(tmp_path, "small")["sweeps"][0]["counts"]["interrupted"] == 3


def test_an_unknown_state_is_refused_and_the_failures_are_listed(tmp_path: Path, sweep: Sweep) -> None:
    with pytest.raises(UserError, match=r"--state oom: .*died \(died\) x 1, error \(broken\) x 1, nan"):
        retry(tmp_path, "small", state="oom")


def test_a_running_stage_is_not_retried(tmp_path: Path, sweep: Sweep) -> None:
    run = RunDir(tmp_path, sweep.trials[0].specs["pretrain"].key)
    lease = run.lease()
    with lease:
        assert [r.failure.state for r in retry(tmp_path, "small", state="error")] == ["error"]
        assert not run.retry()
    assert run.retry()


def test_a_running_sweep_runs_a_retried_stage_and_its_descendants(tmp_path: Path) -> None:
    sweep = load_sweep(write_small(tmp_path))
    write_sweep(tmp_path, sweep_record(sweep))
    broken, other = (trial.specs["pretrain"].key for trial in sweep.trials[:2])
    executor = ScriptedExecutor(
        tmp_path,
        {
            broken: lambda run, tries: fail_with("once", "oom")(run, tries) if tries == 0 else succeed(run, tries),
            other: fail_with("always"),
        },
    )
    retried = []

    def retry_once(progress: SweepProgress) -> None:
        if broken in progress.failures and not retried:
            retried.extend(retry(tmp_path, "small", state="oom"))

    progress = Scheduler(tmp_path, Grid(build_graph(tmp_path, sweep.trials)), poll_seconds=0).run(executor, observe=retry_once)
    assert executor.submitted.count(broken) == 2
    assert set(progress.failures) == {other}
    assert progress.blocked == {spec.key for name, spec in sweep.trials[1].specs.items() if name != "pretrain"}
    assert all(RunDir(tmp_path, spec.key).result() is not None for spec in sweep.trials[0].specs.values())
