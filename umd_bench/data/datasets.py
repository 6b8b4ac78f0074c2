"""The table of data sets: what is known about each and the function that reads it.

A row with a `read` is small and found or made where the program runs: it is packed on first use (pack.py). A row without one
is pictures that a user has: `umd-bench data pack NAME --root DIR` packs them (packing.py has its reader), and stages on it can
be planned anywhere. A name in no row is a user's own data set, known from its pack alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from umd_bench.config.errors import FieldError, one_of
from umd_bench.config.trial.data import OWN_SIZES, DataConfig
from umd_bench.data.builtin import digits, emoji64, fashion_mnist
from umd_bench.data.packs.manifest import data_root, folder_name, own_packs, read_manifest

OWN_VERSION = 1  # of users' own data sets: they have no versions

# {"train": (images uint8 [N, C, H, W], labels int64 [N]), "test": ...}
Splits = dict[str, tuple[NDArray[np.uint8], NDArray[np.int64]]]


def _no_notes(folder: Path | None, n_kept: int) -> dict[str, str]:
    return {}


@dataclass(frozen=True)
class DataSource:
    """The facts of one data set.

    ``version`` goes up whenever the same input would be read as other images, labels or splits. ``size`` is the side of the
    square images in pixels, None where a configuration chooses it. ``read(folder)`` takes a folder that holds the raw files, or
    None to look in the usual places, and raises :class:`UserError` where they are missing; it is None where the pictures are
    packed from the user's files. ``notes(folder, n_kept)`` says, for the record only, which raw files these are and what was
    left out of them; ``n_kept`` counts the images of both splits. ``class_names`` is empty where only a pack's manifest states
    them: then ``n_classes`` says how many there are. ``counts`` are images by the publisher's own splits.
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
        """How many classes there are."""
        return len(self.class_names) or self.n_classes


@dataclass(frozen=True)
class Vae:
    """An image auto-encoder whose latents are trained on: their side is the image's divided by ``factor``."""

    factor: int
    channels: int


# The KL auto-encoder f8 of Rombach et al., arXiv 2112.10752: 256 px -> 32x32x4, latents times 0.18215. Which weights it has is
# the pack's to say. DiT takes the first, stabilityai/sd-vae-ft-ema.
VAES = {name: Vae(factor=8, channels=4) for name in ("sd-vae-ft-ema", "sd-vae-ft-mse", "sd_kl_f8")}
# Any other VAE says in its name what a plan without data has to know, as in my-vae-f8c16.
_GEOMETRY = re.compile(r"-f([1-9]\d*)c([1-9]\d*)$")


def vae_named(name: str, path: str = "data.vae") -> Vae:
    """What the name of a VAE tells; :class:`FieldError` at ``path`` for one that is unknown and tells nothing."""
    if name in VAES:
        return VAES[name]
    told = _GEOMETRY.search(name)
    if told is None:
        raise FieldError(path, name, f"{one_of(VAES)}, or a name that ends in -f<factor>c<channels>, as in my-vae-f8c16")
    return Vae(factor=int(told[1]), channels=int(told[2]))


@dataclass(frozen=True)
class DataFacts:
    """What a model sees of a data set: ``size`` and ``channels`` of images, or of latents where there is a ``vae``."""

    name: str
    size: int
    channels: int
    classes: int
    vae: str | None = None


def _facts_only(name: str, classes: int, counts: Mapping[str, int], licence: str) -> DataSource:
    """A set of RGB photographs that a user packs from its original files."""
    return DataSource(name, 1, None, 3, (), licence, None, n_classes=classes, counts=counts)


