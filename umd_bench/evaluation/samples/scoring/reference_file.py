"""Published reference statistics: files of ADM (``VIRTUAL_imagenet64_labeled.npz``) and of pytorch-fid, read as plain arrays.

Both hold ``mu`` [D] and ``sigma`` [D, D] of Inception-v3 features. ADM's files (Dhariwal and Nichol, arXiv 2105.05233) add
``mu_s`` [S] and ``sigma_s`` [S, S] of the spatial features (sFID), and uint8 images [N, H, W, 3] in ``arr_0`` for precision and
recall. Their statistics are of the whole training set, not of the images in ``arr_0``. Nothing is unpickled.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from umd_bench.config.errors import UserError
from umd_bench.evaluation.metrics.frechet import Gaussian
from umd_bench.evaluation.samples.sample_files import read_npy_header

# No file states the number of images behind its statistics. ADM's statistics are of the whole training set of ImageNet.
COUNTS = {"VIRTUAL_imagenet64_labeled.npz": 1_281_167, "VIRTUAL_imagenet256_labeled.npz": 1_281_167}
_FORMATS = "expected ADM's (mu, sigma, mu_s, sigma_s, arr_0) or pytorch-fid's (mu, sigma)"
_UNREADABLE = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError)
_SYMMETRY = 1e-6  # accepted asymmetry, as a share of the largest entry: float32 rounding
_NEGATIVE = 1e-5  # accepted negative eigenvalue, as a share of the largest one: float32 rounding too


@dataclass(frozen=True)
class PublishedFile:
    """The contents of a file: ``images`` is (N, H, W) of its uint8 RGB images, None if it has none."""

    path: Path
    has_spatial: bool
    images: tuple[int, int, int] | None


def open_published(path: Path) -> PublishedFile:
    """Read the names of a file's arrays, and the shape of its images.

    Raises :class:`UserError` if it cannot be read or has neither format.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = {Path(name).stem for name in archive.namelist()}
            images = None
            if "arr_0" in names:
                with archive.open("arr_0.npy") as file:
                    shape, _, dtype = read_npy_header(file)
                if len(shape) != 4 or shape[3] != 3 or shape[0] < 1 or dtype != np.uint8:
                    raise UserError(f"arr_0 of {path} is {dtype} {list(shape)}: expected uint8 images [N, H, W, 3]")
                images = shape[0], shape[1], shape[2]
    except _UNREADABLE as error:
        raise UserError(f"{path} cannot be read as reference statistics ({error}): {_FORMATS}") from None
    if not {"mu", "sigma"} <= names or ("mu_s" in names) != ("sigma_s" in names):
        contents = ", ".join(sorted(names)) or "nothing"
        raise UserError(f"{path} holds {contents}: {_FORMATS}")
    return PublishedFile(path, "mu_s" in names, images)


def published_gaussian(file: PublishedFile, dim: int, *, spatial: bool = False) -> Gaussian:
    """The Gaussian of the file's ``mu`` and ``sigma``; if ``spatial``, that of ``mu_s`` and ``sigma_s``.

    ``count`` is 0 if the number of images is unknown. Raises :class:`UserError` unless the mean is finite floats [``dim``], and
    the covariance finite floats [``dim``, ``dim``], symmetric, not all zero and without a negative eigenvalue.
    """
    end = "_s" if spatial else ""
    try:
        with np.load(file.path, allow_pickle=False) as arrays:
            mean, covariance = arrays[f"mu{end}"], arrays[f"sigma{end}"]
    except _UNREADABLE as error:
        raise UserError(f"mu{end} and sigma{end} of {file.path} cannot be read ({error}): {_FORMATS}") from None
    for name, array, shape in ((f"mu{end}", mean, (dim,)), (f"sigma{end}", covariance, (dim, dim))):
        if array.shape != shape or not np.issubdtype(array.dtype, np.floating):
            raise UserError(f"{name} of {file.path} is {array.dtype} {list(array.shape)}: expected floats {list(shape)}")
        if not np.isfinite(array).all():
            raise UserError(f"{name} of {file.path} has entries that are NaN or infinite: download it again")
    covariance = covariance.astype(np.float64)
    if np.abs(covariance - covariance.T).max() > _SYMMETRY * np.abs(covariance).max():
        raise UserError(f"sigma{end} of {file.path} is not symmetric, so it is no covariance: download it again")
    values, vectors = torch.linalg.eigh(torch.from_numpy((covariance + covariance.T) / 2))
    if values[-1] <= 0 or values[0] < -_NEGATIVE * values[-1]:
        raise UserError(
            f"sigma{end} of {file.path} has eigenvalues from {values[0]:.2g} to {values[-1]:.2g}: expected none below 0, and "
            "not only zeros"
        )
    above = values > len(values) * torch.finfo(torch.float64).eps * values[-1]
    factor = vectors[:, above] * values[above].sqrt()
    return Gaussian(COUNTS.get(file.path.name, 0), torch.from_numpy(mean.astype(np.float64)), factor)


def published_images(file: PublishedFile, batch: int) -> Iterator[Tensor]:
    """The file's images in order, uint8 [<= ``batch``, 3, H, W] at a time. Raises :class:`UserError` if it is cut short."""
    assert file.images is not None
    n, height, width = file.images
    try:
        with zipfile.ZipFile(file.path) as archive, archive.open("arr_0.npy") as member:
            _, fortran, _ = read_npy_header(member)
            if fortran:
                raise UserError(f"arr_0 of {file.path} is in Fortran order: save it in C order")
            for start in range(0, n, batch):
                shape = min(batch, n - start), height, width, 3
                data = member.read(int(np.prod(shape)))
                if len(data) < np.prod(shape):
                    whole = start + len(data) // (height * width * 3)
                    raise UserError(f"arr_0 of {file.path} ends after {whole} of its {n} images: download it again")
                yield torch.from_numpy(np.frombuffer(data, np.uint8).reshape(shape).transpose(0, 3, 1, 2).copy())
    except _UNREADABLE as error:
        raise UserError(f"arr_0 of {file.path} cannot be read ({error}): download it again") from None
