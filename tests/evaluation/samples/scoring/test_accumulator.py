"""Scores of an accumulated set do not depend on batches, their order or the number of workers; bad input is refused."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation.small_parents import digits
from torch import Tensor

from umd_bench.config.errors import UserError
from umd_bench.evaluation.extractors.contract import Extractor, Features
from umd_bench.evaluation.extractors.registry import load_extractor
from umd_bench.evaluation.metrics.frechet import Gaussian, frechet_distance
from umd_bench.evaluation.metrics.inception_score import inception_score
from umd_bench.evaluation.metrics.kid import kernel_distance
from umd_bench.evaluation.metrics.precision_recall import precision_recall
from umd_bench.evaluation.samples.scoring import evaluator
from umd_bench.evaluation.samples.scoring.accumulator import SampleAccumulator
from umd_bench.evaluation.samples.scoring.evaluator import Evaluator, evaluator_for
from umd_bench.evaluation.samples.scoring.scores import SetScores, check_reference

N = 60
LABEL = torch.arange(N) % 10
SCORES = ("fd", "fd_inf", "kid", "is", "accuracy", "precision_recall", "sfid", "memorised")


@cache
def extractor() -> Extractor:
    """The digits classifier with made-up spatial features: the images' first five pixels."""
    loaded = load_extractor("digits_cnn")

    def network(images: Tensor, spatial: bool) -> Features:
        features = loaded.network(images, spatial)
        return dataclasses.replace(features, spatial=images.flatten(1)[:, :5].float() if spatial else None)

    return dataclasses.replace(loaded, network=network, spatial_dim=5, hash="5" * 64)


@cache
def small_evaluator() -> Evaluator:
    return evaluator_for(extractor(), digits(), SCORES, "test", N)


def images() -> Tensor:
    """Real images with noise: neither equal to real ones nor very different."""
    g = torch.Generator().manual_seed(0)
    real = torch.from_numpy(np.array(digits().split("train").images[:N])).int()
    return (real + torch.randint(-40, 41, real.shape, generator=g)).clamp(0, 255).to(torch.uint8)


def accumulated(*parts: Tensor) -> SampleAccumulator:
    accumulator = small_evaluator().accumulator(N, LABEL)
    for index in parts:
        accumulator.update(images()[index], index)
    return accumulator


def same(a: SetScores, b: SetScores) -> None:
    assert a.values == pytest.approx(b.values, rel=1e-9)
    assert [(i, j) for i, j, _ in a.nearest_pairs] == [(i, j) for i, j, _ in b.nearest_pairs]


def test_accumulated_scores_equal_the_scores_of_all_features_at_once() -> None:
    features = extractor().features(images(), spatial=True)
    reference, values = small_evaluator().reference, small_evaluator().score(accumulated(torch.arange(N))).values
    assert features.logits is not None
    assert features.spatial is not None
    assert reference.spatial is not None
    rows = features.pooled.numpy()
    precision, recall = precision_recall(rows, reference.features)
    expected = {
        "fd": frechet_distance(Gaussian.of(features.pooled), reference.gaussian),
        "kid": kernel_distance(rows, reference.features).mean,
        "is": inception_score(features.logits)[0],
        "accuracy": (features.logits.argmax(1) == LABEL).double().mean().item(),
        "precision": precision,
        "recall": recall,
        "sfid": frechet_distance(Gaussian.of(features.spatial), reference.spatial),
    }
    assert {name: values[name] for name in expected} == pytest.approx(expected, rel=1e-6)
    assert set(values) == {*expected, "fd_inf", "memorised"}


def test_batches_and_their_order_change_no_score() -> None:
    whole = small_evaluator().score(accumulated(torch.arange(N)))
    same(small_evaluator().score(accumulated(*torch.randperm(N, generator=torch.Generator().manual_seed(1)).split(7))), whole)


def test_merged_parts_of_several_workers_equal_the_whole_set() -> None:
    parts = [accumulated(torch.arange(worker, N, 3)) for worker in (2, 0, 1)]
    for part in parts[1:]:
        parts[0].merge(part)
    same(small_evaluator().score(parts[0]), small_evaluator().score(accumulated(torch.arange(N))))


