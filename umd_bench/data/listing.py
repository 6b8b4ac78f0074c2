"""Lists of data sets and packs: which data sets exist, which of them are packed, and which packs a name selects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from umd_bench.config.errors import UserError, one_of
from umd_bench.data.datasets import DATASETS, OWN_VERSION
from umd_bench.data.packs.manifest import FORMAT, MANIFEST_FILE, read_manifest
from umd_bench.data.packs.pack import Pack
from umd_bench.data.readers.picture_list import TEST_SHARE, VALIDATION_SHARE


@dataclass(frozen=True)
class Listing:
    """One data set: the number of ``images`` by split, its classes, and its packs at all sizes (empty if it is not packed).

    ``images`` are counted in a usable pack if there is one, else taken from the table of data sets. ``division`` says how
    packing divides the table's splits further; it is empty if ``images`` comes from a pack, and if packing does not divide
    them. ``size`` is the side in pixels if it is fixed; ``own`` says that it is a user's own data set. Packs of a version other
    than ``version`` are not used.
    """

    name: str
    images: dict[str, int]
    classes: int
    size: int | None
    licence: str
    version: int
    division: str = ""
    packs: tuple[Pack, ...] = ()
    own: bool = False


def list_data(root: Path) -> Iterator[Listing]:
    """Every data set of the table, then users' own data sets that are packed below ``root``, sorted by name.

    Raises :class:`UserError` for a pack whose manifest cannot be read.
    """
    packs: dict[str, list[Pack]] = {}
    for packed in packs_below(root):
        packs.setdefault(packed.manifest.name, []).append(packed)
    for name, info in DATASETS.items():
        packed_here = packs.pop(name, [])
        usable = [packed for packed in packed_here if packed.manifest.version == info.version]
        images = usable[0].manifest.counts if usable else dict(info.counts)
        division = _division(images)
        yield Listing(name, images, info.classes, info.size, info.licence, info.version, division, tuple(packed_here))
    for name, own in sorted(packs.items()):
        newest = max(own, key=lambda packed: packed.manifest.version).manifest
        counts, classes = newest.counts, len(newest.class_names)
        yield Listing(name, counts, classes, None, newest.licence, OWN_VERSION, packs=tuple(own), own=True)


def _division(counts: Mapping[str, int]) -> str:
    """How packing divides the publisher's splits; empty if it does not."""
    if not counts or "validation" in counts:
        return ""
    if "train" in counts:
        return f"{VALIDATION_SHARE:.0%} of train becomes validation"
    return f"{TEST_SHARE:.0%} becomes test, {VALIDATION_SHARE:.0%} of the rest validation"


def packs_below(root: Path) -> list[Pack]:
    """Every pack below ``root``, sorted by folder. Raises :class:`UserError` for a manifest that cannot be read."""
    folders = sorted(path.parent for path in root.glob(f"*.{FORMAT}/{MANIFEST_FILE}") if not path.parent.name.startswith("."))
    return [Pack(folder, read_manifest(folder)) for folder in folders]


def find_packs(which: str | None, root: Path, size: int | None) -> list[Pack]:
    """The pack in the folder ``which``, or all packs below ``root`` of the data set ``which``; None selects all packs.

    ``size``, if given, limits the packs below ``root`` to images with that side in pixels, and latents of such images. Raises
    :class:`UserError` if no pack is left.
    """
    if which is not None and (Path(which) / MANIFEST_FILE).is_file():
        return [Pack(Path(which), read_manifest(Path(which)))]
    packs = packs_below(root)
    selected = [x for x in packs if which in (None, x.manifest.name) and size in (None, x.manifest.image_size)]
    if not selected:
        missing = f"no pack of {which!r}" if which is not None else "no pack"
        sized = f" at {size} px" if size is not None else ""
        here = one_of(sorted({x.manifest.name for x in packs})) if packs else "`umd-bench data pack` makes one"
        raise UserError(f"{root} holds {missing}{sized}: {here}")
    return selected


def bytes_of(pack: Pack) -> int:
    """Bytes that the files of a pack take on the disk; a missing file counts as 0."""
    paths = [pack.path / file for file in pack.manifest.sha256]
    return sum(path.stat().st_size for path in paths if path.exists())
