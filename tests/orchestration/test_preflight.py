"""Missing or wrong weights of an extractor stop a sweep before anything starts; a plan needs none."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from orchestration.small import SMALL, write_small

from umd_bench.config.errors import UserError
from umd_bench.config.sweep.resolve import Trial, load_sweep
from umd_bench.data.packs.manifest import data_root
from umd_bench.evaluation.extractors import inception
from umd_bench.evaluation.extractors.classifiers import recipes
from umd_bench.orchestration.launch import Site, prepare
from umd_bench.orchestration.preflight import check_trials, check_weights

pytestmark = pytest.mark.usefixtures("no_weights_of_this_machine")

RGB = SMALL.replace("tier: digits", "tier: emoji64").replace("depth: 1, ", "patch: 16, depth: 1, ", 1)


def trials(folder: Path, extractor: str) -> tuple[Trial, ...]:
    return load_sweep(write_small(folder, RGB.replace("steps: 3}", f"steps: 3, extractor: {extractor}}}"))).trials


@pytest.mark.parametrize("extractor", ["inception-v3-compat", "timm:vit_large_patch14_dinov2.lvd142m"])
def test_missing_weights_stop_a_sweep_before_it_starts(tmp_path: Path, extractor: str) -> None:
    sweep = trials(tmp_path, extractor)
    check_trials(sweep)  # all that a plan checks
    with pytest.raises(UserError, match=f"{extractor} has no weights"):
        prepare(sweep, Site(tmp_path / "results", tmp_path / "data", "inline"))
    assert not (tmp_path / "results").exists()
    assert not (tmp_path / "data").exists()


def test_weights_with_another_hash_stop_a_sweep_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = inception.fetched_path()
    path.parent.mkdir(parents=True)
    path.write_bytes(b"others")
    with pytest.raises(UserError, match="is not the Inception-v3 that FID is defined by"):
        check_weights(trials(tmp_path, inception.FACTS.name), tmp_path / "results")
    for file in recipes.WEIGHTS.glob("digits_cnn.*"):
        shutil.copy(file, tmp_path)
    (tmp_path / "digits_cnn.safetensors").write_bytes(b"others")
    monkeypatch.setattr(recipes, "WEIGHTS", tmp_path)
    with pytest.raises(UserError, match="is not the extractor that scores were made with"):
        prepare(load_sweep(write_small(tmp_path)).trials, Site(tmp_path / "results", data_root(), "inline"))
    assert not (tmp_path / "results").exists()


def test_existing_weights_pass(tmp_path: Path) -> None:
    check_weights(trials(tmp_path, "efficientnet_lite0"), tmp_path / "results")
