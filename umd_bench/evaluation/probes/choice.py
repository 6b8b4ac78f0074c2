"""The choice of the block, pool and t at which a representation is read, by few-shot accuracy on the validation split.

The scored split is not opened here, so the score of the chosen read-out is not biased by the choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from umd_bench.config.trial.probe_stage import Place
from umd_bench.data.packs.pack import Pack
from umd_bench.evaluation.probes.readouts import Readouts
from umd_bench.evaluation.probes.representation import Representation

SPLIT = "validation"  # the split that the choice is made on


@dataclass(frozen=True)
class Choice:
    """The chosen ``place``, and the validation accuracy, in [0, 1], of each of the ``candidates``."""

    place: Place
    candidates: tuple[Place, ...]
    accuracies: tuple[float, ...]


def choose(pack: Pack, representation: Representation, readouts: Readouts, candidates: list[Place]) -> Choice:
    """The candidate with the best mean accuracy over the draws at the largest number of shots; of equal ones, the first.

    One forward pass for each t gives the features at all blocks and pools. Raises as :meth:`Representation.of`.
    """
    accuracies: dict[Place, float] = {}
    for _, group in groupby(sorted(candidates, key=lambda place: place.t), key=lambda place: place.t):
        places = list(group)
        train = representation.of_each(pack, "train", readouts.most_drawn, places=places)
        validation = representation.of_each(pack, SPLIT, places=places)
        for place, x_train, x_validation in zip(places, train, validation, strict=True):
            accuracies[place] = readouts.validation_accuracy(x_train, x_validation)
    best = max(candidates, key=accuracies.__getitem__)  # the first of equal ones
    return Choice(best, tuple(candidates), tuple(accuracies[place] for place in candidates))