def test_a_set_with_a_missing_sample_is_refused() -> None:
    with pytest.raises(UserError, match="only 59 of 60 samples came: sample 31 is missing"):
        small_evaluator().score(accumulated(torch.arange(31), torch.arange(32, N)))


def test_a_sample_that_comes_twice_or_is_outside_of_the_set_is_refused() -> None:
    part = accumulated(torch.arange(9))
    for index, problem in [([8, 9], "came twice"), ([20, 20], "came twice"), ([N], "sample 60 is not of this set")]:
        with pytest.raises(UserError, match=problem):
            part.update(images()[: len(index)], torch.tensor(index))
    with pytest.raises(UserError, match="came twice"):
        part.merge(accumulated(torch.arange(8, 20)))
    with pytest.raises(UserError, match="parts of two sets"):
        part.merge(SampleAccumulator(extractor(), N + 1, SCORES))


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (torch.zeros(2, 1, 9, 8, dtype=torch.uint8), r"shape \[2, 1, 9, 8\]: expected uint8"),
        (torch.zeros(2, 1, 8, 8), "does not take float32 images"),
    ],
)
def test_images_of_another_size_or_dtype_are_refused(bad: Tensor, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        small_evaluator().accumulator(N, LABEL).update(bad, torch.arange(2))


def test_features_that_are_nan_are_refused() -> None:
    features = extractor().features(images()[:3], spatial=True)
    spoilt = dataclasses.replace(features, pooled=features.pooled.clone().fill_(float("nan")))
    with pytest.raises(UserError, match="3 of 3 samples have features that are NaN"):
        small_evaluator().accumulator(N, LABEL).update_features(spoilt, torch.arange(3))


def test_scores_that_need_class_scores_are_left_out_if_the_extractor_has_none() -> None:
    without = dataclasses.replace(extractor(), has_logits=False, spatial_dim=None)
    assert evaluator_for(without, digits(), SCORES, "test", N).scores == set(SCORES) - {"is", "accuracy", "sfid"}
    with pytest.raises(UserError, match="gives no class scores"):
        SampleAccumulator(without, N, ["is"]).update(images()[:2], torch.arange(2))


def test_a_reference_without_rows_cannot_serve_scores_that_need_them() -> None:
    bare = dataclasses.replace(small_evaluator().reference, features=None, spatial=None, label="a.npz")
    check_reference(bare, ["fd", "fd_inf", "is"])
    with pytest.raises(UserError, match=r"a\.npz has no images or features for kid, precision_recall, sfid"):
        check_reference(bare, SCORES)


def test_a_frechet_distance_is_called_fid_only_with_the_features_of_fid() -> None:
    inception = dataclasses.replace(extractor(), name="inception-v3-compat")
    names = ("fd", "fd_inf", "kid", "sfid", "precision", "memorised")
    assert [inception.metric_name(name) for name in names] == ["fid", "fid_inf", "kid", "sfid", "precision", "memorised"]
    assert extractor().metric_name("fd_inf") == "fd_inf_digits_cnn"


def test_a_published_file_is_a_reference_without_a_floor_and_must_have_the_expected_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = dataclasses.replace(small_evaluator().reference, label="a.npz", hash="a" * 64)
    monkeypatch.setattr(evaluator, "reference_from_file", lambda path, extractor: published)
    from_file = evaluator_for(extractor(), digits(), ["fd", "kid"], "a.npz", N, sha256="a" * 64)
    assert from_file.floor is None
    assert (from_file.facts()["reference_label"], from_file.facts()["reference_hash"]) == ("a.npz", "a" * 64)
    accumulator = from_file.accumulator(N, None)
    accumulator.update(images(), torch.arange(N))
    assert set(from_file.metrics([from_file.score(accumulator)])) == {"fd_digits_cnn", "kid_digits_cnn"}
    with pytest.raises(UserError, match=r"a\.npz is another file .*SHA-256 aaaaaaaaaaaa, expected bbbbbbbbbbbb"):
        evaluator_for(extractor(), digits(), ["fd"], "a.npz", N, sha256="b" * 64)
