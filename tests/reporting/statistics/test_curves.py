"""Curves over snapshots: images seen, where the order of two arms changes, and how sure that is over seeds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reporting.built_curves import IMAGES, VALUES, built
from reporting.built_results import build_sweep
from scipy import stats

from umd_bench.config.sweep.resolve import Trial
from umd_bench.reporting.statistics.curves import read_curves
from umd_bench.reporting.statistics.summary import summarize


def differences_at(images: float, values: dict[str, list[list[float]]]) -> np.ndarray[Any, Any]:
    """mae - umd of every seed, on straight lines over the logarithm of the images."""
    at = [[np.interp(math.log(images), np.log(IMAGES), seed) for seed in values[method]] for method in ("mae", "umd")]
    return np.subtract(*at)


def test_a_curve_runs_over_the_images_that_the_parent_had_seen(tmp_path: Path) -> None:
    curves = built(tmp_path, VALUES, untrained=True)
    assert curves is not None
    (panel,) = curves.panels
    assert panel.column.metric == "acc_100shot"
    assert {curve.name: list(curve.images) for curve in panel.curves} == {"umd": IMAGES, "mae": IMAGES}
    start = panel.curves[0].untrained
    assert start is not None
    assert (start.mean, start.n) == (pytest.approx(0.21), 3)


def test_a_value_that_is_no_word_has_the_name_of_its_axis(tmp_path: Path) -> None:
    axes = {"model.adaln": [False, True], "stages.probe.snapshot": [0.5, 1.0]}
    build_sweep(tmp_path, "length", axes=axes, sets=("seeds=[0]", "stages=[probe]", "report={x: stages.probe.snapshot}"))
    curves = read_curves(summarize(tmp_path, "length"))
    assert curves is not None
    assert {curve.name for panel in curves.panels for curve in panel.curves} == {"adaln no", "adaln yes"}


def test_a_crossing_is_where_the_mean_difference_is_zero(tmp_path: Path) -> None:
    curves = built(tmp_path, VALUES)
    assert curves is not None
    (crossing,) = curves.crossings
    assert (crossing.before, crossing.after, crossing.crossing_seeds, crossing.n) == ("umd", "mae", 3, 3)
    assert differences_at(crossing.images, VALUES).mean() == pytest.approx(0, abs=1e-12)
    assert 4_096 < crossing.images < 20_480
    assert crossing.value == pytest.approx(np.interp(math.log(crossing.images), np.log(IMAGES), np.mean(VALUES["umd"], 0)))


def test_the_interval_ends_where_the_paired_t_test_is_at_five_percent(tmp_path: Path) -> None:
    curves = built(tmp_path, VALUES)
    assert curves is not None
    (crossing,) = curves.crossings
    assert crossing.decided
    assert crossing.low is not None
    assert crossing.high is not None
    assert crossing.low < crossing.images < crossing.high
    for end in (crossing.low, crossing.high):
        assert stats.ttest_1samp(differences_at(end, VALUES), 0).pvalue == pytest.approx(0.05, rel=1e-6)
    for inside in np.geomspace(crossing.low * 1.001, crossing.high * 0.999, 20):
        assert stats.ttest_1samp(differences_at(inside, VALUES), 0).pvalue > 0.05


def test_the_interval_may_end_in_another_segment_than_the_crossing(tmp_path: Path) -> None:
    late = VALUES | {"mae": [[0.30, 0.44, 0.60], [0.29, 0.42, 0.59], [0.31, 0.43, 0.60]]}
    curves = built(tmp_path, late)
    assert curves is not None
    (crossing,) = curves.crossings
    assert crossing.high is not None
    assert crossing.images < 20_480 < crossing.high
    assert stats.ttest_1samp(differences_at(crossing.high, late), 0).pvalue == pytest.approx(0.05, rel=1e-6)


def test_an_interval_is_open_where_no_snapshot_shows_an_order(tmp_path: Path) -> None:
    unsure = VALUES | {"mae": [[0.30, 0.42, 0.45], [0.29, 0.43, 0.42], [0.31, 0.44, 0.46]]}
    curves = built(tmp_path, unsure)
    assert curves is not None
    (crossing,) = curves.crossings
    assert crossing.low is not None
    assert (crossing.high, crossing.decided) == (None, False)
    assert stats.ttest_1samp(differences_at(40_960, unsure), 0).pvalue > 0.05


def test_seeds_that_do_not_cross_are_not_counted(tmp_path: Path) -> None:
    two = VALUES | {"mae": [*VALUES["mae"][:2], [0.41, 0.50, 0.60]]}
    curves = built(tmp_path, two)
    assert curves is not None
    assert [(one.crossing_seeds, one.n) for one in curves.crossings] == [(2, 3)]


def test_without_any_scatter_the_interval_is_the_crossing(tmp_path: Path) -> None:
    curves = built(tmp_path, {"umd": [[0.4, 0.4, 0.4]] * 3, "mae": [[0.3, 0.5, 0.6]] * 3})
    assert curves is not None
    (crossing,) = curves.crossings
    assert crossing.low == pytest.approx(crossing.images, rel=1e-4)
    assert crossing.high == pytest.approx(crossing.images, rel=1e-4)


def test_one_seed_has_a_crossing_without_an_interval(tmp_path: Path) -> None:
    curves = built(tmp_path, {method: values[:1] for method, values in VALUES.items()})
    assert curves is not None
    assert [(one.low, one.high, one.n, one.decided) for one in curves.crossings] == [(None, None, 1, False)]


def test_a_touch_is_no_crossing_and_a_crossing_may_lie_at_a_snapshot(tmp_path: Path) -> None:
    touch = built(tmp_path / "touch", {"umd": [[0.4, 0.4, 0.4]], "mae": [[0.3, 0.4, 0.3]]})
    through = built(tmp_path / "through", {"umd": [[0.4, 0.4, 0.4]], "mae": [[0.3, 0.4, 0.5]]})
    assert touch is not None
    assert through is not None
    assert touch.crossings == ()
    assert [one.images for one in through.crossings] == [pytest.approx(20_480)]


def test_a_seed_without_a_snapshot_is_left_out_of_the_comparison(tmp_path: Path) -> None:
    skipped = {"method=mae,snapshot=0.5,seed=2": ("probe",)}
    curves = built(tmp_path, VALUES, skipped=skipped)
    assert curves is not None
    assert [one.n for one in curves.crossings] == [2]


def test_a_first_seed_that_never_began_does_not_hide_the_snapshot_of_the_others(tmp_path: Path) -> None:
    curves = built(tmp_path, VALUES, skipped={"method=umd,snapshot=0.5,seed=0": ("probe",)})
    assert curves is not None
    (panel,) = curves.panels
    assert [[images for images, _ in curve.points] for curve in panel.curves] == [IMAGES, IMAGES]
    assert [point.n for _, point in panel.curves[0].points] == [3, 2, 3]


def test_the_lower_distance_is_ahead(tmp_path: Path) -> None:
    def edit(trial: Trial, stage: str, result: dict[str, Any]) -> None:
        if stage == "generate":
            share = trial.axes["stages.generate.snapshot"]
            result["metrics"]["fd_digits_cnn"] = 9.0 if trial.config.method == "umd" else 12.0 - 6 * share

    axes: dict[str, list[Any]] = {"method": ["umd", "mae"], "stages.generate.snapshot": [0.2, 1.0]}
    sets = ("tier=digits", "seeds=[0, 1]", "stages=[generate]", "report={x: stages.generate.snapshot}")
    build_sweep(tmp_path, "length", axes=axes, sets=sets, edit=edit)
    curves = read_curves(summarize(tmp_path, "length"))
    assert curves is not None
    assert [(one.before, one.after) for one in curves.crossings] == [("umd", "mae")]
    assert curves.panels[0].column.metric == "fd_digits_cnn"
    assert curves.panels[0].curves[0].images == (40_960 + 4_096, 40_960 + 20_480)


def test_a_sweep_over_no_snapshot_has_no_curves(tmp_path: Path) -> None:
    build_sweep(tmp_path, "methods", sets=("seeds=[0]",))
    assert read_curves(summarize(tmp_path, "methods")) is None
