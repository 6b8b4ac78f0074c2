"""The table of data sets: the facts of each, and for a built-in one the function that reads its images.

A built-in data set (a row with ``read``) is small. Its images are found or made on this machine, or downloaded; it is packed on
first use (open_data.py). For any other row the user provides the pictures, which ``umd-bench data pack NAME --root DIR`` packs
(packing/images.py has the readers). Stages on such a data set can be planned without the pictures. A name that is in no row is
a user's own data set, known only by its pack.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from umd_bench.config.errors import FieldError, UserError, one_of
from umd_bench.config.trial.data import OWN_SIZES, DataConfig
from umd_bench.data.builtin import contrast16, digits, emoji64, fashion_mnist
from umd_bench.data.packs.manifest import data_root, earlier_packs, folder_name, own_packs, read_manifest

OWN_VERSION = 2  # the version of all users' own data sets

# {"train": (images uint8 [N, C, H, W], labels int64 [N]), "validation": ..., "test": ...}
Splits = dict[str, tuple[NDArray[np.uint8], NDArray[np.int64]]]


def _no_notes(folder: Path | None, n_kept: int) -> dict[str, str]:
    return {}


@dataclass(frozen=True)
class DatasetInfo:
    """The facts of one data set.

    ``version`` is raised when the same input would be read as other images, labels or splits. ``size`` is the side of the
    square images in pixels, None if the configuration chooses it. ``read(folder)`` returns the images; it takes the folder of
    the raw files, or None to look in the usual places, and raises :class:`UserError` if they are missing. ``read`` is None if
    the user packs the data set. ``notes(folder, n_kept)`` describes the raw files and the images left out, for the manifest
    only; ``n_kept`` counts the images of all splits. ``class_names`` is empty if only a pack's manifest has the names;
    ``n_classes`` is then their number. ``counts`` are the numbers of images by split: for a built-in data set and ImageNet in
    the splits that the reader makes, for others in the publisher's splits. It is empty if they depend on the raw files.
    """

    name: str
    version: int
    size: int | None
    channels: int
    class_names: tuple[str, ...]
    licence: str
    read: Callable[[Path | None], Splits] | None
    notes: Callable[[Path | None, int], dict[str, str]] = _no_notes
    n_classes: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names) or self.n_classes


@dataclass(frozen=True)
class VaeGeometry:
    """The geometry of a VAE's latents: their side is the image's divided by ``factor``, with ``channels`` channels."""

    factor: int
    channels: int


# The KL auto-encoder f8 of Rombach et al., arXiv 2112.10752: 256 px -> 32x32x4, latents times 0.18215. A pack of latents
# records the hash of its VAE's configuration and weights. DiT uses the first, stabilityai/sd-vae-ft-ema.
VAES = {name: VaeGeometry(factor=8, channels=4) for name in ("sd-vae-ft-ema", "sd-vae-ft-mse", "sd_kl_f8")}
# The name of any other VAE states its geometry, which is needed to plan without data: my-vae-f8c16.
_GEOMETRY = re.compile(r"-f([1-9]\d*)c([1-9]\d*)$")


def vae_geometry(name: str, path: str = "data.vae") -> VaeGeometry:
    """The geometry of the VAE ``name``. Raises :class:`FieldError` at ``path`` for an unknown name that states no geometry."""
    if name in VAES:
        return VAES[name]
    geometry = _GEOMETRY.search(name)
    if geometry is None:
        raise FieldError(path, name, f"{one_of(VAES)}, or a name that ends in -f<factor>c<channels>, as in my-vae-f8c16")
    return VaeGeometry(factor=int(geometry[1]), channels=int(geometry[2]))


@dataclass(frozen=True)
class DataFacts:
    """The shape of a model's input (``size`` and ``channels`` of images, or of latents if ``vae`` is given) and its classes."""

    name: str
    size: int
    channels: int
    classes: int
    vae: str | None = None

    @property
    def image_size(self) -> int:
        """The side in pixels of the images, or of the images that the latents were made from."""
        return self.size if self.vae is None else self.size * vae_geometry(self.vae).factor

    @property
    def image_channels(self) -> int:
        """The channels of the images, or of the images that the latents were made from: a VAE encodes RGB images."""
        return self.channels if self.vae is None else 3


def _facts_only(name: str, classes: int, counts: Mapping[str, int], licence: str, *, version: int = 2) -> DatasetInfo:
    """A data set of RGB photographs that the user packs from its original files."""
    return DatasetInfo(name, version, None, 3, (), licence, None, n_classes=classes, counts=counts)


