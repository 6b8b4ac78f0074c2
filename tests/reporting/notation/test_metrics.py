"""Metrics: their headers, and which of them a table shows by default."""

from __future__ import annotations

from umd_bench.reporting.notation.metrics import header, shown_by_default


def test_only_a_distance_of_inception_features_is_called_fid() -> None:
    assert header("generate", "fd_digits_cnn") == "fd_digits_cnn ↓"
    assert header("generate", "fid") == "fid ↓"
    assert header("finetune_probe", "acc_100shot") == "fine-tuned probe 100-shot % ↑"
    assert header("late", "fd_x") == "late fd_x ↓"


def test_the_inception_score_is_a_default_only_without_an_accuracy() -> None:
    own = ["fd_x", "fd_x_sd", "is_x", "accuracy_x", "kid_x", "memorised_x", "fd_inf_x"]
    assert shown_by_default(own) == ["fd_x", "accuracy_x", "kid_x", "fd_inf_x"]
    assert shown_by_default(["fid", "fid_inf", "sfid", "is", "precision", "recall", "kid", "memorised"]) == [
        *("fid", "fid_inf", "sfid", "is", "precision", "recall", "kid"),
    ]
    assert header("generate", "memorised_x") == "memorised_x % ↓"
