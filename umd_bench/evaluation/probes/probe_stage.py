"""The probe stage: how well simple classifiers recognise the classes from a representation, and from its baselines.

The classifiers (readouts.py) are few-shot ridge regression (ridge.py), k nearest neighbours (knn.py) and a linear layer
(linear_probe.py), on cached features (representation.py). They also read, with the same draws of training images, the raw
pixels and the representation of the weights that the training started from (weights.py). Accuracies are shares in [0, 1].
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch

from umd_bench.config.errors import UserError
from umd_bench.config.trial.probe_stage import Place, ProbeStage
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.data.datasets import data_facts
from umd_bench.data.packs.pack import Pack
from umd_bench.engine.device import pick_device
from umd_bench.evaluation.probes.choice import SPLIT, Choice, choose
from umd_bench.evaluation.probes.readouts import Facts, Metrics, Readouts
from umd_bench.evaluation.probes.representation import FOLDER, Pixels, Representation
from umd_bench.evaluation.probes.supervised import SupervisedWeights
from umd_bench.evaluation.probes.weights import SnapshotWeights, initial_weights
from umd_bench.evaluation.stage_result import StageResult
from umd_bench.store.run import Attempt, RunDir


def run_probe(spec: StageSpec, parent: RunDir, pack: Pack, attempt: Attempt) -> StageResult:
    """Probe the raw weights of ``parent`` at ``spec.parent_nimg``.

    The stage selects the metrics: ``acc_<k>shot``, means over ``stage.draws`` draws of the shots, with the standard deviation
    (``_sd``) if there are several draws; ``acc_knn<k>``; ``acc_linear``. :func:`pixel_probe` adds each of them for the pixels,
    as ``pixel_acc_...``. Each is also read in the same way from the initial weights of the same seed, as ``untrained_acc_...``,
    if the first stage of the lineage is trained here; published weights have no initial weights.

    If the stage has ``supervised`` and there are initial weights, the same architecture trained with labels is read as
    ``supervised_acc_...``, at t = 0 and the stage's block and pool. A ``choose`` does not apply to it: it is then read at the
    last block and the model's default pool. The fact ``head_accuracy_of_supervised`` is the accuracy of the linear head that it
    was trained with.

    With ``choose``, the validation split decides the block, the pool and t (choice.py). The facts say which, and give the
    validation accuracy of every candidate. For the initial weights the three are chosen anew; the facts say which.

    All images of ``stage.split`` are scored. Apart from a choice, only that split and the training split are opened. Features
    are the representation without mask and label, at t = ``stage.t`` unless a paragraph above names another t. At t >= 1, each
    image has its own noise, the same in every trial of one seed. If a class has fewer images than shots, all of its images are
    used, and an event and a fact say so.
    ``pack`` holds ``spec.input_data``, which can differ from the data that the parent was trained on.

    Raises :class:`UserError` for another kind of stage, a t, block or pool that the parent does not have, missing weights, and
    features that are NaN or infinite.
    """
    started = time.perf_counter()
    stage = spec.stage
    if not isinstance(stage, ProbeStage) or spec.parent_nimg is None:
        raise UserError(f"a {spec.kind} stage is no probe of a parent's snapshot: expected a probe stage with a parent")
    device, cache = pick_device(spec.resources.device), parent.root / FOLDER
    source = data_facts(spec.data, root=pack.path.parent)
    representation = Representation(spec, SnapshotWeights(parent, spec.parent_nimg, source), cache, device)
    readouts = Readouts(pack, stage, spec.seed, device)
    choice = _chosen(pack, spec, stage, representation, readouts)
    place = None if choice is None else choice.place
    train = representation.of(pack, "train", readouts.drawn, place=place)
    scored = representation.of(pack, stage.split, place=place)
    metrics, facts = readouts.of("acc", train, scored)
    metrics |= pixel_probe(pack, stage, spec.seed, device=device, cache=cache)
    initial = initial_weights(parent, source)
    if initial is not None:
        untrained = Representation(spec, initial, cache, device)
        own = _chosen(pack, spec, stage, untrained, readouts)
        where = None if own is None else own.place
        metrics |= _shared_probe("untrained_acc", pack, stage, readouts, untrained, cache, where)
        if where is not None:
            facts["untrained_readout"] = f"{untrained.position(where)} at t = {where.t}"
    if initial is not None and stage.supervised is not None:
        weights = SupervisedWeights(initial, stage.supervised, pack, spec.seed, cache, device)
        where = Place(stage.block, stage.pool, 0)  # it is trained on clean images
        upper = Representation(spec, weights, cache, device)
        metrics |= _shared_probe("supervised_acc", pack, stage, readouts, upper, cache, where)
        facts["head_accuracy_of_supervised"] = weights.head_accuracy(stage.split)
    if choice is not None:
        facts |= _choice_facts(choice, stage)
    facts |= {
        "probe_position": representation.position(place),
        "probe_t": stage.t if place is None else place.t,
        "reference": stage.split,
        "n": len(pack.split(stage.split)),
        "ema": False,
    }
    if facts.get("linear_lr_at_edge"):
        rates = ", ".join(f"{lr:g}" for lr in stage.linear.lr_per_256) if stage.linear else ""
        attempt.event("warning", message=f"the best learning rate of the linear probe is an end of {rates}: give a wider range")
    return StageResult(metrics, facts | _counts(pack, readouts, attempt), {"probe_seconds": time.perf_counter() - started})


def pixel_probe(
    pack: Pack, stage: ProbeStage, seed: int, *, device: torch.device | str = "cpu", cache: Path | None = None
) -> Metrics:
    """The same probes of the images themselves, in [-1, 1], with the same draws: the baseline of a representation.

    The metrics are ``pixel_acc_<k>shot`` and its ``_sd``, ``pixel_acc_knn<k>`` and ``pixel_acc_linear``, in [0, 1]. Latents are
    probed without decoding, and their metrics are named ``latent_acc_...``. They do not depend on the model.
    k-NN and the linear probe read every training image and are slow, so their results are cached in the folder ``cache`` (None:
    not cached).
    """
    name = "pixel_acc" if pack.manifest.vae is None else "latent_acc"
    train, scored = (Pixels(pack.split(split)) for split in ("train", stage.split))
    readouts = Readouts(pack, stage, seed, torch.device(device))
    return readouts.of_shared(name, train, scored, features=[], cache=cache, whole=True)


def _chosen(
    pack: Pack, spec: StageSpec, stage: ProbeStage, representation: Representation, readouts: Readouts
) -> Choice | None:
    """The place (block, pool, t) that was chosen for this representation; None if the stage has no ``choose``."""
    if stage.choose is None:
        return None
    return choose(pack, representation, readouts, stage.choose.places(spec.model))


def _choice_facts(choice: Choice, stage: ProbeStage) -> Facts:
    return {
        "chosen_on": SPLIT if stage.split != SPLIT else f"{SPLIT}, the scored split itself",
        "chosen_block": choice.place.block,
        "chosen_pool": choice.place.pool,
        "chosen_t": choice.place.t,
        "candidates": [f"block {block}, {pool}, t = {t}" for block, pool, t in choice.candidates],
        "candidate_accuracies": list(choice.accuracies),
    }


def _shared_probe(
    name: str,
    pack: Pack,
    stage: ProbeStage,
    readouts: Readouts,
    representation: Representation,
    cache: Path,
    place: Place | None,
) -> Metrics:
    """The probes of a ``representation`` that other stages read too (initial or supervised weights): ``<name>_...``, in [0, 1].

    The results of k-NN and of the linear probe are cached for those stages.
    """
    read = [("train", readouts.drawn), (stage.split, None)]
    train, scored = (representation.of(pack, split, rows, place=place) for split, rows in read)
    features = [representation.name(pack, split, rows, place=place) for split, rows in read]
    return readouts.of_shared(name, train, scored, features=features, cache=cache)


def _counts(pack: Pack, readouts: Readouts, attempt: Attempt) -> Facts:
    """The number of images for each number of shots, which is the same in every draw; warns if a class has too few."""
    counts: Facts = {}
    labels, names = pack.split("train").labels, pack.manifest.class_names
    for k, indices in readouts.shots[0].items():
        counts[f"images_{k}shot"] = len(indices)
        by_class = np.bincount(labels[indices], minlength=len(names))
        if len(indices) < k * len(names):
            short = ", ".join(f"{name} ({count})" for name, count in zip(names, by_class, strict=True) if count < k)
            attempt.event("warning", message=f"{k} shots are more than some classes of {pack.manifest.name} have: {short}")
            counts[f"class_counts_{k}shot"] = [int(count) for count in by_class]
    return counts
