"""Published reference statistics: both formats are read exactly, and a matrix that is no covariance is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from umd_bench.config.errors import UserError
from umd_bench.evaluation.extractors.contract import Extractor, Features
from umd_bench.evaluation.extractors.registry import load_extractor
from umd_bench.evaluation.metrics.frechet import Gaussian, frechet_distance
from umd_bench.evaluation.samples.scoring import reference
from umd_bench.evaluation.samples.scoring.reference import reference_from_file

D, S, SIDE = 12, 5, 4


@pytest.fixture
def seen() -> list[int]:
    return []


@pytest.fixture
def extractor(seen: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Extractor:
    """A fake Inception whose features are an image's first twelve numbers; its spatial features are the last five."""
    monkeypatch.setenv("UMD_BENCH_DATA", str(tmp_path / "root"))

    def network(images: Tensor, spatial: bool) -> Features:
        seen.append(len(images))
        flat = images.flatten(1).float()
        return Features(flat[:, :D], None, flat[:, -S:] if spatial else None)

    given = {"name": "inception-v3-compat", "shape": (3, None, None), "dim": D, "spatial_dim": S, "network": network}
    return dataclasses.replace(load_extractor("digits_cnn"), **given)


def arrays(n: int = 40) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    features, places = rng.normal(size=(300, D)) + 3, rng.normal(size=(300, S))
    return {
        "mu": features.mean(0),
        "sigma": np.cov(features, rowvar=False),
        "mu_s": places.mean(0),
        "sigma_s": np.cov(places, rowvar=False),
        "arr_0": rng.integers(0, 256, (n, SIDE, SIDE, 3), dtype=np.uint8),
        "arr_1": rng.integers(0, 1000, n),
    }


