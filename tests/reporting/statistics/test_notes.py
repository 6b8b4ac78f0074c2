"""Notes under a table: the facts behind the numbers, alarms, and explanations of the columns that are shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from reporting.built_results import TWO_ARMS, build_sweep

from umd_bench.config.sweep.resolve import Trial
from umd_bench.reporting.statistics.notes import format_facts
from umd_bench.reporting.statistics.summary import summarize


def test_a_fact_that_one_of_two_axes_decides_names_that_axis_alone() -> None:
    rows = pd.DataFrame(
        [(block, t, f"after block {block}", t, block + t) for block in (1, 2) for t in (0, 51)],
        columns=["block", "t", "position", "probe_t", "both"],
    )
    names = {"position": "position", "probe_t": "t", "both": "sum"}
    assert format_facts(rows, names, ["block", "t"]) == (
        "position after block 1 (1) or after block 2 (2); sum 1 (1 0) or 52 (1 51) or 2 (2 0) or 53 (2 51)"
    )


def test_a_fact_that_differs_between_the_seeds_of_every_arm_names_no_arm() -> None:
    rows = pd.DataFrame([(ratio, commit) for ratio in (0.25, 0.5) for commit in ("aa", "bb")], columns=["ratio", "commit"])
    assert format_facts(rows, {"commit": "commit"}, ["ratio"]) == "commit aa or bb"
    assert format_facts(rows.iloc[:3], {"commit": "commit"}, ["ratio"]) == "commit aa (0.25, 0.5) or bb (0.25)"


def test_notes_say_which_arm_was_probed_where(tmp_path: Path) -> None:
    build_sweep(tmp_path, "methods")
    notes = summarize(tmp_path, "methods").notes
    assert any(note.startswith("probe: ") and "t 0 (umd, mae) or 51 (dit, maskdit)" in note for note in notes)
    assert any(note.startswith("generate: n 500;") and "guidance 1.5; EMA yes" in note for note in notes)


@pytest.mark.parametrize("split", ["test", "validation"])
def test_the_first_note_says_which_split_the_numbers_are_of(split: str, tmp_path: Path) -> None:
    build_sweep(tmp_path, axes=TWO_ARMS, sets=(f"split={split}",))
    assert summarize(tmp_path, "mask_ratio").notes[0] == f"Scored on the {split} split."


def test_stages_that_read_different_splits_are_named(tmp_path: Path) -> None:
    sets = ("trial.stages.generate.reference=train", "trial.stages.generate.held_out=validation")
    build_sweep(tmp_path, axes=TWO_ARMS, sets=sets)
    notes = summarize(tmp_path, "mask_ratio", metrics=["probe.*", "generate.*"]).notes
    assert notes[0] == "Scored on the test split: probe; on the validation split: generate."
    assert summarize(tmp_path, "mask_ratio", metrics=["probe.*"]).notes[0] == "Scored on the test split."


def test_arms_of_different_splits_share_no_column(tmp_path: Path) -> None:
    build_sweep(
        tmp_path, axes={"stages.generate.held_out": ["test", "validation"]}, sets=("trial.stages.generate.reference=train",)
    )
    floors = summarize(tmp_path, "mask_ratio", metrics=["generate.memorised_digits_cnn"]).columns
    assert [column.variant for column in floors] == ["split=test", "split=validation"]


def test_the_memorisation_alarm_is_a_note_that_names_the_runs(tmp_path: Path) -> None:
    def copied(trial: Trial, stage: str, result: dict[str, Any]) -> None:
        if stage == "generate" and trial.id == "mask_ratio=0.5,seed=1":
            result["metrics"]["memorised_digits_cnn"] = 0.31

    build_sweep(tmp_path / "quiet", axes=TWO_ARMS)
    assert not any("alarm" in note for note in summarize(tmp_path / "quiet", "mask_ratio").notes)
    build_sweep(tmp_path / "loud", axes=TWO_ARMS, edit=copied)
    (note,) = [note for note in summarize(tmp_path / "loud", "mask_ratio").notes if "alarm" in note]
    assert "held-out images (5%)" in note
    assert "31.0% of mask_ratio=0.5,seed=1." in note
    assert "seed=0" not in note


def test_extrapolation_and_kernel_distance_are_explained_only_if_they_are_shown(tmp_path: Path) -> None:
    build_sweep(tmp_path, axes=TWO_ARMS)
    both = summarize(tmp_path, "mask_ratio").notes
    neither = summarize(tmp_path, "mask_ratio", metrics=["probe.*"]).notes
    assert [sum(note.startswith(("fd_inf", "kid")) for note in notes) for notes in (both, neither)] == [2, 0]
