"""A search's table and figure: the front is right, the best come first, and equal results give equal bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reporting.built_results import build_sweep

from umd_bench.config.sweep.search import SearchConfig
from umd_bench.reporting.pages.search_figure import search_figure
from umd_bench.reporting.pages.search_table import cells as search_cells
from umd_bench.reporting.report import write_report
from umd_bench.reporting.statistics.search_summary import SearchSummary, pareto_front, summarize_search
from umd_bench.reporting.statistics.summary import summarize
from umd_bench.store import RunDir, SearchRecord, SuggestionRecord, SweepRecord, write_sweep

RATIO = "stages.pretrain.corruption.mask_ratio"
PATCH = "model.patch"
ACCURACY, DISTANCE = "finetune_probe.acc_10shot", "generate.fd_digits_cnn"
# of the suggestions 0..3: 1 is better than 0 in both, 2 trades one for the other, 3 is worse than all
SCORES = [(0.6, 9.0), (0.7, 8.0), (0.65, 6.0), (0.5, 12.0)]


def searched(root: Path, *, objectives: dict[str, str] | None = None, **fields: Any) -> SweepRecord:
    """A search with four finished suggestions, one that repeats the second of them, and one that failed."""
    built = build_sweep(root, axes={RATIO: [0.25, 0.5, 0.125, 0.75]}, sets=("seeds=[0, 1]",))
    config = SearchConfig.model_validate(
        {
            "trials": 6,
            "space": {RATIO: {"low": 0, "high": 0.75}},
            "objectives": objectives or {ACCURACY: "maximise", DISTANCE: "minimise"},
            **fields,
        }
    )
    done = [
        SuggestionRecord(
            number=number,
            arm={},
            values={RATIO: ratio},
            trials=tuple(trial.id for trial in built.trials if trial.axes[RATIO] == ratio),
            state="done",
            scores={name: score for name, score in zip((ACCURACY, DISTANCE), scores, strict=True) if name in config.objectives},
        )
        for number, (ratio, scores) in enumerate(zip(built.axes[RATIO], SCORES, strict=True))
    ]
    repeat = done[1].model_copy(update={"number": 4, "repeats": 1})
    failed = SuggestionRecord(
        number=5, arm={}, values={RATIO: 0.6}, trials=(), state="failed", why="finetune (nan): loss is not finite"
    )
    record = built.model_copy(update={"search": SearchRecord(config=config, arms=1, suggestions=[*done, repeat, failed])})
    write_sweep(root, record)
    return record


def found_in(root: Path) -> SearchSummary:
    found = summarize_search(summarize(root, "mask_ratio"))
    assert found is not None
    return found


def test_the_front_comes_first_and_the_rest_is_sorted_by_the_first_objective(tmp_path: Path) -> None:
    searched(tmp_path)
    found = found_in(tmp_path)
    assert [(row.suggestion.number, row.front) for row in found.ranked] == [(1, True), (2, True), (0, False), (3, False)]
    cells = search_cells(found)
    assert list(cells.columns[:3]) == ["#", "front", "mask_ratio"]
    assert cells["front"].tolist() == ["•", "•", "", ""]
    assert cells["mask_ratio"].tolist() == ["0.5", "0.125", "0.25", "0.75"]
    assert "↑" in cells.columns[3]
    assert "↓" in cells.columns[4]


def test_a_single_objective_has_a_best_and_no_front_column(tmp_path: Path) -> None:
    searched(tmp_path, objectives={DISTANCE: "minimise"})
    found = found_in(tmp_path)
    assert [row.suggestion.number for row in found.ranked] == [2, 1, 0, 3]
    assert "front" not in search_cells(found).columns


def searched_by_arm(root: Path, score: Callable[[int, int], tuple[float, float]]) -> SearchSummary:
    """Twelve suggestions for each of the patches 1 and 2; ``score(patch, number)`` is a suggestion's accuracy and distance."""
    record = searched(root)
    assert record.search is not None
    suggestion = record.search.suggestions[0]
    suggestions = [
        suggestion.model_copy(
            update={"number": i, "arm": {PATCH: patch}, "scores": dict(zip((ACCURACY, DISTANCE), score(patch, i), strict=True))}
        )
        for i in range(12)
        for patch in (1, 2)
    ]
    search = record.search.model_copy(update={"arms": 2, "suggestions": suggestions})
    trials = [trial.model_copy(update={"axes": {PATCH: 1, **trial.axes}}) for trial in record.trials]
    axes = {PATCH: [1, 2], **record.axes}
    write_sweep(root, record.model_copy(update={"search": search, "axes": axes, "trials": trials}))
    return found_in(root)


def test_the_printed_table_has_the_ten_best_of_each_arm(tmp_path: Path) -> None:
    """Here every suggestion of the second arm is better than all of the first."""
    cells = search_cells(searched_by_arm(tmp_path, lambda patch, i: (0.2 * patch + i / 100, 10 - 2 * patch - i / 10)))
    assert cells["patch"].tolist() == ["1"] * 10 + ["2"] * 10
    assert cells["#"].tolist() == [str(i) for i in range(11, 1, -1)] * 2


def test_a_front_of_more_than_ten_is_shown_whole_and_takes_no_row_of_another_arm(tmp_path: Path) -> None:
    """In the first arm a higher accuracy has a higher distance, so all are on the front; in the second, one beats all."""
    best = searched_by_arm(tmp_path, lambda patch, i: (i / 100, 20.0 + (i if patch == 1 else -i))).best()
    assert [(row.suggestion.arm[PATCH], row.suggestion.number) for row in best] == [
        *((1, i) for i in range(11, -1, -1)),
        *((2, i) for i in range(11, 1, -1)),
    ]
    assert [row.front for row in best] == [True] * 13 + [False] * 9


