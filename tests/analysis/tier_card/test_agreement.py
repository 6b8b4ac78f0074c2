"""Agreement with the published order: Kendall's tau for each seed, where nearly equal published numbers are ties."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from analysis.published import load
from analysis.tier_card.agreement import agreement, counterpart, order, ranks, tau
from analysis.tier_card.numbers import Numbers

Make = Callable[[dict[tuple[str, str], dict[str, list[float]]]], Numbers]
PROBE, DISTANCE = ("probe", "acc_100shot"), ("generate", "fd_x_cnn")
PUBLISHED = {"umd": 0.318, "mae": 0.366, "dit": 0.256, "maskdit": 0.263}


def seeds(values: dict[str, float], n: int = 3) -> dict[str, list[float]]:
    return {method: [value] * n for method, value in values.items()}


def test_two_published_probes_are_tied_and_three_published_distances() -> None:
    rows = {row.method: row.numbers for row in load("imagenet64").rows}
    assert ranks({m: n["acc_100shot"] for m, n in rows.items()}) == {"umd": 1, "mae": 2, "dit": 0, "maskdit": 0}
    assert ranks({m: n["fid"] for m, n in rows.items()}) == {"umd": 0, "mae": 1, "dit": 0, "maskdit": 0}


@pytest.mark.parametrize(("other", "placed"), [(104.9, [0, 0]), (105.4, [0, 1])])
def test_a_difference_below_five_percent_of_the_larger_is_a_tie(other: float, placed: list[int]) -> None:
    assert list(ranks({"a": 100.0, "b": other}).values()) == placed


def test_the_published_order_itself_agrees_as_far_as_its_ties_allow(numbers_of: Make) -> None:
    gate = agreement(numbers_of({PROBE: seeds(PUBLISHED)}), [PROBE], [PROBE])
    assert gate.verdict == "pass"
    [row] = gate.rows
    assert row["published order"] == "mae > umd > dit = maskdit"
    assert row["order here"] == "mae > umd > maskdit > dit"
    assert row["mean tau"] == row["at most"] == pytest.approx(0.913, abs=1e-3)


def test_the_order_within_a_published_tie_does_not_matter(numbers_of: Make) -> None:
    swapped = PUBLISHED | {"dit": 0.263, "maskdit": 0.256}
    gates = [agreement(numbers_of({PROBE: seeds(values)}), [PROBE], [PROBE]) for values in (PUBLISHED, swapped)]
    assert gates[0].rows[0]["mean tau"] == gates[1].rows[0]["mean tau"]


def test_the_opposite_order_and_an_unsure_one_fail(numbers_of: Make) -> None:
    opposite = {method: 1 - value for method, value in PUBLISHED.items()}
    assert agreement(numbers_of({PROBE: seeds(opposite)}), [PROBE], [PROBE]).verdict == "fail"
    unsure = {method: [PUBLISHED[method], opposite[method], PUBLISHED[method]] for method in PUBLISHED}
    gate = agreement(numbers_of({PROBE: unsure}), [PROBE], [PROBE])
    assert gate.verdict == "fail"
    assert gate.rows[0]["tau of each seed"] == "0.91, -0.91, 0.91"


def test_small_distances_are_the_good_ones(numbers_of: Make) -> None:
    """MAE's published distance is the largest: the orders agree if it is the largest here too, whatever the other three do."""
    numbers = numbers_of({DISTANCE: seeds({"umd": 7.0, "mae": 25.0, "dit": 8.0, "maskdit": 9.0})})
    gate = agreement(numbers, [DISTANCE], [DISTANCE])
    assert gate.verdict == "pass"
    assert gate.rows[0]["published order"] == "umd = dit = maskdit > mae"
    assert gate.rows[0]["order here"] == "umd > dit > maskdit > mae"


def test_one_seed_or_two_methods_are_unknown(numbers_of: Make) -> None:
    assert agreement(numbers_of({PROBE: seeds(PUBLISHED, 1)}), [PROBE], [PROBE]).verdict == "unknown"
    two = {method: PUBLISHED[method] for method in ("umd", "mae")}
    assert agreement(numbers_of({PROBE: seeds(two)}), [PROBE], [PROBE]).verdict == "unknown"
    assert agreement(numbers_of({PROBE: seeds(PUBLISHED)}), [PROBE], [PROBE, DISTANCE]).verdict == "unknown"


def test_all_ties_order_nothing() -> None:
    assert tau([0, 1, 2], [1.0, 1.0, 1.0]) == 0
    assert order({"a": 1.0, "b": 1.0, "c": 2.0}, higher_is_better=True) == "c > a = b"


@pytest.mark.parametrize(
    ("column", "name"),
    [
        (("probe", "acc_10shot"), "acc_100shot"),
        (("best_probe", "acc_100shot"), "acc_100shot"),
        (("finetune_probe", "acc_100shot"), None),
        (("probe", "pixel_acc_100shot"), None),
        (("generate", "fid"), "fid"),
        (("generate", "fd_inf_digits_cnn"), None),
        (("generate", "is_digits_cnn"), "is"),
        (("generate_cfg4", "fid"), None),
    ],
)
def test_columns_and_their_published_counterparts(column: tuple[str, str], name: str | None) -> None:
    assert counterpart(*column) == name