def saved(path: Path, held: dict[str, Any]) -> Path:
    np.savez(path, **held)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_adms_file_gives_both_gaussians_and_the_features_of_its_images(
    tmp_path: Path, extractor: Extractor, seen: list[int], save: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "_BATCH", 16)
    held = arrays()
    path = tmp_path / "VIRTUAL_imagenet64_labeled.npz"
    save(path, **held)
    first, again = (reference_from_file(path, extractor) for _ in range(2))
    assert sum(seen) == 40
    images = torch.from_numpy(held["arr_0"]).permute(0, 3, 1, 2)
    for loaded in (first, again):
        assert loaded.features is not None
        assert loaded.spatial is not None
        np.testing.assert_allclose(loaded.gaussian.factor @ loaded.gaussian.factor.T, held["sigma"], rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(loaded.spatial.factor @ loaded.spatial.factor.T, held["sigma_s"], rtol=1e-10, atol=1e-12)
        assert np.array_equal(loaded.gaussian.mean, held["mu"])
        assert np.array_equal(loaded.spatial.mean, held["mu_s"])
        assert np.array_equal(loaded.features, images.flatten(1).float()[:, :D])
        assert (loaded.label, loaded.n) == ("VIRTUAL_imagenet64_labeled.npz", 1_281_167)
        assert loaded.hash == hashlib.sha256(path.read_bytes()).hexdigest()
    assert isinstance(again.features, np.memmap)


def test_a_fixed_subset_of_many_images_gives_the_rows(
    tmp_path: Path, extractor: Extractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "SUBSET", 30)
    monkeypatch.setattr(reference, "_BATCH", 16)
    held = arrays(50)
    rows = reference_from_file(saved(tmp_path / "a.npz", held), extractor).features
    assert rows is not None
    every = torch.from_numpy(held["arr_0"]).permute(0, 3, 1, 2).flatten(1)[:, :D].float().numpy()
    places = [int(np.flatnonzero((every == row).all(1))[0]) for row in rows]
    assert len(places) == 30
    assert places == sorted(set(places))


def test_pytorch_fids_file_gives_a_gaussian_alone(tmp_path: Path, extractor: Extractor) -> None:
    held = arrays()
    loaded = reference_from_file(saved(tmp_path / "fid.npz", {"mu": held["mu"], "sigma": held["sigma"]}), extractor)
    assert (loaded.spatial, loaded.features, loaded.n, loaded.label) == (None, None, 0, "fid.npz")
    # The textbook formula with the file's moments gives the same distance to a set.
    x = np.random.default_rng(1).normal(size=(200, D))
    ours = frechet_distance(Gaussian.of(torch.from_numpy(x)), loaded.gaussian)
    sigma = np.cov(x, rowvar=False)
    cross = np.sqrt(np.maximum(np.linalg.eigvals(sigma @ held["sigma"]).real, 0)).sum()
    expected = ((x.mean(0) - held["mu"]) ** 2).sum() + np.trace(sigma) + np.trace(held["sigma"]) - 2 * cross
    assert ours == pytest.approx(expected, rel=1e-9)


def test_a_covariance_of_few_images_loses_no_rank_and_gains_none(tmp_path: Path, extractor: Extractor) -> None:
    features = np.random.default_rng(2).normal(size=(6, D))
    held = {"mu": features.mean(0), "sigma": np.cov(features, rowvar=False)}
    loaded = reference_from_file(saved(tmp_path / "a.npz", held), extractor)
    assert loaded.gaussian.factor.shape == (D, 5)
    assert frechet_distance(loaded.gaussian, Gaussian.of(torch.from_numpy(features))) < 1e-10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mu": np.zeros(D + 1)}, rf"mu of \S+ is float64 \[{D + 1}\]: expected floats \[{D}\]"),
        ({"mu": np.zeros(D, np.int64)}, rf"mu of \S+ is int64 \[{D}\]: expected floats"),
        ({"sigma": np.eye(D)[:-1]}, rf"sigma of \S+ is float64 \[11, 12\]: expected floats \[{D}, {D}\]"),
        ({"sigma": np.full((D, D), np.nan)}, r"sigma of \S+ has entries that are NaN or infinite"),
        ({"mu": np.full(D, np.inf)}, r"mu of \S+ has entries that are NaN or infinite"),
        ({"sigma": np.eye(D) + np.eye(D, k=1)}, r"sigma of \S+ is not symmetric"),
        ({"sigma": np.diag([-1.0] + [1.0] * (D - 1))}, r"sigma of \S+ has eigenvalues from -1 to 1: expected none below 0"),
        ({"sigma": np.zeros((D, D))}, r"sigma of \S+ has eigenvalues from 0 to 0: .* not only zeros"),
        ({"sigma_s": np.eye(S + 1)}, r"sigma_s of \S+ is float64 \[6, 6\]"),
        ({"mu_s": None}, r"holds arr_0, arr_1, mu, sigma, sigma_s: expected ADM's \(mu, sigma, mu_s, sigma_s, arr_0\)"),
        ({"mu": None}, r"holds arr_0, arr_1, mu_s, sigma, sigma_s: expected"),
        ({"mu": np.array([{}])}, r"mu and sigma of \S+ cannot be read \(Object arrays cannot be loaded"),
        ({"arr_0": np.zeros((3, 4, 4), np.uint8)}, r"arr_0 of \S+ is uint8 \[3, 4, 4\]: expected uint8 images \[N, H, W, 3\]"),
        ({"arr_0": np.zeros((3, 4, 4, 3))}, r"arr_0 of \S+ is float64"),
        ({"arr_0": np.zeros((3, 4, 4, 3), np.uint8, order="F")}, r"arr_0 of \S+ is in Fortran order"),
    ],
)
def test_a_file_with_invalid_arrays_gives_a_one_line_error(
    tmp_path: Path, extractor: Extractor, change: dict[str, Any], message: str
) -> None:
    held = {name: array for name, array in (arrays() | change).items() if array is not None}
    with pytest.raises(UserError, match=message):
        reference_from_file(saved(tmp_path / "a.npz", held), extractor)
    key = next(iter(change))
    cached = {path.suffix for path in (tmp_path / "root").glob("statistics/*")}
    assert cached <= ({".cache"} if key.endswith(("_s", "_0")) else set())  # the valid arrays of the file can be cached


@pytest.mark.parametrize("damage", ["cut", "pickle", "missing", "flipped"])
def test_a_damaged_or_foreign_file_gives_a_one_line_error(tmp_path: Path, extractor: Extractor, damage: str) -> None:
    path = saved(tmp_path / "a.npz", arrays(5000))
    whole = path.read_bytes()
    if damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "pickle":
        path.write_bytes(pickle.dumps({"mu": 1}))
    elif damage == "flipped":
        middle = len(whole) // 2  # within the images
        path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    else:
        path.unlink()
    with pytest.raises(UserError, match=f"{path} cannot be read"):
        reference_from_file(path, extractor)
    assert not list((tmp_path / "root").glob("statistics/*.npy"))


def test_an_array_of_images_that_ends_early_is_refused_with_the_number_of_whole_images(
    tmp_path: Path, extractor: Extractor
) -> None:
    held = arrays(5)
    path = saved(tmp_path / "a.npz", {name: array for name, array in held.items() if name != "arr_0"})
    content = io.BytesIO()
    np.save(content, held["arr_0"])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("arr_0.npy", content.getvalue()[: -held["arr_0"][0].nbytes - 1])  # the last image and one byte
    with pytest.raises(UserError, match="ends after 3 of its 5 images"):
        reference_from_file(path, extractor)


def test_other_extractors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="cannot be a reference for digits_cnn: published statistics are of inception-v3-compat"
    ):
        reference_from_file(saved(tmp_path / "a.npz", arrays()), load_extractor("digits_cnn"))
