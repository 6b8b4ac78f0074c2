"""The sample gate: legible samples that came most of the way from noise to real images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from analysis.tier_card.numbers import Numbers
from analysis.tier_card.sample_gate import MAX_WAY, MIN_ACCURACY, NoTraining, samples

Make = Callable[[dict[tuple[str, str], dict[str, list[float]]]], Numbers]
NO_TRAINING = NoTraining(untrained={"umd": 101.0, "mae": 150.0}, untrained_accuracy={"umd": 0.1, "mae": 0.1}, noise=201.0)


def drawn(numbers_of: Make, *, fd: float = 5.0, read: float = 0.9) -> Numbers:
    """Two methods with good samples; umd's samples have this distance, and this share of them is classified as requested."""
    return numbers_of(
        {
            ("generate", "fd_inf_x_cnn"): {"umd": [0.0], "mae": [0.0]},
            ("generate", "fd_x_cnn"): {"umd": [fd], "mae": [5.0]},
            ("generate", "accuracy_x_cnn"): {"umd": [read], "mae": [0.9]},
            ("generate", "floor_fd_x_cnn"): {"umd": [1.0], "mae": [1.0]},
        }
    )


@pytest.mark.parametrize(
    ("fd", "read", "verdict"),
    [(5.0, 0.9, "pass"), (26.0, 0.5, "pass"), (27.0, 0.9, "fail"), (5.0, 0.49, "fail"), (0.9, 1.0, "pass")],
)
def test_samples_must_be_legible_and_near_to_real_images(numbers_of: Make, fd: float, read: float, verdict: str) -> None:
    assert (MIN_ACCURACY, MAX_WAY) == (0.5, 0.25)
    gate = samples(drawn(numbers_of, fd=fd, read=read), NO_TRAINING)
    assert gate.verdict == verdict
    assert gate.rows[0]["% of the way from real images to no training"] == pytest.approx(fd - 1)
    if verdict == "fail":
        assert gate.found.endswith(": umd.")


def test_the_nearer_of_noise_and_untrained_weights_is_the_start(numbers_of: Make) -> None:
    gate = samples(drawn(numbers_of, fd=27.0), replace(NO_TRAINING, noise=11.0))
    assert gate.rows[0]["% of the way from real images to no training"] == pytest.approx(260)


@pytest.mark.parametrize("lacking", ["accuracy_x_cnn", "floor_fd_x_cnn", None])
def test_a_missing_number_leaves_the_gate_open(numbers_of: Make, lacking: str | None) -> None:
    numbers = drawn(numbers_of)
    kept = {key: value for key, value in numbers.values.items() if key[1] != lacking}
    gate = samples(replace(numbers, values=kept), None if lacking is None else NO_TRAINING)
    assert gate.verdict == "unknown"
    assert gate.found.endswith("missing for umd, mae.")


def test_the_distance_is_not_extrapolated_and_is_of_an_extractor_that_classifies_if_there_is_one(numbers_of: Make) -> None:
    distances = {("generate", name): {"umd": [1.0]} for name in ("fd_inf_x_cnn", "fid", "fd_x_cnn")}
    assert numbers_of({("generate", "fd_inf_x_cnn"): {"umd": [1.0]}, ("generate", "fd_x"): {"umd": [1.0]}}).distance() == "fd_x"
    assert numbers_of(distances).distance() == "fid"
    assert numbers_of(distances | {("generate", "accuracy_x_cnn"): {"umd": [1.0]}}).distance() == "fd_x_cnn"


def test_a_sweep_without_samples_is_unknown(numbers_of: Make) -> None:
    assert samples(numbers_of({("probe", "acc_100shot"): {"umd": [0.5]}}), None).verdict == "unknown"
