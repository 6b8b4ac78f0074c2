"""Probes agree with independent implementations of them."""

from __future__ import annotations

from evaluation.agreement_probes import knn_rows, linear_rows, ridge_rows
from evaluation.comparison import Row


def assert_agree(rows: list[Row], n: int, tolerance: float) -> None:
    assert len(rows) == n
    assert [row for row in rows if not row.difference <= tolerance] == []


def test_ridge_and_its_leave_one_out_error_agree_with_scikit_learn() -> None:
    assert_agree(list(ridge_rows()), 8, 1e-9)  # float64


def test_neighbours_agree_with_scikit_learn() -> None:
    similarity, *accuracies = knn_rows()
    assert_agree([similarity], 1, 1e-6)  # float32
    assert_agree(accuracies, 2, 0.0)


def test_the_linear_probe_agrees_with_autograd_and_with_timms_lars() -> None:
    assert_agree(list(linear_rows()), 3, 1e-5)  # float32
