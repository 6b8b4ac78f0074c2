"""How a metric is called and written for people: header, direction, unit, digits.

A Fréchet distance is called ``fid`` only where its metric is (Inception-v3 features); any other keeps its extractor's name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """Metrics that are read alike. ``better`` is ``up``, ``down`` or empty; ``percent`` metrics are fractions in [0, 1].

    Those that are not ``standard`` are shown where they are asked for.
    """

    pattern: str
    better: str
    percent: bool = False
    standard: bool = True


# In the order in which a table shows them.
FAMILIES = (
    Family(r"acc_(\d+shot|knn\d+|linear)", "up", percent=True),
    Family(r"s?fid|fid_inf|fd_.+", "down"),
    Family(r"kid_?.*", "down"),
    Family(r"is|is_.+", "up"),
    Family(r"accuracy_.+", "up", percent=True),
    Family(r"(precision|recall).*", "up", percent=True),
    Family(r"memorised.*", "down", percent=True, standard=False),
)
# Metrics of these kinds of stages are what a sweep is about; a training stage's loss is shown only when asked for.
REPORTED_KINDS = ("probe", "generate")
MISSING = "–"
ARROWS = {"up": "↑", "down": "↓", "": ""}
STAGE_TITLES = {"finetune_probe": "fine-tuned probe", "generate": ""}


def family(metric: str) -> Family | None:
    """The family a metric belongs to; None for one that is not shown unless asked for (a spread, a loss)."""
    if metric.endswith("_sd"):
        return None
    return next((f for f in FAMILIES if re.fullmatch(f.pattern, metric)), None)


def standard(metrics: Collection[str]) -> list[str]:
    """Those of one stage's metrics that a table shows unasked.

    Where the share of samples of the class they were asked for is known, the inception score is left out: off the images that
    its classes are of it need not fall when samples get worse.
    """
    shown = []
    for metric in metrics:
        found = family(metric)
        by_own_classes = metric.startswith("is_") and metric.replace("is_", "accuracy_", 1) in metrics
        if found is not None and found.standard and not by_own_classes:
            shown.append(metric)
    return shown


def is_extrapolated(metric: str) -> bool:
    """Whether a Fréchet distance is the one without end of samples."""
    return metric == "fid_inf" or metric.startswith("fd_inf_")


def rank(metric: str) -> tuple[int, list[int | str]]:
    """Sorts metrics by family, then by name with numbers in their order (10-shot before 100-shot)."""
    found = family(metric)
    place = len(FAMILIES) if found is None else FAMILIES.index(found)
    return place, [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", metric)]


def is_percent(metric: str) -> bool:
    """Whether a metric in [0, 1] is shown times 100."""
    found = family(metric)
    return found is not None and found.percent


def scale(metric: str) -> int:
    """What a metric that is no percentage is shown times: kernel distances times a thousand, as they are small."""
    return 1000 if re.fullmatch(r"kid_?.*", metric) else 1


def title(stage: str, metric: str) -> str:
    """``probe 10-shot %``, ``fd_digits_cnn``: the metric of the stage, without its direction."""
    unit = " %" if is_percent(metric) else " ×10³" if scale(metric) == 1000 else ""
    shown = re.sub(r"^acc_(\d+)shot$", r"\1-shot", metric)
    shown = re.sub(r"^acc_knn(\d+)$", r"\1-NN", shown).removeprefix("acc_")
    return f"{STAGE_TITLES.get(stage, stage)} {shown}{unit}".strip()


def better(metric: str) -> str:
    """Where its better values lie: ``up``, ``down``, or empty where nothing says."""
    found = family(metric)
    return found.better if found else ""


def header(stage: str, metric: str) -> str:
    """:func:`title` with an arrow towards the better values."""
    return f"{title(stage, metric)} {ARROWS[better(metric)]}".strip()


def number(mean: float, half: float | None, *, percent: bool) -> str:
    """``78.3 ± 1.2``: percents with one decimal, other numbers with three significant digits and at most four decimals."""
    scale = 100 if percent else 1
    decimals = 1 if percent else _decimals(mean)
    if half is not None and 0 < half * scale < 0.5 * 10**-decimals:
        decimals = _decimals(half * scale) - 1
    return f"{mean * scale:.{decimals}f}" + ("" if half is None else f" ± {half * scale:.{decimals}f}")


def difference(mean: float, half: float, *, percent: bool) -> str:
    """``+0.67 ± 0.17``: signed, with the half-width's two significant digits, of percents one decimal or as many."""
    scale = 100 if percent else 1
    decimals = 2 if half == 0 else min(max(1 - math.floor(math.log10(half * scale)), 0), 4)
    decimals = 1 if percent and (half == 0 or half * scale >= 0.05) else decimals
    signed = f"{mean * scale:+.{decimals}f}"
    return f"{signed if signed.strip('+-0.') else signed[1:]} ± {half * scale:.{decimals}f}"


def axis_value(value: object) -> str:
    """An axis value or a fact as a person would write it: ``0.375``, ``cosine``, ``yes``."""
    if str(value) in ("True", "False"):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _decimals(value: float) -> int:
    return 2 if value == 0 else min(max(2 - math.floor(math.log10(abs(value))), 0), 4)
