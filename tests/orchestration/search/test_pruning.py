"""Decisions at a rung: each pruner, in either direction, decides from the suggestions' numbers and values alone."""

from __future__ import annotations

import pytest

from umd_bench.config.sweep.pruning import PrunerConfig, percent, rung_stage
from umd_bench.orchestration.search.pruning import Rung, SettledTrial, decide_rung


def pruner(kind: str, **fields: object) -> PrunerConfig:
    return PrunerConfig.model_validate({"kind": kind, **fields})


def decide(config: PrunerConfig, values: list[float], direction: str = "maximise", name: str = "s") -> list[bool]:
    """Whether each of some suggestions is pruned at its first rung, one after another."""
    settled: list[SettledTrial] = []
    for number, value in enumerate(values):
        rung = decide_rung(config, direction, settled, number, (), value, study_name=name)  # type: ignore[arg-type]
        settled.append(SettledTrial((rung,), complete=not rung.pruned))
    return [bool(each.rungs[0].pruned) for each in settled]


def test_the_median_pruner_prunes_nothing_before_startup_and_then_values_worse_than_the_median() -> None:
    config = pruner("median", startup=3)
    values = [0.5, 0.1, 0.3, 0.29, 0.31, 0.2, 0.9]
    # medians of the finished values: 0.3 of (0.5, 0.1, 0.3); then 0.305 of these and 0.31
    assert decide(config, values) == [False, False, False, True, False, True, False]
    assert decide(config, [-value for value in values], "minimise") == decide(config, values)


def test_the_median_pruner_compares_a_trials_best_rung_so_far() -> None:
    config = pruner("median", startup=2)
    finished = SettledTrial((Rung(0.25, 0.5, False, {}), Rung(0.5, 0.6, False, {})), complete=True)
    fell = (Rung(0.25, 0.7, False, {}),)
    assert not decide_rung(config, "maximise", [finished, finished], 2, fell, 0.1, study_name="s").pruned
    assert decide_rung(config, "maximise", [finished, finished], 2, (Rung(0.25, 0.55, False, {}),), 0.1, study_name="s").pruned


def test_halving_lets_about_one_in_reduction_go_on() -> None:
    config = pruner("successive_halving", reduction=3)
    values = [((37 * i) % 90) / 90 for i in range(90)]
    survivors = [value for value, pruned in zip(values, decide(config, values), strict=True) if not pruned]
    assert 20 <= len(survivors) <= 40
    assert max(values) in survivors
    assert sorted(values)[1] not in survivors  # the lowest comes first and survives: there is nothing to compare it with


def test_halving_compares_at_the_second_rung_only_suggestions_that_reached_it() -> None:
    config = pruner("successive_halving", reduction=2, rungs=(0.1, 0.4))
    settled: list[SettledTrial] = []
    for number, (first, second) in enumerate([(0.9, 0.2), (0.8, 0.9), (0.95, 0.5), (0.96, 0.95)]):
        rung = decide_rung(config, "maximise", settled, number, (), first, study_name="s")
        rungs = (rung,)
        if not rung.pruned:
            rungs = (rung, decide_rung(config, "maximise", settled, number, (rung,), second, study_name="s"))
        settled.append(SettledTrial(rungs, complete=not rungs[-1].pruned))
    assert [[(rung.share, rung.pruned) for rung in each.rungs] for each in settled] == [
        [(0.1, False), (0.4, False)],
        [(0.1, True)],
        [(0.1, False), (0.4, False)],
        [(0.1, False), (0.4, False)],
    ]


@pytest.mark.parametrize("reduction", [2, 3, 5, 10])
@pytest.mark.parametrize("n_rungs", [1, 2, 3, 5])
def test_hyperband_has_one_bracket_for_each_rung_and_one_that_prunes_nothing(reduction: int, n_rungs: int) -> None:
    config = pruner("hyperband", reduction=reduction, rungs=[(i + 1) / 10 for i in range(n_rungs)])
    from umd_bench.orchestration.search.pruning import _pruner

    made = _pruner(config)
    made._try_initialization(None)  # type: ignore[attr-defined]
    assert made._n_brackets == n_rungs + 1  # type: ignore[attr-defined]


def test_hyperbands_bracket_follows_from_the_study_name_and_the_number() -> None:
    config = pruner("hyperband", reduction=2)
    values = [((37 * i) % 40) / 40 for i in range(40)]
    first = decide(config, values)
    assert 4 < sum(first) < 36
    assert decide(config, values) == first
    assert decide(config, values, name="another") != first


def test_the_number_of_settled_suggestions_does_not_change_the_bracket() -> None:
    """The bracket must not depend on how many were settled when the trial was suggested."""
    config = pruner("hyperband", reduction=2)
    complete = SettledTrial((), complete=True)
    decisions = {
        decide_rung(config, "maximise", [complete] * before, 12, (), 0.3, study_name="s").system_attrs != {}
        for before in (0, 5, 12)
    }
    assert len(decisions) == 1


@pytest.mark.parametrize(("share", "name"), [(0.25, "probe_at_25"), (0.125, "probe_at_12_5"), (1 / 3, "probe_at_33_3333")])
def test_a_rung_is_named_by_its_percent(share: float, name: str) -> None:
    assert rung_stage("probe", share) == name
    assert percent(0.29) == "29"
