"""The gate on samples: are they legible, and much nearer to real images than noise and samples of untrained weights?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from analysis.tier_card.numbers import GENERATE, Numbers, listed, mean, rounded
from umd_bench.config.sweep.tier_card import Gate

MIN_ACCURACY = 0.5  # share of the samples that the classifier assigns to the class requested for them
MAX_WAY = 0.25  # (d - d_real) / (d_bad - d_real) of Fréchet distances, as the bound below defines them


@dataclass(frozen=True)
class NoTraining:
    """The scores that take no training: of samples drawn from initial weights, and of plain noise.

    For each method, ``untrained`` is the Fréchet distance of samples drawn from its initial weights, and ``untrained_accuracy``
    the share of these samples that is classified as requested. ``noise`` is the distance of noise images. All are in the
    features of the generate stage's extractor.
    """

    untrained: Mapping[str, float]
    untrained_accuracy: Mapping[str, float]
    noise: float


def samples(numbers: Numbers, no_training: NoTraining | None) -> Gate:
    """Whether samples are legible and near to real images; ``no_training`` is None if there is nothing to compare them with."""
    bound = (
        f"For every method (means over seeds), at least {MIN_ACCURACY:.0%} of the samples are classified as requested, and "
        f"(d - d_real) / (d_bad - d_real) is at most {MAX_WAY:.0%}. Here d, d_real and d_bad are the Fréchet distances of the "
        "samples, of real images, and of noise or samples of untrained weights, whichever is smaller."
    )
    distance = numbers.distance()
    if distance is None:
        return Gate(verdict="unknown", bound=bound, found="The sweep has no generate stage with a Fréchet distance.")
    accuracy = numbers.accuracy(distance)
    rows: list[dict[str, str | float | int | None]] = []
    illegible, far, unknown = [], [], []
    for method in numbers.methods:
        share = None if accuracy is None else mean(numbers.of_method(GENERATE, accuracy, method))
        ours = mean(numbers.of_method(GENERATE, distance, method))
        real = mean(numbers.of_method(GENERATE, f"floor_{distance}", method))
        untrained = None if no_training is None else no_training.untrained.get(method)
        way = None
        if ours is not None and real is not None and untrained is not None and no_training is not None:
            start = min(untrained, no_training.noise)
            way = (ours - real) / (start - real) if start > real else None
        if share is None or way is None:
            unknown.append(method)
        if share is not None and share < MIN_ACCURACY:
            illegible.append(method)
        if way is not None and way > MAX_WAY:
            far.append(method)
        chance = None if no_training is None else no_training.untrained_accuracy.get(method)
        rows.append(
            {
                "method": method,
                "classified as requested %": None if share is None else rounded(100 * share, 3),
                "untrained, classified as requested %": None if chance is None else rounded(100 * chance, 3),
                "distance": rounded(ours),
                "real images": rounded(real),
                "untrained": rounded(untrained),
                "noise": None if no_training is None else rounded(no_training.noise),
                "% of the way from real images to no training": None if way is None else rounded(100 * way, 3),
            }
        )
    if illegible or far:
        parts = [f"too few are classified as requested: {listed(illegible)}"] if illegible else []
        parts += [f"too far from real images: {listed(far)}"] if far else []
        found = "; ".join(parts)
        return Gate(verdict="fail", bound=bound, found=f"{found[0].upper()}{found[1:]}.", rows=tuple(rows))
    if unknown:
        found = f"The share classified as requested, or a distance to compare with, is missing for {listed(unknown)}."
        return Gate(verdict="unknown", bound=bound, found=found, rows=tuple(rows))
    return Gate(verdict="pass", bound=bound, found="The samples of every method meet both bounds.", rows=tuple(rows))
