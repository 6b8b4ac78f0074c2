"""Searches make exactly ``trials`` suggestions, the same ones at any timing and after a kill at any moment."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from orchestration.scripted import Script, ScriptedExecutor, fail_with
from orchestration.small import SMALL

from umd_bench.config.errors import UserError
from umd_bench.config.sweep.resolve import Sweep, Trial, load_sweep
from umd_bench.config.trial.train_stage import TrainStage
from umd_bench.orchestration.executors.contract import Ended
from umd_bench.orchestration.graph import Node, build_graph
from umd_bench.orchestration.scheduler import Scheduler
from umd_bench.orchestration.search.records import outcome_line
from umd_bench.orchestration.search.search import Search
from umd_bench.orchestration.search.suggestions import Study
from umd_bench.orchestration.trial_source import SweepProgress
from umd_bench.store import RunDir, SearchRecord, read_sweep

SEARCH = (
    SMALL.partition("axes:")[0]
    + """\
seeds: [0, 1]
search:
  sampler: tpe
  trials: 8
  startup: 3
  parallel: 3
  space:
    stages.pretrain.corruption.mask_ratio: {low: 0, high: 0.75}
    stages.pretrain.optim.lr_per_256: {low: 1e-4, high: 1e-1, log: true}
    noise.schedule: {choices: [linear, cosine]}
  objectives: {finetune_probe.acc_5shot: maximise, generate.fd: minimise}
"""
)


class Killed(BaseException):
    """Stands in for kill -9: no ``except Exception`` of the search or the scheduler catches it."""


def load(folder: Path, *sets: str) -> Sweep:
    path = folder / "search.yaml"
    path.write_text(SEARCH)
    return load_sweep(path, sets=sets)


def score(run: RunDir, tries: int) -> None:
    """Finish with a result that depends on the searched values and the seed of the stage's pre-training."""
    spec = run.config()
    while spec.parent_key is not None:
        spec = RunDir(run.root, spec.parent_key).config()
    assert isinstance(spec.stage, TrainStage)
    x = spec.stage.corruption.mask_ratio + spec.stage.optim.lr_per_256 + 0.1 * spec.seed
    with run.begin() as attempt:
        attempt.finish({"metrics": {"acc_5shot": 1 - x, "fd": 3 * x, "loss": x}, "cost": {"seconds": 1.0}})


class Scripts(dict[str, Script]):
    """Scripts by key; the default is ``score``."""

    def get(self, key: str, default: Any = None) -> Any:
        return super().get(key, score)


class LastFirst(ScriptedExecutor):
    """Finishes the newest and the oldest submitted stage in turn."""

    def poll(self, timeout: float) -> list[Ended]:
        self._queue.reverse()
        return super().poll(timeout)


def run(
    root: Path,
    sweep: Sweep,
    executor: Callable[..., ScriptedExecutor] = ScriptedExecutor,
    *,
    slots: int = 2,
    script: Callable[[Sequence[Trial]], dict[str, Script]] = lambda trials: {},
) -> tuple[SearchRecord, ScriptedExecutor, SweepProgress]:
    scripts = Scripts({"": score})

    def admit(trials: Sequence[Trial]) -> dict[str, Node]:
        scripts.update(script(trials))
        return build_graph(root, trials)

    with Search(sweep, root, admit) as search:
        work = executor(root, scripts, slots=slots)
        progress = Scheduler(root, search, poll_seconds=0).run(work)
        record = search.record().search
    assert record is not None
    return record, work, progress


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> SearchRecord:
    folder = tmp_path_factory.mktemp("whole")
    return run(folder, load(folder))[0]


def test_a_search_makes_exactly_its_number_of_suggestions_and_all_are_ordinary_trials(tmp_path: Path) -> None:
    record, executor, progress = run(tmp_path, load(tmp_path))
    assert [s.number for s in record.suggestions] == list(range(8))
    assert record.complete
    assert progress.complete
    written = read_sweep(tmp_path, "small")
    assert written.search == record
    assert len(written.trials) == 8 * 2
    assert {trial.id for trial in written.trials} == {name for s in record.suggestions for name in s.trials}
    assert len(executor.submitted) == len(set(executor.submitted)) == 8 * 2 * 5
    for suggestion in record.suggestions:
        x = suggestion.values["stages.pretrain.corruption.mask_ratio"] + suggestion.values["stages.pretrain.optim.lr_per_256"]
        assert suggestion.scores["generate.fd"] == pytest.approx(3 * (x + 0.05))  # the mean over both seeds
    assert "8 of 8 suggestions done" in outcome_line(record)
    again, executor, _ = run(tmp_path, load(tmp_path))
    assert again == record
    assert executor.submitted == []


@pytest.mark.slow
@pytest.mark.parametrize(("executor", "slots"), [(LastFirst, 5), (LastFirst, 1), (ScriptedExecutor, 30)])
def test_suggestions_do_not_depend_on_which_stage_ends_first(
    tmp_path: Path, whole: SearchRecord, executor: type[ScriptedExecutor], slots: int
) -> None:
    assert run(tmp_path, load(tmp_path), executor, slots=slots)[0] == whole


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ask", "tell"])
@pytest.mark.parametrize("before", [True, False])
def test_a_kill_at_any_suggestion_or_result_changes_nothing(
    tmp_path: Path, whole: SearchRecord, monkeypatch: pytest.MonkeyPatch, method: str, before: bool
) -> None:
    original = getattr(Study, method)
    calls = itertools.count()

    def killed(self: Study, *arguments: Any) -> Any:
        last = next(calls) % 3 == 2
        if last and before:
            raise Killed
        answer = original(self, *arguments)
        if last:
            raise Killed
        return answer

    monkeypatch.setattr(Study, method, killed)
    for _ in range(12):
        try:
            record = run(tmp_path, load(tmp_path))[0]
            break
        except Killed:
            continue
    assert record == whole
    assert next(calls) >= 8


