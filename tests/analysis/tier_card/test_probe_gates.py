"""Headroom and learning: what random features reach does not count as room, nor as learning."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from analysis.tier_card.numbers import Numbers
from analysis.tier_card.probe_gates import MIN_HEADROOM, headroom, learning

Make = Callable[[dict[tuple[str, str], dict[str, list[float]]]], Numbers]
ACC = "acc_100shot"


def probe(numbers_of: Make, stage: str = "probe", **metrics: dict[str, list[float]]) -> Numbers:
    """Numbers of one probe stage: metric -> method -> seeds."""
    return numbers_of({(stage, metric): by_method for metric, by_method in metrics.items()})


def room(numbers_of: Make, *, pixels: float, untrained: float, supervised: float = 0.9) -> Numbers:
    """Two methods; the first has these numbers, the second a gap of 30 points."""
    return probe(
        numbers_of,
        acc_100shot={"umd": [0.6, 0.6], "mae": [0.6, 0.6]},
        pixel_acc_100shot={"umd": [pixels] * 2, "mae": [0.6] * 2},
        untrained_acc_100shot={"umd": [untrained] * 2, "mae": [0.2] * 2},
        supervised_acc_100shot={"umd": [supervised] * 2, "mae": [0.9] * 2},
    )


@pytest.mark.parametrize(
    ("pixels", "untrained", "verdict"), [(0.3, 0.3, "pass"), (0.85, 0.3, "fail"), (0.3, 0.85, "fail"), (0.79, 0.79, "pass")]
)
def test_headroom_needs_pixels_and_untrained_weights_below_the_supervised_row(
    numbers_of: Make, pixels: float, untrained: float, verdict: str
) -> None:
    gate = headroom(room(numbers_of, pixels=pixels, untrained=untrained))
    assert gate.verdict == verdict
    assert gate.rows[0]["gap"] == pytest.approx(100 * (0.9 - max(pixels, untrained)))
    assert str(MIN_HEADROOM) in gate.bound


def test_headroom_without_a_supervised_row_is_unknown_and_names_what_is_missing(numbers_of: Make) -> None:
    gate = headroom(probe(numbers_of, acc_100shot={"umd": [0.5]}, pixel_acc_100shot={"umd": [0.1]}))
    assert gate.verdict == "unknown"
    assert gate.found == "For some methods a number is missing: untrained, trained with labels."
    assert gate.rows[0]["raw pixels"] == 10
    assert headroom(numbers_of({("generate", "fid"): {"umd": [1.0]}})).verdict == "unknown"


def test_headroom_reads_latents_in_place_of_pixels_and_the_most_shots(numbers_of: Make) -> None:
    numbers = probe(
        numbers_of,
        **{
            f"{name}acc_{k}shot": {"umd": [value]}
            for k, value in ((10, 0.1), (100, 0.5))
            for name in ("", "latent_", "untrained_")
        },
        supervised_acc_100shot={"umd": [0.8]},
    )
    gate = headroom(numbers)
    assert (gate.verdict, gate.rows[0]["raw pixels"], gate.rows[0]["gap"]) == ("pass", 50, 30)


def test_headroom_judges_the_best_read_out_too_if_it_has_a_supervised_row(numbers_of: Make) -> None:
    metrics = {f"{name}{ACC}": {"umd": [value]} for name, value in (("", 0.5), ("pixel_", 0.2), ("untrained_", 0.2))}
    official = {("probe", name): by_method for name, by_method in metrics.items()}
    official[("probe", f"supervised_{ACC}")] = {"umd": [0.8]}
    best = {("best_probe", name): by_method for name, by_method in metrics.items()}
    assert headroom(numbers_of(official | best)).verdict == "pass"
    gate = headroom(numbers_of(official | best | {("best_probe", f"supervised_{ACC}"): {"umd": [0.25]}}))
    assert gate.verdict == "fail"
    assert gate.found.startswith("The smallest gap is 5.0 points (umd in best")


def test_learning_is_judged_by_the_paired_interval(numbers_of: Make) -> None:
    """Both accuracies rise alike from seed to seed, so the gain is sure although the intervals of the two means overlap."""
    numbers = probe(
        numbers_of,
        acc_100shot={"umd": [0.50, 0.60, 0.70]},
        untrained_acc_100shot={"umd": [0.45, 0.56, 0.66]},
    )
    gate = learning(numbers)
    assert gate.verdict == "pass"
    assert gate.rows[0]["difference"] == pytest.approx(4.333)


@pytest.mark.parametrize("trained", [[0.5, 0.6, 0.4], [0.3, 0.3, 0.3]])
def test_learning_fails_if_one_method_is_not_surely_better(numbers_of: Make, trained: list[float]) -> None:
    numbers = probe(
        numbers_of,
        acc_100shot={"umd": [0.8, 0.8, 0.8], "mae": trained},
        untrained_acc_100shot={"umd": [0.5, 0.5, 0.5], "mae": [0.4, 0.4, 0.4]},
    )
    gate = learning(numbers)
    assert (gate.verdict, gate.found) == ("fail", "No gain over untrained weights was shown for mae in probe 100-shot %.")


def test_learning_judges_the_best_read_out_too(numbers_of: Make) -> None:
    better = {"umd": [0.8, 0.8]}, {"umd": [0.5, 0.5]}
    numbers = numbers_of(
        {
            ("probe", ACC): better[0],
            ("probe", f"untrained_{ACC}"): better[1],
            ("best_probe", ACC): better[1],
            ("best_probe", f"untrained_{ACC}"): better[0],
        }
    )
    gate = learning(numbers)
    assert gate.verdict == "fail"
    assert gate.found.startswith("No gain over untrained weights was shown for umd in best")


def test_one_seed_shows_nothing(numbers_of: Make) -> None:
    numbers = probe(numbers_of, acc_100shot={"umd": [0.9]}, untrained_acc_100shot={"umd": [0.1]})
    assert learning(numbers).verdict == "unknown"
