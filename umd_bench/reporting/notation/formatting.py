"""Values as text for people: means with intervals, differences, axis values and facts."""

from __future__ import annotations

import math

MISSING = "–"
NOT_ABOVE = "†"  # marks a number that was not shown to be above the number of untrained weights


def format_mean(mean: float, half: float | None, *, percent: bool) -> str:
    """``78.3 ± 1.2``: a percentage has one decimal, another number three significant digits and at most four decimals.

    A half-width that would round to zero gets more decimals, and the mean with it. ``percent`` values are fractions.
    """
    scale = 100 if percent else 1
    decimals = 1 if percent else _decimals(mean)
    if half is not None and 0 < half * scale < 0.5 * 10**-decimals:
        decimals = _decimals(half * scale) - 1
    return f"{mean * scale:.{decimals}f}" + ("" if half is None else f" ± {half * scale:.{decimals}f}")


def format_difference(mean: float, half: float, *, percent: bool) -> str:
    """``+0.67 ± 0.17``: signed, with two significant digits of the half-width; one decimal suffices for a percentage."""
    scale = 100 if percent else 1
    decimals = 2 if half == 0 else min(max(1 - math.floor(math.log10(half * scale)), 0), 4)
    decimals = 1 if percent and (half == 0 or half * scale >= 0.05) else decimals
    signed = f"{mean * scale:+.{decimals}f}"
    return f"{signed if signed.strip('+-0.') else signed[1:]} ± {half * scale:.{decimals}f}"


def format_value(value: object) -> str:
    """An axis value or a fact as a person would write it: ``0.375``, ``cosine``, ``yes``."""
    if str(value) in ("True", "False"):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _decimals(value: float) -> int:
    return 2 if value == 0 else min(max(2 - math.floor(math.log10(abs(value))), 0), 4)
