"""The generate stage: labels, independence from the batch size, scores with their facts, and the pictures."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from evaluation.small_parents import NIMG, SHARED, digits, opened_splits, parent_run, run_of, stage_of
from PIL import Image

from umd_bench.config.errors import UserError
from umd_bench.config.seeds import derive_seed
from umd_bench.config.trial.generate_stage import GenerateStage
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.data.batches.batches import to_uint8
from umd_bench.data.datasets import dataset_info
from umd_bench.data.packs.pack import Pack
from umd_bench.engine.diffusion.noise_process import NoiseProcess
from umd_bench.engine.samplers import generate
from umd_bench.engine.training.snapshot import restore_model
from umd_bench.evaluation.extractors.contract import Extractor, Features
from umd_bench.evaluation.extractors.registry import load_extractor
from umd_bench.evaluation.metrics.frechet import Gaussian, frechet_distance
from umd_bench.evaluation.metrics.inception_score import inception_score
from umd_bench.evaluation.samples import drawing, generate_stage
from umd_bench.evaluation.samples.generate_stage import run_generate, sample_labels
from umd_bench.evaluation.samples.scoring.reference import reference_of
from umd_bench.evaluation.stage_result import StageResult
from umd_bench.store.run import RunDir


def generated(root: Path, *, labels_in_parent: bool = True, **fields: object) -> tuple[StageResult, RunDir, StageSpec]:
    parent = parent_run(root, labels=labels_in_parent)
    spec = stage_of(parent, "generate", **fields)
    run = run_of(spec, root)
    with run.begin() as attempt:
        return run_generate(spec, parent, digits(), attempt), run, spec


def test_scores_are_those_of_samples_drawn_in_one_batch(tmp_path: Path) -> None:
    result, _, spec = generated(tmp_path, batch=7, n=30, sampling_seeds=2, cfg_scale=1.5, seed=3)
    stage = spec.stage
    assert isinstance(stage, GenerateStage)
    model = restore_model(parent_run(tmp_path / "again"), NIMG, source=dataset_info("digits"), ema=True)
    extractor = load_extractor("digits_cnn")
    real = Gaussian.of(extractor.features(torch.from_numpy(np.array(digits().split("test").images))).pooled)
    label = torch.arange(30) % 10
    expected: dict[str, list[float]] = {"fd": [], "is": [], "accuracy": []}
    for i in range(2):
        seed = derive_seed(3, "generate/set", i)
        x_0 = generate(model, NoiseProcess(SHARED["noise"]), stage, label=label, indices=range(30), seed=seed)
        out = extractor.features(to_uint8(x_0))
        features, logits = out.pooled, out.logits
        assert logits is not None
        expected["fd"].append(frechet_distance(Gaussian.of(features), real))
        expected["is"].append(inception_score(logits)[0])
        expected["accuracy"].append((logits.argmax(1) == label).double().mean().item())
    for name, values in expected.items():
        assert result.metrics[f"{name}_digits_cnn"] == pytest.approx(np.mean(values), rel=1e-3)
        assert result.metrics[f"{name}_digits_cnn_sd"] == pytest.approx(np.std(values, ddof=1), rel=0.05, abs=1e-3)
    assert expected["fd"][0] != expected["fd"][1]


def test_batch_size_changes_no_score(tmp_path: Path) -> None:
    one, other = (generated(tmp_path / str(batch), batch=batch, labels="drawn")[0] for batch in (30, 4))
    assert other.metrics == pytest.approx(one.metrics, rel=1e-3)


@pytest.mark.slow
def test_a_compiled_stage_draws_batches_of_one_shape_and_the_same_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, _, spec = generated(tmp_path, batch=12, n=30)
    monkeypatch.setattr(
        torch, "compile", partial(torch.compile, backend="eager")
    )  # the same code path without minutes of compilation
    drawn: list[int] = []

    def counted(*args: Any, indices: Sequence[int], **options: Any) -> torch.Tensor:
        drawn.append(len(indices))
        return generate(*args, indices=indices, **options)

    monkeypatch.setattr(drawing, "generate", counted)
    spec = spec.model_copy(update={"resources": spec.resources.model_copy(update={"compile": True})})
    parent = parent_run(tmp_path / "compiled")
    with run_of(spec, tmp_path / "compiled").begin() as attempt:
        compiled = run_generate(spec, parent, digits(), attempt)
    assert drawn == [12, 12, 12]
    assert compiled.metrics == pytest.approx(plain.metrics)


def test_the_stage_repeats_to_the_bit_and_its_floor_depends_on_the_data_alone(tmp_path: Path) -> None:
    first, again, other = (generated(tmp_path / name, seed=seed)[0] for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert first.metrics == again.metrics
    assert first.metrics["fd_digits_cnn"] != other.metrics["fd_digits_cnn"]
    assert first.metrics["floor_fd_digits_cnn"] == other.metrics["floor_fd_digits_cnn"]


def test_the_facts_say_how_every_score_was_made(tmp_path: Path) -> None:
    facts = dict(generated(tmp_path, n=30, eta=0.5, clip=False, reference="train")[0].facts)
    assert set(facts.pop("by_metric")) == {"is_digits_cnn"}
    extractor = load_extractor("digits_cnn")
    assert facts == {
        "extractor": "digits_cnn",
        "extractor_hash": extractor.hash,
        "extractor_accuracy": 0.988,
        "resize": "none",
        "left_out": [],
        "reference": "train",
        "reference_label": "digits train",
        "reference_hash": reference_of(digits(), "train", extractor).hash,
        "reference_n": 1047,
        "n": 30,
        "sampling_seeds": 1,
        "floor_n": 30,
        "floor_draws": 5,
        "is_splits": 10,
        "sampler": "ddim",
        "steps": 2,
        "eta": 0.5,
        "cfg_scale": 1.0,
        "cfg_interval": None,
        "model_calls": 3,
        "clip": False,
        "ema": True,
        "labels": "balanced",
        "weights_nimg": NIMG,
    }


@pytest.mark.parametrize("fields", [{"reference": "validation"}, {"reference": "train", "held_out": "validation"}])
def test_scores_on_the_validation_split_open_no_test_image(
    fields: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = replace(digits(), path=Path(shutil.copytree(digits().path, tmp_path / "data" / "digits")))
    opened = opened_splits(monkeypatch)
    parent = parent_run(tmp_path)
    spec = stage_of(parent, "generate", scores=["fd", "kid", "memorised"], **fields)
    with run_of(spec, tmp_path).begin() as attempt:
        result = run_generate(spec, parent, pack, attempt)
    assert opened == {"train", "validation"}
    assert result.facts["reference_label"] == f"digits {fields['reference']}"
    by_metric = result.facts["by_metric"]
    assert isinstance(by_metric, dict)
    assert by_metric["memorised_digits_cnn"]["held_out"] == "validation"
    assert by_metric["memorised_digits_cnn"]["held_out_n"] == 250


def test_ema_chooses_the_weights(tmp_path: Path) -> None:
    (raw, *_), (average, *_) = (generated(tmp_path / str(ema), ema=ema) for ema in (False, True))
    assert (raw.facts["ema"], average.facts["ema"]) == (False, True)
    assert raw.metrics["fd_digits_cnn"] != average.metrics["fd_digits_cnn"]


def test_a_parent_without_classes_is_sampled_without_labels(tmp_path: Path) -> None:
    result, run, _ = generated(tmp_path, labels_in_parent=False)
    assert set(result.metrics) == {"fd_digits_cnn", "is_digits_cnn", "floor_fd_digits_cnn"}
    assert result.facts["labels"] is None
    assert Image.open(run.artifacts / "samples.png").size == (10 * 50 - 2, 3 * 50 - 2)


def test_two_samples_are_enough(tmp_path: Path) -> None:
    result, run, _ = generated(tmp_path, n=2)
    assert np.isfinite(list(result.metrics.values())).all()
    assert result.facts["is_splits"] == 2
    assert Image.open(run.artifacts / "samples.png").size == (48, 98)  # two of ten classes have a sample


def test_the_picture_has_a_row_for_each_class_and_shows_the_scored_samples(tmp_path: Path) -> None:
    _, run, spec = generated(tmp_path, n=40, batch=16, sampling_seeds=2)
    stage = spec.stage
    assert isinstance(stage, GenerateStage)
    picture = np.asarray(Image.open(run.artifacts / "samples.png"))
    assert picture.shape == (10 * 50 - 2, 4 * 50 - 2)
    model = restore_model(parent_run(tmp_path / "again"), NIMG, source=dataset_info("digits"), ema=True)
    x_0 = generate(
        model,
        NoiseProcess(SHARED["noise"]),
        stage,
        label=torch.arange(40) % 10,
        indices=range(40),
        seed=derive_seed(0, "generate/set", 0),
    )
    shown = picture[3 * 50 : 3 * 50 + 48 : 6, 2 * 50 : 2 * 50 + 48 : 6]  # class 3, its third sample
    assert np.abs(shown.astype(int) - to_uint8(x_0)[23, 0].numpy()).max() <= 1


def test_progress_events_end_at_the_total(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate_stage, "_PROGRESS_SECONDS", 0.0)
    _, run, _ = generated(tmp_path, n=30, batch=12, sampling_seeds=2)
    done = [(event["done"], event["total"]) for event in run.events() if event["event"] == "progress"]
    assert done == [(12, 60), (24, 60), (30, 60), (42, 60), (54, 60), (60, 60)]


def test_progress_events_are_at_least_two_seconds_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(
        monotonic=count(time.monotonic(), 0.5).__next__, perf_counter=time.perf_counter
    )  # half a second per call
    monkeypatch.setattr(generate_stage, "time", clock)
    _, run, _ = generated(tmp_path, n=30, batch=1)
    done = [event["done"] for event in run.events() if event["event"] == "progress"]
    assert len(done) > 3
    assert np.diff(done).min() >= 3  # four readings of the clock: one per sample, but one may be the event's


@pytest.mark.parametrize("kind", ["balanced", "drawn"])
def test_labels_of_a_set_do_not_depend_on_its_length(kind: str) -> None:
    train = np.array([0, 1, 1, 2])
    stage = GenerateStage(parent="p", n=400, labels=kind, extractor="digits_cnn")
    long, short = (sample_labels(stage.model_copy(update={"n": n}), train, 3, seed=5) for n in (400, 50))
    assert torch.equal(long[:50], short)
    counts = torch.bincount(long).tolist()
    assert counts == [134, 133, 133] if kind == "balanced" else abs(counts[1] - 200) < 40


def test_nan_weights_are_a_users_error_and_leave_no_picture(tmp_path: Path) -> None:
    parent = parent_run(tmp_path, spoil=True)
    spec = stage_of(parent, "generate", ema=False)
    run = run_of(spec, tmp_path)
    with run.begin() as attempt, pytest.raises(UserError, match=r"samples 0\.\.29 are NaN or infinite"):
        run_generate(spec, parent, digits(), attempt)
    assert not (run.artifacts / "samples.png").exists()


def test_other_stages_and_extractors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"stages\.generate\.extractor = 'inception' is not accepted"):
        generated(tmp_path / "a", extractor="inception")
    with pytest.raises(UserError, match="reads images of emoji64, not of digits"):
        generated(tmp_path / "b", extractor="emoji_cnn")
    parent = parent_run(tmp_path)
    spec = stage_of(parent, "probe")
    with run_of(spec, tmp_path).begin() as attempt, pytest.raises(UserError, match="expected a generate stage"):
        run_generate(spec, parent, digits(), attempt)


def test_an_extractor_of_other_classes_reports_no_accuracy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate_stage, "load_extractor", lambda *given, **_: replace(load_extractor(*given), data=None))
    metrics = generated(tmp_path)[0].metrics
    assert set(metrics) == {"fd_digits_cnn", "is_digits_cnn", "floor_fd_digits_cnn"}


EVERYTHING = ["fd", "fd_inf", "kid", "is", "accuracy", "precision_recall", "memorised"]


def test_every_score_comes_with_its_facts_and_its_spread(tmp_path: Path) -> None:
    result, run, _ = generated(tmp_path, n=40, sampling_seeds=2, scores=EVERYTHING)
    names = {"fd", "fd_inf", "kid", "is", "accuracy", "precision", "recall", "memorised"}
    expected = {f"{name}_digits_cnn{spread}" for name in names for spread in ("", "_sd")} | {"floor_fd_digits_cnn"}
    assert set(result.metrics) == expected
    by_metric = result.facts["by_metric"]
    assert by_metric["kid_digits_cnn"]["subset_size"] == 40
    assert by_metric["fd_inf_digits_cnn"]["points"] == [13, 20, 26, 33, 40]
    assert by_metric["memorised_digits_cnn"]["expected"] == 0.05
    assert Image.open(run.artifacts / "neighbours.png").size == (2 * 50 - 2, 10 * 50 - 2)
    assert not (run.artifacts / "samples.npz").exists()


def test_further_scores_do_not_change_the_others(tmp_path: Path) -> None:
    plain, more = (generated(tmp_path / str(len(s)), scores=s)[0].metrics for s in (["fd", "is", "accuracy"], EVERYTHING))
    assert {name: more[name] for name in plain} == plain


def test_several_extractors_score_the_same_samples_drawn_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str, device: torch.device, images: Pack) -> Extractor:
        """A second extractor, with half of the features and no classes."""
        loaded = load_extractor("digits_cnn", device)
        if name == "digits_cnn":
            return loaded

        def network(images: torch.Tensor, spatial: bool) -> Features:
            return Features(loaded.network(images, spatial).pooled[:, :32], None, None)

        return replace(loaded, name="timm:x.y", hash="f" * 64, dim=32, network=network, has_logits=False, data=None)

    monkeypatch.setattr(generate_stage, "load_extractor", load)
    monkeypatch.setattr(generate_stage, "check_extractor", lambda *_, **__: None)
    result, run, _ = generated(tmp_path, more_extractors=["timm:x.y"], scores=["fd", "is", "kid"])
    assert set(result.metrics) == {
        *("fd_digits_cnn", "kid_digits_cnn", "is_digits_cnn", "floor_fd_digits_cnn"),
        *("fd_timm_x_y", "kid_timm_x_y", "floor_fd_timm_x_y"),
    }
    assert result.metrics["fd_timm_x_y"] != result.metrics["fd_digits_cnn"]
    by_metric = result.facts["by_metric"]
    assert by_metric["kid_timm_x_y"]["extractor_hash"] == "f" * 64
    assert "extractor_hash" not in by_metric["kid_digits_cnn"]
    assert [event["done"] for event in run.events() if event["event"] == "progress"] in ([], [30])


def test_saved_samples_are_the_scored_ones_in_adms_format(tmp_path: Path) -> None:
    result, run, _ = generated(tmp_path, n=25, batch=10, save=True, sampling_seeds=2)
    with np.load(run.artifacts / "samples.npz") as file:
        images, label = file["arr_0"], file["arr_1"]
    assert images.shape == (25, 8, 8, 3)
    assert images.dtype == np.uint8
    assert label.tolist() == [i % 10 for i in range(25)]
    extractor = load_extractor("digits_cnn")
    features = extractor.features(torch.from_numpy(images[..., :1]).permute(0, 3, 1, 2).contiguous()).pooled
    reference = reference_of(digits(), "test", extractor).gaussian
    first = generated(tmp_path / "again", n=25, batch=10)[0].metrics["fd_digits_cnn"]
    assert frechet_distance(Gaussian.of(features), reference) == pytest.approx(first, rel=1e-9)
    assert result.metrics["fd_digits_cnn"] != first  # the mean over two sets of samples


def test_the_neighbours_picture_shows_the_nearest_sample_next_to_its_training_image(tmp_path: Path) -> None:
    _, run, _ = generated(tmp_path, n=40, scores=["memorised"])
    with np.load(generated(tmp_path / "again", n=40, save=True)[1].artifacts / "samples.npz") as file:
        images = torch.from_numpy(file["arr_0"][..., :1]).permute(0, 3, 1, 2).contiguous()
    extractor = load_extractor("digits_cnn")
    train = np.array(digits().split("train").images)
    rows = [extractor.features(x).pooled.double() for x in (images, torch.from_numpy(train))]
    distance, index = torch.cdist(*rows).min(1)
    shown = np.asarray(Image.open(run.artifacts / "neighbours.png"))
    nearest = int(distance.argmin())
    assert np.abs(shown[:48:6, :48:6].astype(int) - images[nearest, 0].numpy()).max() <= 1
    assert np.array_equal(shown[:48:6, 50::6], train[index[nearest], 0])
