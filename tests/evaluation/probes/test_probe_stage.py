"""The probe stage: its features, its draws, and its report of classes with too few images."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation.small_parents import MODEL, NIMG, SHARED, digits, opened_splits, parent_run, run_of, stage_of

from umd_bench.config.errors import UserError
from umd_bench.config.seeds import derive_seed
from umd_bench.config.trial.probe_stage import ProbeStage
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.config.trial.train_stage import ImportStage
from umd_bench.data.batches.batches import to_unit
from umd_bench.data.datasets import dataset_info
from umd_bench.engine.diffusion.noise_process import NoiseProcess
from umd_bench.engine.networks.initialise import build_model
from umd_bench.engine.training.snapshot import restore_model
from umd_bench.evaluation.probes import probe_stage, representation
from umd_bench.evaluation.probes.probe_stage import run_probe
from umd_bench.evaluation.probes.ridge import draw_shots, fit_ridge
from umd_bench.evaluation.stage_result import StageResult
from umd_bench.store.run import RunDir


def probed(root: Path, **fields: object) -> StageResult:
    parent = parent_run(root)
    spec = stage_of(parent, "probe", **{"shots": [3], "draws": 2, **fields})
    with run_of(spec, root).begin() as attempt:
        return run_probe(spec, parent, digits(), attempt)


def by_hand(root: Path, t: int, seed: int, k: int, draws: int) -> list[float]:
    """The accuracy of each draw without the stage's own code: each image is represented alone."""
    pack, parent = digits(), parent_run(root)
    model = restore_model(parent, NIMG, source=dataset_info("digits"))
    schedule = NoiseProcess(SHARED["noise"])

    def representation(split: str, rows: range | np.ndarray) -> torch.Tensor:
        made = []
        for i in rows:
            x = to_unit(torch.from_numpy(np.array(pack.split(split).images[i : i + 1])))
            rng = np.random.default_rng(derive_seed(seed, "probe/noise", split, int(i)))
            eps = torch.from_numpy(rng.standard_normal((1, 1, 8, 8), dtype=np.float32))
            made.append(model.represent(schedule.q_sample(x, torch.tensor([t]), eps), torch.tensor([t])))
        return torch.cat(made)

    labels = pack.split("train").labels
    test, truth = representation("test", range(500)), torch.from_numpy(pack.split("test").labels)
    scores = []
    for draw in range(draws):
        shots = draw_shots(labels, (k,), classes=10, seed=derive_seed(seed, "probe/shots", draw))[k]
        probe = fit_ridge(representation("train", shots), torch.from_numpy(labels[shots]), classes=10)
        scores.append(probe.accuracy(test, truth))
    return scores


@pytest.mark.slow
@pytest.mark.parametrize("t", [0, 51])
def test_the_stage_probes_the_raw_weights_at_its_t_with_separate_noise_for_each_image(tmp_path: Path, t: int) -> None:
    result = probed(tmp_path / "a", t=t, seed=4)
    scores = by_hand(tmp_path / "b", t, seed=4, k=3, draws=2)
    # Rounding depends on the batch, and may change the predicted class of one of the 500 images.
    assert result.metrics["acc_3shot"] == pytest.approx(np.mean(scores), abs=0.002)
    assert result.metrics["acc_3shot_sd"] == pytest.approx(np.std(scores, ddof=1), abs=0.002)
    assert {name: result.facts[name] for name in ("probe_t", "ema", "n", "shots", "draws", "images_3shot")} == {
        "probe_t": t,
        "ema": False,
        "n": 500,
        "shots": [3],
        "draws": 2,
        "images_3shot": 30,
    }


def test_a_probe_on_the_validation_split_scores_its_images_and_opens_no_test_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {"shots": [3], "knn": [5], "linear": {"epochs": 2, "warmup_epochs": 0, "lr_per_256": [0.1, 1]}}
    tested = probed(tmp_path / "a", **fields)
    opened = opened_splits(monkeypatch)
    result = probed(tmp_path / "b", split="validation", **fields)
    assert opened == {"train", "validation"}
    assert (result.facts["reference"], result.facts["n"]) == ("validation", 250)
    assert set(result.metrics) == set(tested.metrics)
    for name in ("acc_3shot", "pixel_acc_3shot", "pixel_acc_knn5"):
        assert result.metrics[name] != tested.metrics[name]
        assert result.metrics[name] == pytest.approx(tested.metrics[name], abs=0.15)


