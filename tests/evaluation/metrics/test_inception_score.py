"""The inception score: the official numbers, torch-fidelity's, and sums that can be merged in any order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric

from umd_bench.config.errors import UserError
from umd_bench.evaluation.metrics.inception_score import ClassSums, inception_score

GOLDEN = Path(__file__).parents[2] / "golden" / "fid_is.npz"


@pytest.mark.parametrize(("case", "splits"), [("n1000", 10), ("n137", 10)])
def test_the_score_is_the_official_one(case: str, splits: int) -> None:
    z = np.load(GOLDEN)
    logits = torch.from_numpy(z[f"is/{case}/p_yx"]).double().log()
    assert inception_score(logits, splits)[0] == pytest.approx(float(z[f"is/{case}/score"]), rel=1e-6)


def test_the_score_is_1_for_equal_predictions_and_k_for_certain_balanced_predictions() -> None:
    assert inception_score(torch.ones(50, 5), 5) == pytest.approx((1.0, 0.0))
    assert inception_score(1e3 * torch.eye(5).repeat(10, 1), 5) == pytest.approx((5.0, 0.0))


def test_merged_sums_give_the_score_of_the_whole_in_any_order() -> None:
    g = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(103, 12, generator=g)
    order = torch.randperm(103, generator=g)
    parts = [ClassSums.of(logits[index], index, n=103, splits=7) for index in order.split(10)]
    whole = parts[-1]
    for part in parts[:-1]:
        whole = whole.merged(part)
    assert whole.score() == pytest.approx(inception_score(logits, 7), rel=1e-12)
    assert whole.p.shape == (7, 12)  # no larger for more samples


@pytest.mark.parametrize("scale", [0.1, 40.0])
def test_the_score_is_torch_fidelitys_on_the_same_logits(scale: float) -> None:
    logits = scale * torch.randn(503, 30, generator=torch.Generator().manual_seed(0))
    theirs = isc_features_to_metric(logits, splits=10, shuffle=False)
    assert inception_score(logits) == pytest.approx((theirs[KEY_METRIC_ISC_MEAN], theirs[KEY_METRIC_ISC_STD]), rel=1e-9)


def test_sums_of_other_numbers_of_classes_are_not_merged() -> None:
    one, other = (ClassSums.of(torch.zeros(2, k), torch.arange(2), n=4, splits=1) for k in (3, 4))
    with pytest.raises(UserError, match="3 and of 4 dimensions"):
        one.merged(other)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_nan_or_infinite_are_refused(bad: float) -> None:
    logits = torch.zeros(10, 4)
    logits[3, 2] = bad
    with pytest.raises(UserError, match="1 of 10 samples"):
        inception_score(logits)


def test_more_splits_than_samples_are_refused() -> None:
    with pytest.raises(UserError, match=r"expected 1\.\.5 splits"):
        inception_score(torch.zeros(5, 3), 6)
