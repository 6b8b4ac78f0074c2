"""Features are computed once and cached by content, computed again when damaged, and never cached when NaN."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation.small_parents import NIMG, digits, parent_run, stage_of

from umd_bench.config.errors import UserError
from umd_bench.config.trial.probe_stage import Place
from umd_bench.config.trial.train_stage import CorruptionConfig
from umd_bench.data.batches.batches import to_unit
from umd_bench.data.datasets import data_facts
from umd_bench.engine.networks.auto_encoder import AutoEncoder
from umd_bench.evaluation.probes.representation import FOLDER, Pixels, Representation
from umd_bench.evaluation.probes.weights import InitialWeights, SnapshotWeights
from umd_bench.store.run import RunDir

CPU = torch.device("cpu")


def representation(parent: RunDir, *, seed: int = 0, **fields: object) -> Representation:
    spec = stage_of(parent, "probe", seed=seed, **fields)
    return Representation(spec, SnapshotWeights(parent, NIMG, data_facts(spec.data)), parent.root / FOLDER, CPU)


def cached(root: Path) -> list[Path]:
    return sorted((root / FOLDER).glob("*"))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that a model represents."""
    seen: list[int] = []
    original = AutoEncoder.represent_each

    def counting(self: AutoEncoder, x_t: torch.Tensor, *rest: object) -> list[torch.Tensor]:
        seen.append(len(x_t))
        return original(self, x_t, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(AutoEncoder, "represent_each", counting)
    return seen


def test_features_are_the_models_own_computed_once_and_shared(tmp_path: Path, calls: list[int]) -> None:
    parent = parent_run(tmp_path)
    first = np.array(representation(parent).of(digits(), "test"))
    assert sum(calls) == len(first) == len(digits().split("test"))
    other = representation(parent, shots=[1], ridge=3.0, knn=[5], draws=9, seed=5)  # another probe at t = 0
    again = other.of(digits(), "test")
    assert sum(calls) == len(first)
    assert isinstance(again, np.memmap)
    assert not again.flags.writeable
    np.testing.assert_array_equal(again, first)
    x = to_unit(torch.from_numpy(np.array(digits().split("test").images[:500])))
    np.testing.assert_array_equal(first[:500], other.model.represent(x, torch.zeros(500, dtype=torch.int64)))


def test_everything_that_changes_features_changes_the_file_name(tmp_path: Path) -> None:
    parent, pack = parent_run(tmp_path), digits()
    representation(parent).of(pack, "test")
    for fields in ({"t": 3}, {"t": 4}, {"t": 3, "seed": 1}, {"pool": "patches"}, {"pool": "first_class"}):
        representation(parent, **fields).of(pack, "test")  # type: ignore[arg-type]
    representation(parent).of(pack, "train", np.arange(5))
    representation(parent).of(pack, "train", np.arange(1, 6))
    representation(parent).of(pack, "train")
    assert len(cached(tmp_path)) == 9
    snapshot = parent.snapshot(NIMG)
    content = bytearray(snapshot.read_bytes())
    content[-2] ^= 1  # the weights change, and the key of their stage does not
    snapshot.unlink()
    snapshot.write_bytes(content)
    representation(parent).of(pack, "test")
    assert len(cached(tmp_path)) == 10


def test_features_of_initial_weights_are_shared_by_architecture_and_seed(tmp_path: Path, calls: list[int]) -> None:
    trained, pack = parent_run(tmp_path).config(), digits()
    clean_only = trained.stage.model_copy(update={"corruption": CorruptionConfig(r_t0=1), "nimg": 16})
    unlabelled = trained.stage.model_copy(update={"labels": False})
    deeper = trained.model.model_copy(update={"depth": 2})
    same = [trained, trained.model_copy(update={"stage": clean_only})]
    others = [{"seed": 1}, {"stage": unlabelled}, {"model": deeper}]
    for spec in (*same, *(trained.model_copy(update=changed) for changed in others)):
        probe = stage_of(parent_run(tmp_path), "probe", model=spec.model)
        weights = InitialWeights(spec, data_facts(spec.data))
        Representation(probe, weights, tmp_path / FOLDER, CPU).of(pack, "test", np.arange(4))
    assert len(cached(tmp_path)) == len(calls) == 4


def test_several_places_take_one_forward_pass_and_give_the_same_features(tmp_path: Path, calls: list[int]) -> None:
    parent, pack = parent_run(tmp_path), digits()
    places = [Place(None, None, 3), Place(1, "patches", 3), Place(1, "first_class", 3)]
    alone = [np.array(representation(parent_run(tmp_path / "a"), t=3, pool=place.pool).of(pack, "test")) for place in places]
    calls.clear()
    representation(parent, t=3).of(pack, "test", place=places[1])  # now one of the three is cached
    together = representation(parent, t=3).of_each(pack, "test", places=places)
    assert sum(calls) == 2 * len(pack.split("test"))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_damaged_features_are_computed_again(tmp_path: Path, calls: list[int]) -> None:
    parent = parent_run(tmp_path)
    first = np.array(representation(parent).of(digits(), "test"))
    (path,) = cached(tmp_path)
    content = bytearray(path.read_bytes())
    content[1000] ^= 255
    path.write_bytes(content)
    calls.clear()
    np.testing.assert_array_equal(representation(parent).of(digits(), "test"), first)
    assert sum(calls) == len(first)
    assert cached(tmp_path) == [path]


def test_nan_features_are_an_error_and_leave_no_file(tmp_path: Path) -> None:
    parent = parent_run(tmp_path, spoil=True)
    with pytest.raises(UserError, match="test split is NaN or infinite"):
        representation(parent).of(digits(), "test")
    assert cached(tmp_path) == []


def test_missing_weights_are_an_error_even_if_their_features_are_cached(tmp_path: Path) -> None:
    parent = parent_run(tmp_path)
    representation(parent).of(digits(), "test")
    shutil.rmtree(parent.path / "snapshots")
    with pytest.raises(UserError, match="keeps no weights"):
        representation(parent).of(digits(), "test")


def test_the_folder_is_bounded_and_recently_used_files_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parent, pack = parent_run(tmp_path), digits()
    representation(parent, t=1).of(pack, "test")
    (oldest,) = cached(tmp_path)
    representation(parent, t=2).of(pack, "test")
    (younger,) = set(cached(tmp_path)) - {oldest}
    representation(parent, t=1).of(pack, "test")
    weights = oldest.with_suffix(".supervised")  # trained with labels: kept here too, and used less recently
    weights.write_bytes(b"0")
    os.utime(weights, (0, 0))
    monkeypatch.setenv("UMD_BENCH_FEATURES_GB", str(2.5 * oldest.stat().st_size / 1e9))
    mapped = representation(parent, t=3).of(pack, "test")
    assert oldest in cached(tmp_path)
    assert not weights.exists()
    assert younger not in cached(tmp_path)
    assert len(cached(tmp_path)) == 2
    monkeypatch.setenv("UMD_BENCH_FEATURES_GB", "0")
    assert np.isfinite(representation(parent, t=4).of(pack, "test")).all()
    assert cached(tmp_path) == []
    assert np.isfinite(mapped).all()  # a deleted file stays readable while it is mapped
    monkeypatch.setenv("UMD_BENCH_FEATURES_GB", "much")
    with pytest.raises(UserError, match="UMD_BENCH_FEATURES_GB = 'much' is not accepted"):
        representation(parent)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"block": 2}, r"stages\.probe\.block = 2 is not accepted: expected 1\.\.1, the encoder's blocks"),
        ({"t": 61}, r"stages\.probe\.t = 61 is not accepted: expected 0\.\.60"),
    ],
)
def test_a_block_or_t_that_the_model_does_not_have_is_refused(tmp_path: Path, fields: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        representation(parent_run(tmp_path), **fields)  # type: ignore[arg-type]


def test_pixels_are_the_images_in_minus_one_to_one() -> None:
    split = digits().split("test")
    pixels, rows = Pixels(split), np.array([3, 1])
    assert pixels.shape == (len(split), 64)
    np.testing.assert_array_equal(pixels[rows], np.array(split.images[rows]).reshape(2, 64) / np.float32(127.5) - 1)
