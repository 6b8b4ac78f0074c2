"""Searches prune the same trials at any timing and after a kill at any moment, and end the stages of those trials for good."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from orchestration.scripted import ScriptedExecutor, fail_with
from orchestration.search.test_search import SEARCH, Killed
from orchestration.small import write_small
from orchestration.stepping import STEPS, SteppingExecutor, finish, step, steps_of

from umd_bench.config.errors import UserError
from umd_bench.config.sweep.resolve import Sweep, Trial, load_sweep
from umd_bench.config.trial.train_stage import TrainStage
from umd_bench.orchestration.executors import inline
from umd_bench.orchestration.executors.contract import Executor
from umd_bench.orchestration.graph import Node, build_graph
from umd_bench.orchestration.monitor.stage_status import status_json
from umd_bench.orchestration.monitor.status import status_table
from umd_bench.orchestration.monitor.watch import Watcher
from umd_bench.orchestration.retry import retry
from umd_bench.orchestration.scheduler import Scheduler
from umd_bench.orchestration.search.records import outcome_line
from umd_bench.orchestration.search.rungs import with_rungs
from umd_bench.orchestration.search.search import Search
from umd_bench.orchestration.search.suggestions import Study
from umd_bench.orchestration.trial_source import Changes, Grid, SweepProgress
from umd_bench.store import Failure, RunDir, SearchRecord, StageState, parent_done, read_sweep

MEDIAN = "search.pruner={kind: median, metric: probe.acc_5shot, direction: maximise, startup: 2}"
LOSS = "search.pruner={kind: median, metric: pretrain.loss, direction: minimise, startup: 2}"
WORST = 0.35  # trainings fail half-way if their `stepping.badness` is above this
ONLY_RATES = "{stages.pretrain.optim.lr_per_256: {low: 1.0e-4, high: 1.0e-1, log: true}}"
FEW_RATIOS = "{stages.pretrain.corruption.mask_ratio: {choices: [0.1, 0.2, 0.3, 0.5, 0.6]}}"


def load(folder: Path, *sets: str, space: str | None = None) -> Sweep:
    path = folder / "search.yaml"
    head, _, rest = SEARCH.partition("  space:")
    path.write_text(SEARCH if space is None else f"{head}  space: {space}\n  objectives:{rest.partition('objectives:')[2]}")
    return load_sweep(path, sets=sets)


def run(root: Path, sweep: Sweep, *, slots: int = 2, seed: int = 0) -> tuple[SearchRecord, SteppingExecutor, SweepProgress]:
    executor = SteppingExecutor(root, slots=slots, seed=seed)
    record, progress = run_on(executor, root, sweep)
    return record, executor, progress


def run_on(executor: Executor, root: Path, sweep: Sweep, *, poll_seconds: float = 0) -> tuple[SearchRecord, SweepProgress]:
    with Search(sweep, root, lambda trials: build_graph(root, trials)) as search:
        progress = Scheduler(root, search, poll_seconds=poll_seconds).run(executor)
        record = search.record().search
    assert record is not None
    return record, progress


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SearchRecord]:
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(folder, load(folder, MEDIAN))[0]


@pytest.mark.slow
def test_a_pruned_trial_counts_as_a_suggestion_and_all_its_stages_end(whole: tuple[Path, SearchRecord]) -> None:
    root, record = whole
    pruned = [s for s in record.suggestions if s.state == "pruned"]
    done = [s for s in record.suggestions if s.state == "done"]
    assert len(pruned) + len(done) == 8
    assert len(pruned) >= 2
    assert record.complete
    assert f"{len(done)} of 8 suggestions done, {len(pruned)} pruned" in outcome_line(record)
    trials = {trial.id: trial for trial in read_sweep(root, "small").trials}
    for suggestion in pruned:
        assert suggestion.pruned_at in (0.25, 0.5)
        for name in suggestion.trials:
            stages = {stage: RunDir(root, key) for stage, key in trials[name].stages.items()}
            rungs = [f"probe_at_{round(100 * share)}" for share in suggestion.rungs]
            assert {stage for stage, at in stages.items() if at.attempts()} <= {"pretrain", "probe_at_25", "probe_at_50"}
            assert all(stages[rung].result() is not None for rung in rungs)
            assert stages["pretrain"].failure() is None
            assert steps_of(stages["pretrain"]) < STEPS
    for suggestion in done:
        assert suggestion.pruned_at is None
        assert list(suggestion.rungs) == [0.25, 0.5]
        assert len(suggestion.scores) == 2
    # At the first rung every pruned suggestion is worse than the best finished one.
    best = max(done, key=lambda s: s.rungs[0.25])
    assert all(s.rungs[0.25] < best.rungs[0.25] for s in pruned)


@pytest.mark.slow
def test_the_next_command_and_a_retry_leave_pruned_trials_alone(tmp_path: Path) -> None:
    record = run(tmp_path, load(tmp_path, MEDIAN))[0]
    trial = next(t for t in read_sweep(tmp_path, "small").trials if t.id in read_sweep(tmp_path, "small").pruned())
    with RunDir(tmp_path, trial.stages["pretrain"]).begin() as attempt:  # it failed while it was being stopped
        attempt.fail(Failure(state="nan", message="not finite", fingerprint="f"))
    assert retry(tmp_path, "small") == []
    again, executor, progress = run(tmp_path, load(tmp_path, MEDIAN))
    assert again == record
    assert executor.submitted == []
    assert progress.complete


@pytest.mark.slow
@pytest.mark.parametrize(("slots", "seed"), [(1, 1), (5, 3), (40, 4)])
def test_pruning_does_not_depend_on_the_timing(tmp_path: Path, whole: tuple[Path, SearchRecord], slots: int, seed: int) -> None:
    record, executor, progress = run(tmp_path, load(tmp_path, MEDIAN), slots=slots, seed=seed)
    assert record == whole[1]
    assert executor.most_at_once <= slots
    assert progress.failures == {}
    assert progress.complete


@pytest.mark.slow
def test_pruning_at_a_rung_before_a_training_fails_does_not_depend_on_the_timing(tmp_path: Path) -> None:
    records = []
    for slots, seed in ((1, 1), (40, 3)):
        folder = tmp_path / f"{slots}-{seed}"
        folder.mkdir()
        executor = SteppingExecutor(folder, slots=slots, seed=seed, worst=WORST)
        records.append(run_on(executor, folder, load(folder, MEDIAN))[0])
    assert all(record == records[0] for record in records)
    assert {"done", "pruned", "failed"} == {s.state for s in records[0].suggestions}
    assert records[0].complete


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["successive_halving", "hyperband"])
def test_halving_and_hyperband_do_not_depend_on_the_timing_either(tmp_path: Path, kind: str) -> None:
    pruner = f"search.pruner={{kind: {kind}, metric: generate.fd, rungs: [0.2, 0.4, 0.8], reduction: 2}}"
    records = []
    for slots in (1, 7):
        folder = tmp_path / str(slots)
        folder.mkdir()
        records.append(run(folder, load(folder, pruner, "search.trials=9", "seeds=[0]"), slots=slots, seed=slots)[0])
    assert records[0] == records[1]
    states = [s.state for s in records[0].suggestions]
    assert {"done", "pruned"} == set(states)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ask", "report", "tell"])
@pytest.mark.parametrize("before", [True, False])
def test_a_kill_at_any_decision_changes_nothing(
    tmp_path: Path, whole: tuple[Path, SearchRecord], monkeypatch: pytest.MonkeyPatch, method: str, before: bool
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
    for attempt in range(20):
        try:
            record = run(tmp_path, load(tmp_path, MEDIAN), seed=attempt)[0]
            break
        except Killed:
            continue
    assert record == whole[1]
    assert next(calls) >= 8
    trials = {trial.id: trial for trial in read_sweep(tmp_path, "small").trials}
    for name in read_sweep(tmp_path, "small").pruned():  # of a pruned trial only the training and its rungs have begun
        begun = {stage for stage, key in trials[name].stages.items() if RunDir(tmp_path, key).attempts()}
        assert begun <= {"pretrain", "probe_at_25", "probe_at_50"}


@pytest.mark.slow
def test_trainings_pause_for_their_rungs_if_every_slot_is_taken(tmp_path: Path) -> None:
    """Otherwise a rung would wait until the training that it may prune is over."""
    record, executor, _ = run(tmp_path, load(tmp_path, MEDIAN, "seeds=[0]", "search.parallel=2"), slots=2)
    trained = {trial.stages["pretrain"] for trial in read_sweep(tmp_path, "small").trials}
    pruned = {trial.stages["pretrain"] for trial in read_sweep(tmp_path, "small").trials} & read_sweep(
        tmp_path, "small"
    ).abandoned_keys()
    assert len(pruned) == sum(s.state == "pruned" for s in record.suggestions)
    assert pruned
    assert all(steps_of(RunDir(tmp_path, key)) < STEPS for key in pruned)
    assert any(executor.submitted.count(key) > 1 for key in trained - pruned)


@pytest.fixture
def called_back_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inline, "CALLBACK_SECONDS", 0.0)
    monkeypatch.setattr(inline, "MAX_CALLBACK_SHARE", 1e9)


@pytest.mark.slow
@pytest.mark.usefixtures("called_back_at_every_step")
def test_with_the_inline_executor_trainings_pause_too_and_end_where_they_are_pruned(
    tmp_path: Path, whole: tuple[Path, SearchRecord]
) -> None:
    executor = inline.InlineExecutor(tmp_path, tmp_path, entry_point="orchestration.stepping:run_here")
    record, progress = run_on(executor, tmp_path, load(tmp_path, MEDIAN))
    assert record == whole[1]
    assert progress.failures == {}
    trials = {trial.id: trial for trial in read_sweep(tmp_path, "small").trials}
    for s in record.suggestions:
        if s.pruned_at is not None:
            steps = [steps_of(RunDir(tmp_path, trials[name].stages["pretrain"])) for name in s.trials]
            assert steps == [
                2,
                2,
            ]  # a step is 160 images, and the rungs are at 192 and 320: for either, step 2 is the first that reaches it


@pytest.mark.slow
@pytest.mark.usefixtures("called_back_at_every_step")
def test_an_error_of_the_search_while_a_stage_runs_ends_the_command_and_does_not_fail_the_stage(tmp_path: Path) -> None:
    pruner = "search.pruner={kind: median, metric: pretrain.losss, direction: minimise}"
    executor = inline.InlineExecutor(tmp_path, tmp_path, entry_point="orchestration.stepping:run_here")
    with pytest.raises(UserError, match="pretrain has no metric 'losss': expected one of loss"):
        run_on(executor, tmp_path, load(tmp_path, pruner, space=ONLY_RATES))
    assert all(RunDir(tmp_path, at.name).failure() is None for at in (tmp_path / "stages").iterdir())


def test_a_pruner_changes_no_key_and_a_search_without_one_keeps_its_identity(tmp_path: Path) -> None:
    plain, pruning = load(tmp_path), load(tmp_path, MEDIAN)
    assert plain.config.search is not None
    assert pruning.config.search is not None
    for without, trial in zip(plain.corners(), pruning.corners(), strict=True):
        specs = with_rungs(pruning.config.search, trial).specs
        assert {name: spec.key for name, spec in specs.items() if name in without.specs} == {
            name: spec.key for name, spec in without.specs.items()
        }
        assert set(specs) - set(without.specs) == {"probe_at_25", "probe_at_50"}
        assert specs["probe_at_25"].parent_nimg == 192  # a quarter is 2.5 batches of 64, rounded up to 3
    assert "pruner" not in plain.config.search.identity()


def finished_before(root: Path, trials: Sequence[Trial]) -> None:
    for trial in trials:
        for spec in trial.specs.values():
            run_dir = RunDir(root, spec.key)
            if run_dir.result() is None:
                run_dir.prepare(spec)
                finish(run_dir)


@pytest.mark.slow
def test_a_suggestion_whose_results_exist_already_is_not_pruned(tmp_path: Path, whole: tuple[Path, SearchRecord]) -> None:
    sweep = load(tmp_path, MEDIAN)
    number = next(s.number for s in whole[1].suggestions if s.state == "pruned")
    known = sweep.suggested({}, whole[1].suggestions[number].values)
    finished_before(tmp_path, known)
    record, executor, _ = run(tmp_path, sweep)
    assert record.suggestions[number].state == "done"
    assert record.suggestions[number].rungs == {}
    assert not {spec.key for trial in known for spec in trial.specs.values()} & set(executor.submitted)


@pytest.mark.slow
def test_equal_suggestions_are_pruned_as_one(tmp_path: Path) -> None:
    sweep = load(tmp_path, MEDIAN, "search.sampler=random", "search.seed=2", "search.trials=12", "seeds=[0]", space=FEW_RATIOS)
    record, executor, _ = run(tmp_path, sweep)
    repeats = [s for s in record.suggestions if s.repeats is not None]
    assert len(repeats) >= 7
    for s in repeats:
        first = record.suggestions[s.repeats or 0]
        assert (s.state, s.scores, s.rungs) == (first.state, first.scores, first.rungs)
    assert any(s.state == "pruned" for s in repeats)
    rungs = [key for key in executor.submitted if RunDir(tmp_path, key).config().kind == "probe"]
    assert len(rungs) == len(set(rungs))


@pytest.mark.slow
def test_a_loss_is_read_from_the_events_of_running_trainings(tmp_path: Path) -> None:
    record = run(tmp_path, load(tmp_path, LOSS, "seeds=[0]", space=ONLY_RATES))[0]
    pruned = [s for s in record.suggestions if s.state == "pruned"]
    assert pruned
    trials = {trial.id: trial for trial in read_sweep(tmp_path, "small").trials}
    for s in pruned:
        assert set(trials[s.trials[0]].stages) == {"pretrain", "probe", "finetune", "finetune_probe", "generate"}
        assert steps_of(RunDir(tmp_path, trials[s.trials[0]].stages["pretrain"])) < STEPS
    other = tmp_path / "other"
    other.mkdir()
    assert run(other, load(other, LOSS, "seeds=[0]", space=ONLY_RATES), slots=9, seed=5)[0] == record


def test_the_first_record_since_the_rung_counts_even_if_a_later_attempt_writes_more(tmp_path: Path) -> None:
    from umd_bench.orchestration.search.rungs import rung_value

    sweep = load(tmp_path, LOSS, space=ONLY_RATES)
    assert sweep.config.search is not None
    trial = sweep.corners()[0]
    training = RunDir(tmp_path, trial.specs["pretrain"].key)
    training.prepare(trial.specs["pretrain"])
    assert rung_value(tmp_path, sweep.config.search, trial, 1) is None
    for number in (1, 2, 3):
        step(training, number)
    with training.begin() as attempt:  # resumed after the rung
        attempt.event("metrics", nimg=600, loss=99.0, lr=1.0)
    loss = next(event["loss"] for event in training.events() if event["event"] == "metrics" and event["nimg"] == 320)
    assert rung_value(tmp_path, sweep.config.search, trial, 1) == loss


@pytest.mark.slow
def test_status_and_watch_show_pruned_trials_and_do_not_wait_for_them(whole: tuple[Path, SearchRecord]) -> None:
    root, record = whole
    pruned = {name: s.pruned_at for s in record.suggestions if s.pruned_at is not None for name in s.trials}
    status = status_json(root, "small")["sweeps"][0]
    assert status["complete"]
    assert status["pruned"] == len(pruned)
    assert sum(status["counts"].values()) == status["counts"]["done"]
    assert {t["id"]: t["pruned"] for t in status["trials"] if t["state"] == "pruned"} == pruned
    assert Watcher(root, "small").view().complete
    table = status_table(root, "small")
    rows = dict(zip(table.columns[0].cells, table.columns[1].cells, strict=True))
    assert {name: rows[name] for name in pruned} == {name: f"[dim]pruned at {100 * at:g}%[/]" for name, at in pruned.items()}
    assert sum("pruned" in str(cell) for column in table.columns for cell in column.cells) == len(pruned)


class Dropping:
    """A source that adds a graph, and drops some of its stages once ``when`` was true."""

    grows = False

    def __init__(self, nodes: dict[str, Node], dropped: set[str], when: Callable[[SweepProgress], bool]) -> None:
        self._nodes, self._dropped, self._when = nodes, dropped, when
        self._drops = False

    def update(self, progress: SweepProgress) -> Changes:
        added, self._nodes = self._nodes, {}
        self._drops = self._drops or (not added and self._when(progress))
        return Changes(added, self._dropped if self._drops else set())


def test_a_dropped_stage_leaves_the_graph_and_is_no_failure(tmp_path: Path) -> None:
    trial = load(tmp_path, MEDIAN).corners()[0]
    gone = {trial.specs[name].key for name in ("finetune", "finetune_probe", "generate")}
    source = Dropping(build_graph(tmp_path, [trial]), gone, lambda progress: True)
    progress = Scheduler(tmp_path, source, poll_seconds=0).run(SteppingExecutor(tmp_path))
    assert {node.name for node in progress.nodes.values()} == {"pretrain", "probe"}
    assert all(node.state is StageState.DONE for node in progress.nodes.values())
    assert progress.complete
    assert progress.failures == {}


@pytest.mark.parametrize("before", [True, False])
def test_a_stage_that_fails_before_or_after_it_is_dropped_is_no_failure_of_the_sweep(tmp_path: Path, before: bool) -> None:
    """With two slots the probe and the fine-tuning run side by side, and the probe ends first."""
    trial = load_sweep(write_small(tmp_path), sets=["axes={}", "seeds=[0]"]).trials[0]
    finetune = trial.specs["finetune"].key
    gone = {finetune, trial.specs["finetune_probe"].key, trial.specs["generate"].key}
    when = (lambda p: finetune in p.failures) if before else (lambda p: p.nodes[finetune].state is StageState.RUNNING)
    failed: list[bool] = []

    def fail(run: RunDir, tries: int) -> None:
        failed.append(True)
        fail_with("it broke")(run, tries)

    executor = ScriptedExecutor(tmp_path, {finetune: fail}, slots=2)
    source = Dropping(build_graph(tmp_path, [trial]), gone, when)
    progress = Scheduler(tmp_path, source, poll_seconds=0).run(executor)
    assert failed
    assert progress.failures == {}
    assert progress.blocked == set()
    assert set(progress.nodes) == {trial.specs[name].key for name in ("pretrain", "probe")}
    assert progress.complete


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (
            ["search.pruner={kind: median}"],
            r"search\.pruner\.metric: is missing: expected one stage\.metric to prune by",
        ),
        (
            ["search.pruner={kind: best}"],
            r"search\.pruner\.kind = 'best' is not accepted: expected median, successive_halving or hyperband",
        ),
        (
            ["search.pruner={kind: median, metric: probe.acc_5shot}"],
            r"search\.pruner\.direction: is missing: expected maximise or minimise, since probe\.acc_5shot is no objective",
        ),
        (
            ["search.pruner={kind: median, metric: generate.fd, direction: maximise}"],
            r"search\.pruner\.direction: 'maximise' is not accepted: expected minimise, as the objective says",
        ),
        ([MEDIAN, "search.pruner.rungs=[0.5, 0.25]"], r"search\.pruner\.rungs.*each more than the one before"),
        ([MEDIAN, "search.pruner.rungs=[]"], r"search\.pruner\.rungs: \[\] is not accepted: expected shares"),
        (
            [MEDIAN, "search.pruner.rungs=[0.96]"],
            r"pretrain has 10 steps, so two rungs, or a rung and the end, would be at the same step",
        ),
        ([MEDIAN, "search.pruner.metric=prob.acc_5shot"], r"search\.yaml:\d+: search\.pruner\.metric|there is no stage prob"),
        ([LOSS], r"cannot be compared between trials that differ in stages\.pretrain\.corruption\.mask_ratio, noise\.schedule"),
    ],
)
def test_a_mistake_is_reported_before_anything_starts(tmp_path: Path, sets: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(tmp_path, load(tmp_path, *sets))
    assert not (tmp_path / "sweeps").exists()
    assert not (tmp_path / "stages").exists()


def test_the_error_names_a_metric_that_a_rung_does_not_report_and_lists_its_metrics(tmp_path: Path) -> None:
    pruner = "search.pruner={kind: median, metric: probe.acc_7shot, direction: maximise}"
    with pytest.raises(UserError, match="probe has no metric 'acc_7shot': expected one of acc_5shot, fd, loss_final"):
        run(tmp_path, load(tmp_path, pruner))


def test_only_a_rung_can_begin_with_the_weights_of_an_unfinished_training(tmp_path: Path) -> None:
    sweep = load(tmp_path, MEDIAN)
    assert sweep.config.search is not None
    nodes = build_graph(tmp_path, [with_rungs(sweep.config.search, sweep.corners()[0])])
    training = next(node for node in nodes.values() if isinstance(node.spec.stage, TrainStage))
    first, second = (node for node in nodes.values() if node.name.startswith("probe_at"))
    first.rung = True
    RunDir(tmp_path, training.key).prepare(training.spec)
    step(RunDir(tmp_path, training.key), 3)
    executor = SteppingExecutor(tmp_path, slots=3)

    def kill(progress: SweepProgress) -> None:
        raise Killed

    with pytest.raises(Killed):
        Scheduler(tmp_path, Grid(nodes), poll_seconds=0).run(executor, observe=kill)
    assert executor.submitted == [first.key, training.key]
    assert second.state is StageState.NEW
    at_the_end = next(node for node in nodes.values() if node.name == "probe")
    RunDir(tmp_path, at_the_end.key).prepare(at_the_end.spec)
    assert parent_done(RunDir(tmp_path, first.key))  # a job checks this before it begins
    assert not parent_done(RunDir(tmp_path, at_the_end.key))
