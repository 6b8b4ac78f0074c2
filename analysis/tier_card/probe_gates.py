"""The gates on probes: is there room between random features and a supervised model, and did every method learn something?"""

from __future__ import annotations

from analysis.tier_card.numbers import BEST, OFFICIAL, Numbers, Shown, above_zero, difference, listed, mean, rounded
from umd_bench.config.sweep.tier_card import Gate, Verdict
from umd_bench.reporting.frames.sweep_frames import UNTRAINED

MIN_HEADROOM = 10  # points
_SUPERVISED = "supervised_"
_NO_PROBE = "The sweep has no few-shot probe."
_COMPARED = ("raw pixels", "untrained", "trained with labels")
_PIXELS = ("pixel_", "latent_")  # raw inputs: pixels, or the latents that are probed in their place


def headroom(numbers: Numbers) -> Gate:
    """Whether probes of raw pixels and of untrained weights score well below the architecture trained with labels."""
    bound = (
        f"For every method, the probe accuracies of raw pixels and of its untrained weights are at least {MIN_HEADROOM} points "
        "below that of its architecture trained with labels (means over seeds, largest number of shots). This must hold for "
        "the official read-out, and for the best one too if it has the row *trained with labels*."
    )
    rows: list[dict[str, str | float | int | None]] = []
    gaps: dict[str, float] = {}
    for stage in (OFFICIAL, BEST):
        metric = numbers.most_shots(stage)
        if metric is None or (stage == BEST and (stage, _SUPERVISED + metric) not in numbers.values):
            continue
        for method in numbers.methods:
            raw = next((m for name in _PIXELS if (m := _percent(numbers, name + metric, method, stage)) is not None), None)
            untrained, supervised = (_percent(numbers, name + metric, method, stage) for name in (UNTRAINED, _SUPERVISED))
            gap = None
            if supervised is not None and untrained is not None and raw is not None:
                gap = gaps[f"{method} in {Shown(stage, metric).title}"] = supervised - max(raw, untrained)
            compared = dict(zip(_COMPARED, (raw, untrained, supervised), strict=True))
            shown = {**compared, "trained": _percent(numbers, metric, method, stage), "gap": gap}
            values = {name: rounded(value) for name, value in shown.items()}
            rows.append({"probe": Shown(stage, metric).title, "method": method, **values})
    if not rows:
        return Gate(verdict="unknown", bound=bound, found=_NO_PROBE)
    if len(gaps) < len(rows):
        lacking = [name for name in _COMPARED if any(row[name] is None for row in rows)]
        found = f"For some methods a number is missing: {listed(lacking)}."
        return Gate(verdict="unknown", bound=bound, found=found, rows=tuple(rows))
    least = min(gaps, key=lambda name: gaps[name])
    verdict: Verdict = "pass" if gaps[least] >= MIN_HEADROOM else "fail"
    found = f"The smallest gap is {gaps[least]:.1f} points ({least})."
    return Gate(verdict=verdict, bound=bound, found=found, rows=tuple(rows))


def learning(numbers: Numbers) -> Gate:
    """Whether every method beats its own initial weights, by the interval over seeds."""
    bound = (
        "Every method probes better than its own untrained weights: the 95% interval of the difference, paired by seed, lies "
        "above 0 in the official and in the best read-out (largest number of shots)."
    )
    rows: list[dict[str, str | float | int | None]] = []
    outcomes: dict[str, bool | None] = {}
    for stage in (OFFICIAL, BEST):
        metric = numbers.most_shots(stage)
        if metric is None:
            continue
        for method in numbers.methods:
            ours = numbers.of_method(stage, metric, method)
            one = difference(ours, numbers.of_method(stage, UNTRAINED + metric, method))
            outcomes[f"{method} in {Shown(stage, metric).title}"] = None if one is None else above_zero(one)
            half = None if one is None or one.half is None else 100 * one.half
            rows.append(
                {
                    "probe": Shown(stage, metric).title,
                    "method": method,
                    "trained": rounded(_percent(numbers, metric, method, stage)),
                    "untrained": rounded(_percent(numbers, UNTRAINED + metric, method, stage)),
                    "difference": None if one is None else rounded(100 * one.mean),
                    "± 95%": rounded(half, 3),
                    "seeds": 0 if one is None else one.n,
                }
            )
    failed = [name for name, outcome in outcomes.items() if outcome is False]
    open_ = [name for name, outcome in outcomes.items() if outcome is None]
    if failed:
        return Gate(
            verdict="fail",
            bound=bound,
            found=f"No gain over untrained weights was shown for {listed(failed)}.",
            rows=tuple(rows),
        )
    if not outcomes:
        return Gate(verdict="unknown", bound=bound, found=_NO_PROBE)
    if open_:
        found = f"Untrained weights, or a second seed, are missing for {listed(open_)}."
        return Gate(verdict="unknown", bound=bound, found=found, rows=tuple(rows))
    return Gate(verdict="pass", bound=bound, found="Every method probes better than its untrained weights.", rows=tuple(rows))


def _percent(numbers: Numbers, metric: str, method: str, stage: str) -> float | None:
    value = mean(numbers.of_method(stage, metric, method))
    return None if value is None else 100 * value
