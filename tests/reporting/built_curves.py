"""A sweep over snapshots with given accuracies, for the tests of curves, their figure and their table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reporting.built_results import build_sweep

from umd_bench.config.sweep.resolve import Trial
from umd_bench.reporting.statistics.curves import Curves, read_curves
from umd_bench.reporting.statistics.summary import summarize

SNAPSHOTS = [0.1, 0.5, 1.0]  # of 40,960 images
IMAGES = [4_096, 20_480, 40_960]
# Accuracy by method and seed at each snapshot: mae overtakes umd between the first two snapshots, for every seed.
VALUES: dict[str, list[list[float]]] = {
    "umd": [[0.40, 0.42, 0.43], [0.41, 0.42, 0.44], [0.40, 0.43, 0.43]],
    "mae": [[0.30, 0.50, 0.60], [0.29, 0.52, 0.59], [0.31, 0.51, 0.60]],
}


def built(root: Path, values: dict[str, list[list[float]]], *, untrained: bool = False, **options: Any) -> Curves | None:
    """The curves of a sweep with these accuracies at 100 shots."""

    def edit(trial: Trial, stage: str, result: dict[str, Any]) -> None:
        if stage == "probe":
            place = SNAPSHOTS.index(trial.axes["stages.probe.snapshot"])
            result["metrics"]["acc_100shot"] = values[trial.config.method][trial.config.seed][place]
            if untrained:
                result["metrics"]["untrained_acc_100shot"] = 0.2 + 0.01 * trial.config.seed

    axes: dict[str, list[Any]] = {"method": list(values), "stages.probe.snapshot": SNAPSHOTS}
    seeds = f"seeds={list(range(len(next(iter(values.values())))))}"
    build_sweep(
        root, "length", axes=axes, sets=(seeds, "stages=[probe]", "report={x: stages.probe.snapshot}"), edit=edit, **options
    )
    return read_curves(summarize(root, "length"))
