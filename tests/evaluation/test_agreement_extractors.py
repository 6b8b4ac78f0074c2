"""Extractors agree with independent implementations of them."""

from __future__ import annotations

import pytest
from evaluation.agreement_extractors import efficientnet_rows, inception_rows, resize_rows
from evaluation.comparison import Row

TOLERANCE = 1e-5  # float32, and networks fifty layers deep


def assert_agree(rows: list[Row], n: int) -> None:
    assert len(rows) == n
    assert [row for row in rows if not row.difference <= TOLERANCE] == []


@pytest.mark.slow
def test_efficientnet_agrees_with_a_second_forward_pass() -> None:
    assert_agree(list(efficientnet_rows()), 4)


def test_resizing_agrees_with_torchvision_and_pillow() -> None:
    assert_agree(list(resize_rows()), 4)


@pytest.mark.slow
def test_inception_agrees_with_torch_fidelity_layer_by_layer() -> None:
    assert_agree(list(inception_rows()), 3)
