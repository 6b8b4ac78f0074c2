"""Looks: results are counted by the split that they read, trainings once for all their seeds."""

from __future__ import annotations

from pathlib import Path

import pytest
from reporting.built_results import TWO_ARMS, build_sweep

from analysis.tier_card.looks import count_looks, splits_read
from umd_bench.config.sweep.resolve import Trial, load_trial
from umd_bench.config.trial.generate_stage import GenerateStage
from umd_bench.config.trial.probe_stage import ProbeStage
from umd_bench.store import RunDir

DIGEST = "d" * 64  # of the made-up results


def test_results_and_settings_are_counted_for_each_split(tmp_path: Path) -> None:
    validated = tuple(f"trial.stages.{stage}.split=validation" for stage in ("probe", "finetune_probe"))
    kept = "stages=[probe, finetune_probe, generate]"
    build_sweep(tmp_path, axes=TWO_ARMS, sets=("seeds=[0, 1]", kept))
    build_sweep(tmp_path, axes={"stages.pretrain.corruption.mask_ratio": [0.25]}, sets=("seeds=[0]", kept, *validated))
    looks = count_looks(tmp_path, DIGEST)
    assert looks["test"].model_dump() == {"probes": 2 * 2 * 2, "samples": 2 * 2, "settings": 4}
    assert looks["validation"].model_dump() == {"probes": 2, "samples": 0, "settings": 2}


def test_other_data_and_unfinished_stages_do_not_count(tmp_path: Path) -> None:
    def of_other_data(trial: Trial, stage: str, result: dict[str, object]) -> None:
        if stage == "probe":
            result["data"] = {"name": "other", "digest": "e" * 64}

    build_sweep(
        tmp_path,
        axes={"stages.pretrain.corruption.mask_ratio": [0.25]},
        sets=("seeds=[0]",),
        edit=of_other_data,
        failed={("mask_ratio=0.25,seed=0", "generate"): "oom"},
    )
    assert count_looks(tmp_path, DIGEST)["test"].model_dump() == {"probes": 1, "samples": 0, "settings": 1}


def test_a_parent_that_is_gone_still_counts_as_a_setting(tmp_path: Path) -> None:
    record = build_sweep(tmp_path, axes={"stages.pretrain.corruption.mask_ratio": [0.25]}, sets=("seeds=[0]", "stages=[probe]"))
    (RunDir(tmp_path, record.trials[0].stages["pretrain"]).path / "config.yaml").unlink()
    assert count_looks(tmp_path, DIGEST)["test"].settings == 1


@pytest.mark.parametrize(
    ("fields", "read"),
    [
        ({}, {"test"}),
        ({"reference": "validation"}, {"validation"}),
        ({"reference": "train"}, {"test"}),
        ({"reference": "train", "held_out": "validation"}, {"validation"}),
        ({"reference": "some.npz", "scores": ("fd",)}, set()),
        ({"reference": "some.npz", "scores": ("fd", "memorised")}, {"test"}),
    ],
)
def test_a_generate_stage_reads_its_reference_or_its_held_out_split(fields: dict[str, object], read: set[str]) -> None:
    spec = load_trial("umd").specs["generate"]
    stage = GenerateStage.model_validate(spec.stage.model_dump(exclude={"reference", "scores"}) | {"scores": ("fd",)} | fields)
    assert splits_read(spec.model_copy(update={"stage": stage})) == read


def test_a_probe_reads_the_split_that_it_scores() -> None:
    spec = load_trial("umd").specs["probe"]
    assert isinstance(spec.stage, ProbeStage)
    assert splits_read(spec) == {"test"}
    validated = spec.stage.model_copy(update={"split": "validation"})
    assert splits_read(spec.model_copy(update={"stage": validated})) == {"validation"}
    assert splits_read(load_trial("umd").specs["pretrain"]) == set()


def test_a_probe_that_chooses_its_read_out_reads_validation_too() -> None:
    spec = load_trial("umd", sets=["stages.probe.choose={}"]).specs["probe"]
    assert splits_read(spec) == {"test", "validation"}
    validated = load_trial("umd", split="validation", sets=["stages.probe.choose={}"]).specs["probe"]
    assert splits_read(validated) == {"validation"}
