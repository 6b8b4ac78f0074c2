"""Metrics for people: their headers, units and directions, and the order in which a table shows them.

Only a Fréchet distance of Inception-v3 features is called ``fid``; any other has its extractor's name in it.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """Metrics of one kind: those whose whole name matches ``pattern``.

    Better values lie in ``direction``: ``up``, ``down`` or empty. ``percent`` metrics are fractions in [0, 1], shown times
    100. A metric that is not ``by_default`` is shown only if the sweep's report names it.
    """

    pattern: str
    direction: str
    percent: bool = False
    by_default: bool = True


# In the order in which a table shows them.
FAMILIES = (
    Family(r"acc_(\d+shot|knn\d+|linear)", "up", percent=True),
    Family(r"s?fid|fid_inf|fd_.+", "down"),
    Family(r"kid_?.*", "down"),
    Family(r"is|is_.+", "up"),
    Family(r"accuracy_.+", "up", percent=True),
    Family(r"(precision|recall).*", "up", percent=True),
    Family(r"memorised.*", "down", percent=True, by_default=False),
)
# A table shows metrics of these kinds of stages by default; a training stage's loss only if the sweep's report names it.
REPORTED_KINDS = ("probe", "generate")
ARROWS = {"up": "↑", "down": "↓", "": ""}
STAGE_TITLES = {
    "best_probe": "best probe",
    "probe_t1": "t=1 probe",
    "finetune_probe": "fine-tuned probe",
    "generate": "",
}


def family(metric: str) -> Family | None:
    """The family that a metric belongs to; None for a metric of no family, such as a spread or a loss."""
    if metric.endswith("_sd"):
        return None
    return next((f for f in FAMILIES if re.fullmatch(f.pattern, metric)), None)


def shown_by_default(metrics: Collection[str]) -> list[str]:
    """The ones of a stage's ``metrics`` that a table shows if the sweep's report names none.

    An inception score is left out if the same classifier's accuracy on the samples is known. The accuracy says more, since away
    from the classifier's own images the score need not fall when samples get worse.
    """
    shown = []
    for metric in metrics:
        known = family(metric)
        has_accuracy = metric.startswith("is_") and metric.replace("is_", "accuracy_", 1) in metrics
        if known is not None and known.by_default and not has_accuracy:
            shown.append(metric)
    return shown


def is_extrapolated(metric: str) -> bool:
    """Whether a metric is a Fréchet distance extrapolated to infinitely many samples."""
    return metric == "fid_inf" or metric.startswith("fd_inf_")


def sort_key(metric: str) -> tuple[int, list[int | str]]:
    """Sorts metrics by family, then by name, with numbers by their value (10-shot before 100-shot)."""
    known = family(metric)
    place = len(FAMILIES) if known is None else FAMILIES.index(known)
    return place, [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", metric)]


def is_percent(metric: str) -> bool:
    """Whether a metric in [0, 1] is shown times 100."""
    known = family(metric)
    return known is not None and known.percent


def scale(metric: str) -> int:
    """The factor that a table multiplies by, apart from percent: 1000 for kernel distances, which are small, else 1."""
    return 1000 if re.fullmatch(r"kid_?.*", metric) else 1


def title(stage: str, metric: str) -> str:
    """``probe 10-shot %``, ``fd_digits_cnn``: the metric of the stage, without its direction."""
    unit = " %" if is_percent(metric) else " ×10³" if scale(metric) == 1000 else ""
    shown = re.sub(r"^acc_(\d+)shot$", r"\1-shot", metric)
    shown = re.sub(r"^acc_knn(\d+)$", r"\1-NN", shown).removeprefix("acc_")
    return f"{STAGE_TITLES.get(stage, stage)} {shown}{unit}".strip()


def direction(metric: str) -> str:
    """Where a metric's better values lie: ``up``, ``down``, or empty if that is not known."""
    known = family(metric)
    return known.direction if known else ""


def header(stage: str, metric: str) -> str:
    """:func:`title` with an arrow towards the better values."""
    return f"{title(stage, metric)} {ARROWS[direction(metric)]}".strip()