@pytest.mark.slow
def test_the_frame_has_every_suggestion_and_the_notes_name_failures(tmp_path: Path) -> None:
    searched(tmp_path)
    found = found_in(tmp_path)
    frame = found.frame()
    assert frame["number"].tolist() == list(range(6))
    assert frame["front"].tolist() == [False, True, True, False, True, False]
    assert frame["repeats"].tolist()[4] == 1
    notes = " ".join(found.notes)
    for part in ("5 done, 1 failed; among all suggestions, 1 equal to an earlier one", "Parzen", "Failed (1): finetune (nan)"):
        assert part in notes
    assert "Run the best again with other seeds" in notes
    assert found.notes[0] == "Scored on the test split."


def pruned(root: Path) -> SweepRecord:
    """Like :func:`searched`, but the last two finished suggestions were pruned, at different rungs."""
    pruner = {"kind": "median", "metric": "probe.acc_10shot", "direction": "maximise"}
    record = searched(root, objectives={ACCURACY: "maximise"}, pruner=pruner)
    assert record.search is not None
    suggestions = list(record.search.suggestions)
    for number, rungs in ((2, {0.25: 0.4}), (3, {0.25: 0.5, 0.5: 0.45})):
        suggestions[number] = suggestions[number].model_copy(update={"state": "pruned", "scores": {}, "rungs": rungs})
    record = record.model_copy(update={"search": record.search.model_copy(update={"suggestions": suggestions})})
    write_sweep(root, record)
    return record


@pytest.mark.slow
def test_pruned_suggestions_are_in_notes_frame_and_figure_and_have_no_rank(tmp_path: Path) -> None:
    record = pruned(tmp_path)
    found = found_in(tmp_path)
    assert [row.suggestion.number for row in found.ranked] == [1, 0]
    frame = found.frame()
    assert frame["pruned_at"].tolist() == [None, None, 0.25, 0.5, None, None]
    assert frame["probe_at_50.acc_10shot"].tolist()[2:4] == [None, 0.45]
    notes = " ".join(found.notes)
    assert "3 done, 1 failed, 2 pruned" in notes
    assert "Pruned by the median of probe.acc_10shot (maximise): 1 at 25% of the training, 1 at 50% of the training." in notes
    assert "Missing" not in notes
    drawn = search_figure(found)
    assert drawn is not None
    legend = drawn.axes[-1].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["pruned at 25%", "pruned at 50%"]
    low, high = drawn.axes[1].get_xlim()
    assert all(low <= ratio <= high for ratio in record.axes[RATIO])


@pytest.mark.slow
def test_pruned_stages_are_not_reported_as_missing(tmp_path: Path) -> None:
    record = pruned(tmp_path)
    for trial in record.trials:
        if trial.id in record.pruned():
            (RunDir(tmp_path, trial.stages["generate"]).path / "result.json").unlink()
    assert set(record.pruned().values()) == {0.25, 0.5}
    assert not any("Missing" in note for note in summarize(tmp_path, "mask_ratio").notes)


@pytest.mark.slow
def test_rungs_have_no_column_unless_the_report_names_one(tmp_path: Path) -> None:
    record = pruned(tmp_path)
    first = record.trials[0].model_copy(
        update={"stages": record.trials[0].stages | {"probe_at_25": record.trials[0].stages["probe"]}}
    )
    write_sweep(tmp_path, record.model_copy(update={"trials": [first, *record.trials[1:]]}))
    for metrics in ((), ("*.acc_*",)):
        assert "probe_at_25" not in {column.stage for column in summarize(tmp_path, "mask_ratio", metrics=metrics).columns}
    (named,) = summarize(tmp_path, "mask_ratio", metrics=["probe_at_25.acc_10shot"]).columns
    assert named.stage == "probe_at_25"


@pytest.mark.slow
def test_reports_of_a_search_are_the_same_bytes_twice(tmp_path: Path) -> None:
    searched(tmp_path)
    paths = write_report(summarize(tmp_path, "mask_ratio"), tmp_path)
    assert paths.search_md is not None
    assert paths.search_csv is not None
    assert paths.figure_png is not None
    names = (paths.search_md, paths.search_csv, paths.figure_png, paths.table_md)
    first = [path.read_bytes() for path in names]
    write_report(summarize(tmp_path, "mask_ratio"), tmp_path)
    assert [path.read_bytes() for path in names] == first


@pytest.mark.slow
@pytest.mark.parametrize("objectives", [None, {ACCURACY: "maximise"}])
def test_the_figure_shows_the_front_or_the_best_so_far_and_each_hyperparameter(
    tmp_path: Path, objectives: dict[str, str] | None
) -> None:
    searched(tmp_path, objectives=objectives)
    drawn = search_figure(found_in(tmp_path))
    assert drawn is not None
    front, ratio = drawn.axes
    assert front.get_title(loc="left") == ("Pareto front" if objectives is None else "Best so far")
    assert ratio.get_title(loc="left") == "mask_ratio"
    assert [text.get_text() for text in front.texts] == (["1", "2"] if objectives is None else ["1"])


@pytest.mark.slow
def test_a_sweep_without_a_search_has_no_search_report(tmp_path: Path) -> None:
    build_sweep(tmp_path)
    summary = summarize(tmp_path, "mask_ratio")
    assert summarize_search(summary) is None
    assert write_report(summary, tmp_path).search_md is None


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_nothing_beats_the_front_and_something_beats_the_rest(points: list[tuple[int, int]]) -> None:
    front = pareto_front(points)
    assert front

    def beats(a: tuple[int, int], b: tuple[int, int]) -> bool:
        return a != b and a[0] >= b[0] and a[1] >= b[1]

    for i, point in enumerate(points):
        assert (i in front) is not any(beats(other, point) for other in points)