DATASETS: dict[str, DatasetInfo] = {
    "digits": DatasetInfo(
        name="digits",
        version=2,
        size=OWN_SIZES["digits"],
        channels=1,
        class_names=digits.CLASS_NAMES,
        licence="CC BY 4.0 (UCI, Optical Recognition of Handwritten Digits)",
        read=digits.read,
        counts={"train": 1_047, "validation": 250, "test": 500},
    ),
    "contrast16": DatasetInfo(
        name="contrast16",
        version=1,
        size=OWN_SIZES["contrast16"],
        channels=1,
        class_names=contrast16.CLASS_NAMES,
        licence="CC BY 4.0 (made from UCI, Optical Recognition of Handwritten Digits)",
        read=contrast16.read,
        counts=contrast16.COUNTS,
    ),
    "fashion_mnist": DatasetInfo(
        name="fashion_mnist",
        version=2,
        size=OWN_SIZES["fashion_mnist"],
        channels=1,
        class_names=fashion_mnist.CLASS_NAMES,
        licence="MIT",
        read=fashion_mnist.read,
        counts={"train": 55_000, "validation": 5_000, "test": 10_000},
    ),
    "emoji64": DatasetInfo(
        name="emoji64",
        version=2,
        size=OWN_SIZES["emoji64"],
        channels=3,
        class_names=emoji64.CLASS_NAMES,
        licence="OFL-1.1 (Noto Color Emoji)",
        read=emoji64.read,
        notes=emoji64.describe,
    ),
} | {
    facts.name: facts
    for facts in (
        # Russakovsky et al., arXiv 1409.0575. Splits as in the official code: train[:99%], train[99%:], and the validation
        # images to evaluate on.
        _facts_only(
            "imagenet",
            1000,
            {"train": 1_268_355, "validation": 12_812, "test": 50_000},
            "ImageNet terms of access (non-commercial research and education)",
        ),
        # The data sets that the official evaluation probes besides ImageNet (UMD paper, Figure 2), with their
        # publishers' splits.
        # Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
        _facts_only("cifar10", 10, {"train": 50_000, "test": 10_000}, "none stated"),
        _facts_only("cifar100", 100, {"train": 50_000, "test": 10_000}, "none stated"),
        # Coates et al., AISTATS 2011; its 100,000 images without labels are not used.
        _facts_only("stl10", 10, {"train": 5_000, "test": 8_000}, "none stated; taken from ImageNet"),
        # Cimpoi et al., arXiv 1311.3618, the first of its ten partitions.
        _facts_only("dtd", 47, {"train": 1_880, "validation": 1_880, "test": 1_880}, "for research purposes", version=1),
        # Parkhi et al., CVPR 2012.
        _facts_only("oxford_pets", 37, {"train": 3_680, "test": 3_669}, "CC BY-SA 4.0"),
        # Nilsback and Zisserman, ICVGIP 2008.
        _facts_only("flowers102", 102, {"train": 1_020, "validation": 1_020, "test": 6_149}, "none stated", version=1),
        # Bossard et al., ECCV 2014.
        _facts_only("food101", 101, {"train": 75_750, "test": 25_250}, "none stated; pictures from Foodspotting, fair use"),
        # Khosla et al., FGVC 2011.
        _facts_only("stanford_dogs", 120, {"train": 12_000, "test": 8_580}, "none stated; taken from ImageNet"),
        # Recht et al., arXiv 1902.10811, matched frequency: ten images per class, one split, divided when packed.
        _facts_only("imagenet_v2", 1000, {"one split": 10_000}, "MIT (its repository)"),
        # Yang and Newsam, ACM GIS 2010: a hundred images per class, one split, divided when packed.
        _facts_only("uc_merced", 21, {"one split": 2_100}, "public domain (USGS imagery)"),
    )
}


def dataset_info(name: str, *, root: Path | None = None, size: int | None = None, path: str = "data") -> DatasetInfo:
    """The facts of the data set ``name``: a row of the table, or a user's own data set, packed at ``size`` below ``root``.

    ``root`` None is the default data root. Raises :class:`FieldError` for ``path.name``, with the valid names, if there is no
    such data set, and for ``path.size`` if a user's own data set is packed at other sizes only; :class:`UserError` if only an
    earlier version has packed it.
    """
    if name in DATASETS:
        return DATASETS[name]
    root = root if root is not None else data_root()
    own = own_packs(root, DATASETS)
    if name not in own:
        how = "`umd-bench data pack NAME --root DIR --size N` packs a data set of your own under a new name"
        raise FieldError(f"{path}.name", name, f"{one_of([*DATASETS, *own])}; {how}")
    if size not in own[name]:
        sizes = one_of(map(str, own[name]))
        raise FieldError(f"{path}.size", size, f"{sizes}, at which {name} is packed below {root}")
    folder = root / folder_name(name, OWN_VERSION, size)
    if not folder.exists() and (earlier := earlier_packs(folder)):
        raise UserError(
            f"{name} cannot be used: {earlier[0]} was packed by an earlier version, which made no validation split; "
            f"`umd-bench data pack {name} --root DIR --size {size}` packs it again, then the folder can be removed"
        )
    manifest = read_manifest(folder)
    return DatasetInfo(name, OWN_VERSION, None, manifest.channels, manifest.class_names, manifest.licence, None)


def data_facts(data: DataConfig, *, path: str = "data", root: Path | None = None) -> DataFacts:
    """The input shape and classes of a configured data set; ``path`` is the field that holds the configuration.

    Reads no file, except the manifest of a user's own data set below ``root`` (None: the default data root). Raises
    :class:`FieldError` for an unknown name or VAE, for a missing size, and for a VAE that cannot encode the images.
    """
    info = dataset_info(data.name, root=root, size=data.size, path=path)
    size = data.size or info.size
    if size is None:
        raise FieldError(f"{path}.size", None, f"images of {data.name} have no size of their own: expected a number of pixels")
    if data.vae is None:
        return DataFacts(data.name, size, info.channels, info.classes)
    vae = vae_geometry(data.vae, f"{path}.vae")
    if info.channels != 3:
        raise FieldError(
            f"{path}.vae",
            data.vae,
            f"it takes RGB images, and images of {data.name} have {info.channels} channel; expected null",
        )
    if size % vae.factor:
        raise FieldError(f"{path}.size", size, f"expected a multiple of {vae.factor}, by which {data.vae} divides it")
    return DataFacts(data.name, size // vae.factor, vae.channels, info.classes, data.vae)