@pytest.mark.slow
def test_another_seed_suggests_other_values(tmp_path: Path, whole: SearchRecord) -> None:
    assert (
        run(tmp_path, load(tmp_path, "search.seed=1", "search.trials=3"))[0].suggestions[0].values
        != whole.suggestions[0].values
    )


@pytest.mark.slow
def test_a_failed_suggestion_stays_failed_in_the_next_command(tmp_path: Path) -> None:
    def script(trials: Sequence[Trial]) -> dict[str, Script]:
        high = [t for t in trials if t.axes["stages.pretrain.corruption.mask_ratio"] > 0.4]
        return {trial.specs["finetune"].key: fail_with("loss is not finite", "nan") for trial in high}

    record, _, progress = run(tmp_path, load(tmp_path), script=script)
    failed = [s for s in record.suggestions if s.state == "failed"]
    assert 0 < len(failed) < 8
    assert {s.why for s in failed} == {"finetune (nan): loss is not finite"}
    assert all(s.values["stages.pretrain.corruption.mask_ratio"] > 0.4 and s.scores == {} for s in failed)
    assert record.complete
    again, executor, _ = run(tmp_path, load(tmp_path))
    assert again == record
    assert executor.submitted == []
    assert len(progress.failures) == 2 * len(failed)


@pytest.mark.slow
def test_a_retried_stage_runs_again_and_its_suggestion_does_not_change(tmp_path: Path) -> None:
    broken: list[str] = []

    def script(trials: Sequence[Trial]) -> dict[str, Script]:
        if len(trials) == 1 and not broken:  # the corners of the space come first, several at a time
            broken.append(trials[0].specs["generate"].key)
        return {key: fail_with("once") for key in broken}

    record = run(tmp_path, load(tmp_path, "search.trials=2", "seeds=[0]"), script=script)[0]
    assert [s.state for s in record.suggestions] == ["failed", "done"]
    assert RunDir(tmp_path, broken[0]).retry()
    again, executor, _ = run(tmp_path, load(tmp_path, "search.trials=2", "seeds=[0]"))
    assert executor.submitted == [broken[0]]
    assert again == record


def test_equal_suggestions_are_one_trial_and_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "two.yaml"
    path.write_text(
        SEARCH.partition("  space:")[0]
        + "  space: {noise.schedule: {choices: [linear, cosine]}}\n"
        + "  objectives: {generate.fd: minimise}\n"
    )
    record, executor, _ = run(tmp_path / "two", load_sweep(path))
    repeated = [s for s in record.suggestions if s.repeats is not None]
    assert len(record.suggestions) == 8
    assert len(repeated) == 6
    assert all(record.suggestions[s.repeats or 0].trials == s.trials for s in repeated)
    assert len(executor.submitted) == 2 * 2 * 5
    assert "6 equal to an earlier one" in outcome_line(record)


@pytest.mark.slow
def test_a_larger_number_of_trials_continues_the_search_and_another_space_begins_a_new_one(tmp_path: Path) -> None:
    short = run(tmp_path, load(tmp_path, "search.trials=4"))[0]
    longer, executor, _ = run(tmp_path, load(tmp_path, "search.trials=6"))
    assert longer.suggestions[:4] == short.suggestions
    assert len(executor.submitted) == 2 * 2 * 5
    assert (
        len(
            run(tmp_path, load(tmp_path, "search.trials=2", "search.space.noise.schedule={choices: [cosine, linear]}"))[
                0
            ].suggestions
        )
        == 2
    )
    assert run(tmp_path, load(tmp_path, "search.trials=6"))[0] == longer


@pytest.mark.slow
def test_each_combination_of_the_axes_has_a_search_of_its_own(tmp_path: Path) -> None:
    record, _, _ = run(tmp_path, load(tmp_path, "axes={stages.finetune.nimg: [320, 640]}", "search.trials=2", "seeds=[0]"))
    assert [(s.arm["stages.finetune.nimg"], s.number) for s in record.suggestions] == [(320, 0), (320, 1), (640, 0), (640, 1)]
    assert record.complete


def test_a_second_command_on_the_same_search_is_refused(tmp_path: Path) -> None:
    sweep = load(tmp_path)
    with (
        Search(sweep, tmp_path, lambda trials: build_graph(tmp_path, trials)),
        pytest.raises(UserError, match="another command"),
    ):
        Search(sweep, tmp_path, lambda trials: build_graph(tmp_path, trials))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "search.objectives={other.fd: minimise}",
            r"objectives = 'other\.fd'.*there is no stage other: expected one of finetune",
        ),
        ("search.space.noise.schedule={choices: [linear, none]}", "noise.schedule: .none. is not accepted"),
        (
            "search.space.stages.pretrain.batch={low: 64, high: 65, int: true}",
            "640 is not accepted: expected a multiple of batch = 65",
        ),
        (
            "search.space.stages.pretrain.optim.lr_per_256={low: 2}",
            "lr_per_256.high: 0.1 is not accepted: expected more than low = 2",
        ),
        ("search.space.seed={low: 0, high: 2}", "'seed' cannot be varied: expected the path of a field"),
        ("search.sampler=grid", "search.sampler = 'grid'"),
        ("search.trials=0", "search.trials = 0"),
        ("axes={noise.schedule: [linear]}", "noise.schedule is named twice"),
    ],
)
def test_a_mistake_is_reported_before_anything_starts(tmp_path: Path, change: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(tmp_path, load(tmp_path, change))
    assert not (tmp_path / "sweeps").exists()
    assert not (tmp_path / "stages").exists()