def test_probes_of_pixels_are_cached_for_each_split(tmp_path: Path) -> None:
    pack, stage = digits(), ProbeStage(parent="pretrain", shots=(), knn=(5,))
    test, validation = (
        probe_stage.pixel_probe(pack, stage.scored_on(split), seed=0, cache=tmp_path) for split in ("test", "validation")
    )
    assert test != validation
    assert probe_stage.pixel_probe(pack, stage, seed=0, cache=tmp_path) == test


def test_the_stage_repeats_to_the_bit_and_depends_on_the_seed(tmp_path: Path) -> None:
    first, again, other = (probed(tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert first.metrics == again.metrics
    assert first.metrics["acc_3shot"] != other.metrics["acc_3shot"]


def test_further_numbers_of_shots_do_not_change_the_others(tmp_path: Path) -> None:
    alone, among = probed(tmp_path / "a", shots=[3]), probed(tmp_path / "b", shots=[1, 3, 20])
    assert alone.metrics.items() <= among.metrics.items()


def test_one_draw_has_no_deviation(tmp_path: Path) -> None:
    assert set(probed(tmp_path, draws=1).metrics) == {"acc_3shot", "pixel_acc_3shot", "untrained_acc_3shot"}


def test_batch_size_of_the_features_changes_no_draw_and_no_noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = probed(tmp_path / "a", t=51)
    monkeypatch.setattr(representation, "_BATCH", 37)
    other = probed(tmp_path / "b", t=51)
    assert other.metrics["pixel_acc_3shot"] == one.metrics["pixel_acc_3shot"]
    assert other.metrics["acc_3shot"] == pytest.approx(one.metrics["acc_3shot"], abs=0.002)


def test_pixel_probe_is_the_probe_of_the_images_with_the_same_draws() -> None:
    pack, stage = digits(), ProbeStage(parent="pretrain", shots=(10,), draws=2)
    x, y = ({split: getattr(pack.split(split), part)[:] for split in ("train", "test")} for part in ("images", "labels"))
    scores = []
    for draw in range(2):
        shots = draw_shots(y["train"], (10,), classes=10, seed=derive_seed(3, "probe/shots", draw))[10]
        flat = {s: torch.from_numpy(x[s].reshape(len(x[s]), -1) / np.float32(127.5) - 1) for s in x}
        probe = fit_ridge(flat["train"][shots], torch.from_numpy(y["train"][shots]), classes=10)
        scores.append(probe.accuracy(flat["test"], torch.from_numpy(y["test"])))
    metrics = probe_stage.pixel_probe(pack, stage, seed=3)
    assert metrics["pixel_acc_10shot"] == pytest.approx(np.mean(scores), abs=1e-9)
    assert 0.7 < metrics["pixel_acc_10shot"] < 0.95


PLAIN = {"model": MODEL.model_copy(update={"adaln": False})}  # so that the blocks are not the identity before training


def untrained_by_hand(spec: StageSpec) -> list[float]:
    """The accuracies of the initial weights of the pre-training, whose seed is 0, with the draws of ``spec``."""
    model = build_model(spec.model, size=8, channels=1, classes=10, seed=0)
    x, y = ({split: getattr(digits().split(split), part)[:] for split in ("train", "test")} for part in ("images", "labels"))
    features = {}
    for split, images in x.items():
        with torch.inference_mode():
            clean = to_unit(torch.from_numpy(np.array(images)))
            features[split] = model.represent(clean, torch.zeros(len(clean), dtype=torch.int64))
    scores = []
    for draw in range(2):
        shots = draw_shots(y["train"], (3,), classes=10, seed=derive_seed(spec.seed, "probe/shots", draw))[3]
        probe = fit_ridge(features["train"][shots], torch.from_numpy(y["train"][shots]), classes=10)
        scores.append(probe.accuracy(features["test"], torch.from_numpy(y["test"])))
    return scores


def test_the_untrained_row_probes_the_initial_weights_of_the_same_seed_with_the_same_draws(tmp_path: Path) -> None:
    parent = parent_run(tmp_path, **PLAIN)
    spec = stage_of(parent, "probe", shots=[3], draws=2, **PLAIN)
    with run_of(spec, tmp_path).begin() as attempt:
        metrics = run_probe(spec, parent, digits(), attempt).metrics
    scores = untrained_by_hand(spec)
    assert metrics["untrained_acc_3shot"] == pytest.approx(np.mean(scores), abs=0.002)
    assert metrics["untrained_acc_3shot_sd"] == pytest.approx(np.std(scores, ddof=1), abs=0.002)
    assert metrics["untrained_acc_3shot"] > 0.3  # plain blocks with random weights already give usable features
    assert metrics["untrained_acc_3shot"] != metrics["acc_3shot"]


def test_class_tokens_of_untrained_adaptive_blocks_are_at_chance(tmp_path: Path) -> None:
    assert probed(tmp_path).metrics["untrained_acc_3shot"] == pytest.approx(0.1, abs=0.02)


def test_a_child_of_a_fine_tuning_is_compared_with_the_weights_before_pretraining(tmp_path: Path) -> None:
    pretraining = parent_run(tmp_path, **PLAIN)
    finetuned = parent_run(tmp_path, parent=pretraining, **PLAIN)
    values = []
    for parent in (pretraining, finetuned):
        spec = stage_of(parent, "probe", shots=[3], draws=2, **PLAIN)
        with run_of(spec, tmp_path).begin() as attempt:
            values.append(run_probe(spec, parent, digits(), attempt).metrics)
    assert values[0]["untrained_acc_3shot"] == values[1]["untrained_acc_3shot"]
    assert values[0]["acc_3shot"] != values[1]["acc_3shot"]


def test_published_weights_are_not_compared_with_initial_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = parent_run(tmp_path)
    spec = stage_of(parent, "probe", shots=[3], draws=1)
    imported = ImportStage(layout="small-vision", file="weights.npz", sha256="0" * 64, nimg=NIMG, classes=10)
    trained = parent.config()
    monkeypatch.setattr(RunDir, "config", lambda self: trained.model_copy(update={"stage": imported}))
    with run_of(spec, tmp_path).begin() as attempt:
        assert set(run_probe(spec, parent, digits(), attempt).metrics) == {"acc_3shot", "pixel_acc_3shot"}


def test_classes_with_too_few_images_are_counted_and_named(tmp_path: Path) -> None:
    parent = parent_run(tmp_path)
    spec = stage_of(parent, "probe", shots=[5, 130], draws=1)
    run = run_of(spec, tmp_path)
    with run.begin() as attempt:
        facts = run_probe(spec, parent, digits(), attempt).facts
    real = np.bincount(digits().split("train").labels)
    assert facts["class_counts_130shot"] == np.minimum(real, 130).tolist()
    assert facts["images_130shot"] == np.minimum(real, 130).sum() < 1300
    assert facts["images_5shot"] == 50
    assert "class_counts_5shot" not in facts
    warnings = [event["message"] for event in run.events() if event["event"] == "warning"]
    short = ", ".join(f"{label} ({n})" for label, n in enumerate(real) if n < 130)
    assert warnings == [f"130 shots are more than some classes of digits have: {short}"]


def test_nan_weights_are_a_users_error(tmp_path: Path) -> None:
    parent = parent_run(tmp_path, spoil=True)
    spec = stage_of(parent, "probe")
    with run_of(spec, tmp_path).begin() as attempt, pytest.raises(UserError, match="train split is NaN or infinite"):
        run_probe(spec, parent, digits(), attempt)


@pytest.mark.parametrize("t", [None, 61])
def test_a_missing_t_or_one_past_the_schedule_is_refused(tmp_path: Path, t: int | None) -> None:
    with pytest.raises(UserError, match=rf"stages.probe.t = {t} is not accepted: expected 0\.\.60"):
        probed(tmp_path, t=t)


def test_other_stages_and_missing_weights_are_refused(tmp_path: Path) -> None:
    parent = parent_run(tmp_path)
    spec = stage_of(parent, "generate")
    with run_of(spec, tmp_path).begin() as attempt:
        with pytest.raises(UserError, match="expected a probe stage"):
            run_probe(spec, parent, digits(), attempt)
        shutil.rmtree(parent.path / "snapshots")
        with pytest.raises(UserError, match="keeps no weights"):
            run_probe(stage_of(parent, "probe"), parent, digits(), attempt)


LINEAR = {"lr_per_256": [1.0, 30.0, 300.0], "batch": 256, "epochs": 40}


def test_every_probe_of_a_stage_is_measured_on_features_and_on_pixels(tmp_path: Path) -> None:
    result = probed(tmp_path, shots=[], knn=[1, 20], linear=LINEAR)
    names = {"acc_knn1", "acc_knn20", "acc_linear"}
    assert set(result.metrics) == {f"{of}{name}" for of in ("", "pixel_", "untrained_") for name in names}
    assert all(0.3 < value < 1 for name, value in result.metrics.items() if not name.startswith("untrained_"))
    assert result.metrics["pixel_acc_knn20"] > 0.9
    assert result.facts["linear_lr"] in LINEAR["lr_per_256"]
    assert len(result.facts["linear_held_out"]) == 3  # type: ignore[arg-type]
    assert "draws" not in result.facts


@pytest.mark.slow
def test_probes_of_one_stage_do_not_change_each_other(tmp_path: Path) -> None:
    both = probed(tmp_path / "a", shots=[3], knn=[20], linear=LINEAR).metrics
    assert probed(tmp_path / "b", shots=[], knn=[20]).metrics.items() <= both.items()
    assert probed(tmp_path / "c", shots=[], linear=LINEAR).metrics.items() <= both.items()
    alone = probed(tmp_path / "d", shots=[3]).metrics
    assert alone["pixel_acc_3shot"] == both["pixel_acc_3shot"]
    assert both["acc_3shot"] == pytest.approx(alone["acc_3shot"], abs=0.002)  # features in other batches


def test_each_draw_chooses_its_penalty_from_a_list(tmp_path: Path) -> None:
    result = probed(tmp_path / "a", shots=[3], ridge=[0.1, 10.0, 1e5])
    chosen = result.facts["ridge_3shot"]
    assert len(chosen) == 2  # type: ignore[arg-type]
    assert set(chosen) <= {0.1, 10.0, 1e5}  # type: ignore[arg-type]
    one = probed(tmp_path / "b", shots=[3], ridge=[10.0])
    assert one.metrics == pytest.approx(probed(tmp_path / "c", shots=[3], ridge=10.0).metrics, abs=1e-12)


def test_a_learning_rate_at_an_end_of_its_range_is_a_warning(tmp_path: Path) -> None:
    parent = parent_run(tmp_path)
    spec = stage_of(parent, "probe", shots=[], linear={**LINEAR, "lr_per_256": [1e-6, 1e-5]})
    run = run_of(spec, tmp_path)
    with run.begin() as attempt:
        run_probe(spec, parent, digits(), attempt)
    warnings = [event["message"] for event in run.events() if event["event"] == "warning"]
    assert warnings == ["the best learning rate of the linear probe is an end of 1e-06, 1e-05: give a wider range"]


def test_pixels_are_probed_once_for_all_parents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = probed(tmp_path, shots=[], knn=[20])
    monkeypatch.setattr(probe_stage, "Pixels", None)
    with pytest.raises(TypeError):
        probed(tmp_path, shots=[], knn=[10])
    monkeypatch.undo()
    stage = ProbeStage(parent="pretrain", shots=(), knn=(20,))
    again = probe_stage.pixel_probe(digits(), stage, seed=0, cache=tmp_path / "features")
    assert again["pixel_acc_knn20"] == first.metrics["pixel_acc_knn20"]
    assert len(list((tmp_path / "features").glob("*.cache"))) == 2  # of the pixels and of the initial weights
