"""The numbers of the sweep `methods` by stage, metric, method and seed, and the few statistics that every gate needs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from umd_bench.reporting.notation.metrics import direction, is_extrapolated, is_percent, scale, title
from umd_bench.reporting.statistics.summary import Estimate, Summary, estimate

OFFICIAL, BEST = "probe", "best_probe"  # the stages with the published read-out, and with the one chosen on validation
GENERATE = "generate"
_FEW_SHOT = re.compile(r"acc_(\d+)shot")

BySeed = Mapping[int, float]  # seed -> value


@dataclass(frozen=True)
class Numbers:
    """``values[stage, metric][method][seed]``, in the metric's own unit; ``methods`` and ``seeds`` in the sweep's order."""

    values: Mapping[tuple[str, str], Mapping[str, BySeed]]
    methods: tuple[str, ...]
    seeds: tuple[int, ...]

    @classmethod
    def of(cls, summary: Summary) -> Numbers:
        """All numbers of a sweep whose arms are methods."""
        values: dict[tuple[str, str], dict[str, dict[int, float]]] = {}
        rows = summary.long[summary.long["value"].notna()]
        columns = rows[["stage", "metric", "method", "seed", "value"]]
        for stage, metric, method, seed, value in columns.itertuples(index=False, name=None):
            values.setdefault((stage, metric), {}).setdefault(method, {})[int(seed)] = float(value)
        methods = tuple(dict.fromkeys(trial.method for trial in summary.sweep.trials))
        return cls(values, methods, tuple(summary.sweep.seeds))

    def of_method(self, stage: str, metric: str, method: str) -> BySeed:
        """Seed -> value; empty if there is none."""
        return self.values.get((stage, metric), {}).get(method, {})

    @cached_property
    def stages(self) -> tuple[str, ...]:
        """The stages with any number."""
        return tuple(dict.fromkeys(stage for stage, _ in self.values))

    def metrics(self, stage: str) -> list[str]:
        """The metrics of a stage that any method has."""
        return [metric for at, metric in self.values if at == stage]

    def most_shots(self, stage: str) -> str | None:
        """A probe stage's few-shot accuracy at its largest number of shots, which the gates judge; None if it has none."""
        found = [(int(match[1]), metric) for metric in self.metrics(stage) if (match := _FEW_SHOT.fullmatch(metric))]
        return max(found)[1] if found else None

    def distance(self, stage: str = GENERATE) -> str | None:
        """The Fréchet distance of a generate stage, by an extractor that classifies the samples if there is one."""
        found = [m for m in self.metrics(stage) if m == "fid" or (m.startswith("fd_") and not is_extrapolated(m))]
        classifying = [metric for metric in found if self.accuracy(metric, stage) is not None]
        return next(iter(classifying or found), None)

    def accuracy(self, distance: str, stage: str = GENERATE) -> str | None:
        """The metric of the samples' accuracy by the extractor of ``distance``; None if it does not classify them."""
        name = distance.replace("fd_", "accuracy_", 1)
        return name if name != distance and (stage, name) in self.values else None


@dataclass(frozen=True)
class Shown:
    """A metric as the card shows it: percentages times 100, kernel distances times 1000."""

    stage: str
    metric: str

    @property
    def title(self) -> str:
        """``probe 100-shot %``."""
        return title(self.stage, self.metric)

    @property
    def factor(self) -> int:
        """What a value is multiplied by."""
        return 100 if is_percent(self.metric) else scale(self.metric)

    @property
    def higher_is_better(self) -> bool:
        """Whether larger values are better."""
        return direction(self.metric) == "up"


def mean(values: BySeed) -> float | None:
    """The mean over the seeds; None without any."""
    return sum(values.values()) / len(values) if values else None


def difference(ours: BySeed, theirs: BySeed) -> Estimate | None:
    """Ours minus theirs, seed by seed, with Student's interval; None without a common seed."""
    common = [seed for seed in ours if seed in theirs]
    return estimate([ours[seed] - theirs[seed] for seed in common], common) if common else None


def above_zero(one: Estimate) -> bool | None:
    """Whether the whole interval lies above 0; None if there is no interval, with one seed."""
    return None if one.half is None else one.mean - one.half > 0


def rounded(value: float | None, digits: int = 4) -> float | None:
    """The value with ``digits`` significant digits, as a card keeps it."""
    return None if value is None else float(f"{value:.{digits}g}")


def listed(names: Iterable[str]) -> str:
    """``mae, umd``, or ``none``."""
    return ", ".join(names) or "none"
