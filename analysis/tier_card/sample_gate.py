"""The gate on samples: are they legible, and how far did training bring them from noise towards real images?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from analysis.tier_card.numbers import GENERATE, Numbers, listed, mean, rounded
from umd_bench.config.documents.tier_card import Gate

MIN_READ = 0.5  # share of the samples that are read as their class
MAX_WAY = 0.25  # share of the way from real images back to noise or untrained weights


@dataclass(frozen=True)
class NoTraining:
    """What samples that no training made score, in the features of the generate stage's extractor.

    ``untrained`` and ``untrained_read`` map a method to the Fréchet distance of samples drawn from its initial weights, and to
    the share of them that is read as its class; ``noise`` is the distance of noise images.
    """

    untrained: Mapping[str, float]
    untrained_read: Mapping[str, float]
    noise: float


def samples(numbers: Numbers, reached: NoTraining | None) -> Gate:
    """Whether samples are legible and near to real images; ``reached`` None if nothing was drawn to compare with."""
    bound = (
        f"For every method, at least {MIN_READ:.0%} of the samples are read as their class, and their Fréchet distance lies at "
        f"most {MAX_WAY:.0%} of the way from that of real images to that of noise or of samples from untrained weights, "
        "whichever is smaller (means over seeds)."
    )
    distance = numbers.distance()
    if distance is None:
        return Gate(verdict="unknown", bound=bound, found="The sweep has no generate stage with a Fréchet distance.")
    accuracy = numbers.accuracy(distance)
    rows: list[dict[str, str | float | int | None]] = []
    illegible, far, unknown = [], [], []
    for method in numbers.methods:
        read = None if accuracy is None else mean(numbers.of_method(GENERATE, accuracy, method))
        ours = mean(numbers.of_method(GENERATE, distance, method))
        real = mean(numbers.of_method(GENERATE, f"floor_{distance}", method))
        untrained = None if reached is None else reached.untrained.get(method)
        way = None
        if ours is not None and real is not None and untrained is not None and reached is not None:
            start = min(untrained, reached.noise)
            way = (ours - real) / (start - real) if start > real else None
        if read is None or way is None:
            unknown.append(method)
        if read is not None and read < MIN_READ:
            illegible.append(method)
        if way is not None and way > MAX_WAY:
            far.append(method)
        untrained_read = None if reached is None else reached.untrained_read.get(method)
        rows.append(
            {
                "method": method,
                "read as their class %": None if read is None else rounded(100 * read, 3),
                "untrained, read %": None if untrained_read is None else rounded(100 * untrained_read, 3),
                "distance": rounded(ours),
                "real images": rounded(real),
                "untrained": rounded(untrained),
                "noise": None if reached is None else rounded(reached.noise),
                "way from real %": None if way is None else rounded(100 * way, 3),
            }
        )
    if illegible or far:
        parts = [f"too few are read as their class: {listed(illegible)}"] if illegible else []
        parts += [f"too far from real images: {listed(far)}"] if far else []
        found = "; ".join(parts)
        return Gate(verdict="fail", bound=bound, found=f"{found[0].upper()}{found[1:]}.", rows=tuple(rows))
    if unknown:
        found = f"A share read as their class, or a distance to compare with, is missing for {listed(unknown)}."
        return Gate(verdict="unknown", bound=bound, found=found, rows=tuple(rows))
    return Gate(verdict="pass", bound=bound, found="Every method's samples do.", rows=tuple(rows))
