"""A file of samples is scored under several profiles in one pass; each gives the scores and facts that it gives alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from umd_bench.config.errors import UserError
from umd_bench.config.trial.data import DataConfig
from umd_bench.data.open_data import open_pack
from umd_bench.data.packs.manifest import data_root
from umd_bench.evaluation.extractors.registry import load_extractor
from umd_bench.evaluation.samples.sample_files import SampleWriter
from umd_bench.evaluation.samples.scoring.evaluator import evaluator_for
from umd_bench.orchestration.runs import score_file
from umd_bench.orchestration.runs.score_file import ProfileScores, score_samples, scores_json, scores_table

DIGITS = DataConfig(name="digits")
N = 300


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    """Dimmed training images: a set that is not perfect by any score."""
    path = tmp_path / "samples.npz"
    images = torch.from_numpy(np.array(open_pack("digits", data_root()).split("train").images[:N]))
    with SampleWriter(path, N) as writer:
        writer.add(images // 4 * 3)
    return path


def scored(path: Path, *profiles: str, n: int | None = None) -> list[ProfileScores]:
    return score_samples(path, DIGITS, data_root(), profiles, n=n)


@pytest.fixture
def small_profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real profiles with 100 and 300 samples."""
    stage = score_file._stage
    sizes = {"umd-paper": 100, "adm-50k": N}
    monkeypatch.setattr(score_file, "_stage", lambda name, n: stage(name, n or sizes[name]))


@pytest.mark.usefixtures("small_profiles")
def test_two_profiles_in_one_pass_equal_each_alone(samples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = [scored(samples, name)[0] for name in ("umd-paper", "adm-50k")]
    extracted = []
    update = score_file._ExtractorScorer.update
    monkeypatch.setattr(
        score_file._ExtractorScorer,
        "update",
        lambda self, start, images: (extracted.append(len(images)), update(self, start, images)),
    )
    both = scored(samples, "umd-paper", "adm-50k")
    assert [s.metrics for s in both] == [pytest.approx(s.metrics, rel=1e-9) for s in alone]
    assert [s.facts for s in both] == [s.facts for s in alone]
    assert sum(extracted) == N
    assert [(s.profile, s.facts["n"], s.facts["reference_label"]) for s in both] == [
        ("umd-paper", 100, "digits test"),
        ("adm-50k", 300, "digits train"),
    ]
    assert set(both[0].metrics) == {f"{name}_digits_cnn" for name in ("fd", "fd_inf", "is", "floor_fd")}
    assert set(both[1].metrics) == set(both[0].metrics) | {"precision_digits_cnn", "recall_digits_cnn"}
    assert both[1].facts["left_out"] == ["sfid"]


def test_scores_of_a_whole_file_are_those_of_its_images_in_order(samples: Path) -> None:
    (scores,) = scored(samples, "umd-paper", n=N)
    extractor, pack = load_extractor("digits_cnn"), open_pack("digits", data_root())
    evaluator = evaluator_for(extractor, pack, ["fd", "fd_inf", "is"], "test", N)
    accumulator = evaluator.accumulator(N, None)
    accumulator.update(torch.from_numpy(np.array(pack.split("train").images[:N])) // 4 * 3, torch.arange(N))
    assert scores.metrics == pytest.approx(evaluator.metrics([evaluator.score(accumulator)]), rel=1e-9)


@pytest.mark.usefixtures("small_profiles")
def test_the_table_has_a_column_for_each_profile_with_the_facts_that_differ(samples: Path) -> None:
    results = scored(samples, "umd-paper", "adm-50k")
    table = scores_table(results, "title")
    console = Console(width=140, record=True)
    console.print(table)
    text = console.export_text()
    assert [column.header for column in table.columns] == ["", "umd-paper", "adm-50k"]
    for word in (
        "digits test",
        "digits train",
        "100",
        "300",
        "fd_digits_cnn",
        "recall_digits_cnn",
        "sfid",
        results[0].facts["reference_hash"][:12],
    ):
        assert word in text
    plain = json.loads(json.dumps(scores_json(results)))
    assert plain[1]["metrics"] == results[1].metrics
    assert plain[0]["by_metric"]["is_digits_cnn"]["splits"] == 10


def test_a_file_that_cannot_be_scored_gives_a_one_line_error_before_any_extraction(
    samples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_file, "load_extractor", None)
    wide = samples.with_name("wide.npy")
    np.save(wide, np.zeros((20, 8, 9, 3), np.uint8))
    for problem, call in {
        r"holds 300 samples, and umd-paper scores 10,000: give a file with as many, another --profile, or --n 300": (
            samples,
            "umd-paper",
        ),
        r"images of 8x9, but images of digits are 8x8": (wide, "umd-paper", 20),
        r"--profile 'fid' is not accepted: expected one of adm-50k, umd-paper": (samples, "fid"),
        r"--n = 1 is not accepted|greater than or equal to 2|at least 2": (samples, "umd-paper", 1),
    }.items():
        path, profile, *n = call
        with pytest.raises(UserError, match=problem):
            scored(path, profile, n=n[0] if n else None)
    with pytest.raises(UserError, match="--extractor = 'none' is not accepted"):
        score_samples(samples, DIGITS, data_root(), ["umd-paper"], ["none"])


def test_colour_samples_of_grey_data_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "colour.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3)).astype(np.uint8))
    with pytest.raises(UserError, match=r"samples 0\.\.19 are colour images"):
        scored(path, "umd-paper", n=20)