SOURCES: dict[str, DataSource] = {
    "digits": DataSource(
        name="digits",
        version=1,
        size=OWN_SIZES["digits"],
        channels=1,
        class_names=digits.CLASS_NAMES,
        licence="CC BY 4.0 (UCI, Optical Recognition of Handwritten Digits)",
        read=digits.read,
    ),
    "fashion_mnist": DataSource(
        name="fashion_mnist",
        version=1,
        size=OWN_SIZES["fashion_mnist"],
        channels=1,
        class_names=fashion_mnist.CLASS_NAMES,
        licence="MIT",
        read=fashion_mnist.read,
    ),
    "emoji64": DataSource(
        name="emoji64",
        version=1,
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
        # Russakovsky et al., arXiv 1409.0575. Splits as the official code takes them: train[:99%], train[99%:], and the
        # validation images to evaluate on.
        _facts_only(
            "imagenet",
            1000,
            {"train": 1_268_355, "held_out": 12_812, "test": 50_000},
            "ImageNet terms of access (non-commercial research and education)",
        ),
        # What the official evaluation probes besides ImageNet (UMD paper, Figure 2), with the splits of their publishers.
        # Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
        _facts_only("cifar10", 10, {"train": 50_000, "test": 10_000}, "none stated"),
        _facts_only("cifar100", 100, {"train": 50_000, "test": 10_000}, "none stated"),
        # Coates et al., AISTATS 2011; besides, 100,000 images without labels.
        _facts_only("stl10", 10, {"train": 5_000, "test": 8_000}, "none stated; taken from ImageNet"),
        # Cimpoi et al., arXiv 1311.3618, the first of its ten partitions.
        _facts_only("dtd", 47, {"train": 1_880, "validation": 1_880, "test": 1_880}, "for research purposes"),
        # Parkhi et al., CVPR 2012.
        _facts_only("oxford_pets", 37, {"train": 3_680, "test": 3_669}, "CC BY-SA 4.0"),
        # Nilsback and Zisserman, ICVGIP 2008.
        _facts_only("flowers102", 102, {"train": 1_020, "validation": 1_020, "test": 6_149}, "none stated"),
        # Bossard et al., ECCV 2014.
        _facts_only("food101", 101, {"train": 75_750, "test": 25_250}, "none stated; pictures from Foodspotting, fair use"),
        # Khosla et al., FGVC 2011.
        _facts_only("stanford_dogs", 120, {"train": 12_000, "test": 8_580}, "none stated; taken from ImageNet"),
        # Recht et al., arXiv 1902.10811, matched frequency: ten images a class, one split, parted when packed.
        _facts_only("imagenet_v2", 1000, {"one split": 10_000}, "MIT (its repository)"),
        # Yang and Newsam, ACM GIS 2010: a hundred images a class, one split, parted when packed.
        _facts_only("uc_merced", 21, {"one split": 2_100}, "public domain (USGS imagery)"),
    )
}


def source(name: str, *, root: Path | None = None, size: int | None = None, path: str = "data") -> DataSource:
    """The data set of that name: a row of the table, or a user's own that is packed at ``size`` below the data root ``root``.

    ``root`` None is where packs lie by default. Raises :class:`FieldError` for ``path.name`` where there is no such data set,
    listing the valid names, and for ``path.size`` where the user's own is packed at other sizes only.
    """
    if name in SOURCES:
        return SOURCES[name]
    root = root if root is not None else data_root()
    own = own_packs(root, SOURCES)
    if name not in own:
        how = "`umd-bench data pack NAME --root DIR --size N` packs a data set of your own under a new name"
        raise FieldError(f"{path}.name", name, f"{one_of([*SOURCES, *own])}; {how}")
    if size not in own[name]:
        sizes = one_of(map(str, own[name]))
        raise FieldError(f"{path}.size", size, f"{sizes}, at which {name} is packed below {root}")
    found = read_manifest(root / folder_name(name, OWN_VERSION, size))
    return DataSource(name, OWN_VERSION, None, found.channels, found.class_names, found.licence, None)


def data_facts(data: DataConfig, *, path: str = "data", root: Path | None = None) -> DataFacts:
    """What is known of a configured data set; ``path`` is the field that holds the configuration.

    Needs none of its files, unless the data set is a user's own: that is known from its pack below ``root``, which is where
    packs lie by default where None. Raises :class:`FieldError` for an unknown name or VAE, for a size that is neither given
    nor the set's own, and for a VAE that cannot take the images.
    """
    found = source(data.name, root=root, size=data.size, path=path)
    size = data.size or found.size
    if size is None:
        raise FieldError(f"{path}.size", None, f"images of {data.name} have no size of their own: expected a number of pixels")
    if data.vae is None:
        return DataFacts(data.name, size, found.channels, found.classes)
    vae = vae_named(data.vae, f"{path}.vae")
    if found.channels != 3:
        raise FieldError(
            f"{path}.vae", data.vae, f"it takes RGB images, and those of {data.name} have {found.channels} channel"
        )
    if size % vae.factor:
        raise FieldError(f"{path}.size", size, f"expected a multiple of {vae.factor}, as {data.vae} makes latents of it")
    return DataFacts(data.name, size // vae.factor, vae.channels, found.classes, data.vae)
