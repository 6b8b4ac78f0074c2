"""The choice of a read-out: the best candidate on validation, scored once, for trained and initial weights alike."""

from __future__ import annotations

from pathlib import Path

import pytest
from evaluation.small_parents import MODEL, digits, opened_splits, parent_run, run_of, stage_of

from umd_bench.config.trial.probe_stage import Place
from umd_bench.evaluation.probes import choice
from umd_bench.evaluation.probes.probe_stage import run_probe
from umd_bench.evaluation.probes.readouts import Readouts
from umd_bench.evaluation.stage_result import StageResult

DEEP = MODEL.model_copy(update={"depth": 2, "adaln": False})
CHOOSE = {"blocks": "all", "pools": ["patches", "class"], "times": [0, 30]}
CANDIDATES = [Place(block, pool, t) for block in (1, 2) for pool in ("patches", "class") for t in (0, 30)]


def probed(root: Path, **fields: object) -> StageResult:
    parent = parent_run(root, model=DEEP)
    spec = stage_of(parent, "probe", model=DEEP, **{"shots": [3, 10], "draws": 2, "t": None, **fields})
    with run_of(spec, root).begin() as attempt:
        return run_probe(spec, parent, digits(), attempt)


@pytest.mark.slow
def test_the_best_candidate_on_validation_is_scored(tmp_path: Path) -> None:
    result = probed(tmp_path, choose=CHOOSE)
    accuracies = []
    for place in CANDIDATES:
        one = probed(tmp_path, **place._asdict(), split="validation")
        accuracies.append(one.metrics["acc_10shot"])
    facts = result.facts
    assert facts["candidate_accuracies"] == accuracies
    assert facts["candidates"] == [f"block {block}, {pool}, t = {t}" for block, pool, t in CANDIDATES]
    best = CANDIDATES[accuracies.index(max(accuracies))]
    assert Place(facts["chosen_block"], facts["chosen_pool"], facts["chosen_t"]) == best  # type: ignore[arg-type]
    assert (facts["probe_t"], facts["chosen_on"]) == (best.t, "validation")
    stated = probed(tmp_path, **best._asdict())
    assert facts["probe_position"] == stated.facts["probe_position"]
    trained = ("acc_3shot", "acc_3shot_sd", "acc_10shot", "acc_10shot_sd", "pixel_acc_10shot")
    assert {name: result.metrics[name] for name in trained} == {name: stated.metrics[name] for name in trained}


def test_the_initial_weights_are_read_at_their_own_best_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.1, 0.9, 0.2, 0.3])  # of the trained weights at t = 0 and 30, then of the initial ones
    monkeypatch.setattr(Readouts, "validation_accuracy", lambda *_: next(scores))
    facts = probed(tmp_path, choose={"blocks": [2], "pools": ["class"], "times": [0, 30]}).facts
    assert (facts["chosen_t"], facts["untrained_readout"]) == (30, "mean of class tokens at t = 30")
    scores = iter([0.1, 0.9, 0.3, 0.2])
    facts = probed(tmp_path, choose={"blocks": [2], "pools": ["class"], "times": [0, 30]}).facts
    assert (facts["chosen_t"], facts["untrained_readout"]) == (30, "mean of class tokens at t = 0")


def test_of_equal_candidates_the_first_wins_in_the_order_of_blocks_pools_and_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Readouts, "validation_accuracy", lambda *_: 0.5)
    facts = probed(tmp_path, choose={"blocks": [2, 1], "pools": ["class", "patches"], "times": [30, 0]}).facts
    assert (facts["chosen_block"], facts["chosen_pool"], facts["chosen_t"]) == (2, "class", 30)


def test_the_choice_never_opens_the_test_split_and_a_fact_says_if_its_split_is_also_the_scored_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = opened_splits(monkeypatch)
    facts = probed(tmp_path, choose=CHOOSE, split="validation").facts
    assert set(opened) == {"train", "validation"}
    assert facts["chosen_on"] == "validation, the scored split itself"
    assert choice.SPLIT == "validation"


def test_other_probes_are_read_at_the_chosen_place(tmp_path: Path) -> None:
    result = probed(tmp_path, choose=CHOOSE, shots=[3], knn=[5])
    stated = {field: result.facts[f"chosen_{field}"] for field in ("block", "pool", "t")}
    assert result.metrics["acc_knn5"] == probed(tmp_path, shots=[], knn=[5], **stated).metrics["acc_knn5"]
