"""The table of scores has a row for every name that a stage accepts, and the extractor decides which are available."""

from __future__ import annotations

import dataclasses

from umd_bench.config.trial import generate_stage
from umd_bench.evaluation.extractors.registry import load_extractor
from umd_bench.evaluation.samples.scoring.scores import SCORES, available_scores, scores_needing


def test_the_table_has_a_row_for_every_score_that_a_stage_accepts() -> None:
    assert set(SCORES) == set(generate_stage.SCORES)


def test_a_score_is_available_only_if_the_extractor_gives_its_inputs() -> None:
    extractor = load_extractor("digits_cnn")
    assert available_scores(extractor, SCORES) == SCORES.keys() - {"sfid"}
    assert available_scores(dataclasses.replace(extractor, spatial_dim=5), SCORES) == SCORES.keys()
    assert available_scores(dataclasses.replace(extractor, has_logits=False), SCORES) == SCORES.keys() - {
        "sfid",
        "is",
        "accuracy",
    }


def test_scores_are_selected_by_the_input_that_they_need() -> None:
    assert scores_needing("reference_rows", SCORES) == {"kid", "precision_recall"}
    assert scores_needing("rows", ["fd", "kid", "memorised"]) == {"kid", "memorised"}
