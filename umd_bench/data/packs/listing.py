"""Which data sets there are, which of them are packed, and whether a pack still is what was written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from umd_bench.config.errors import UserError, one_of
from umd_bench.data.datasets import SOURCES
from umd_bench.data.packs.manifest import FORMAT, MANIFEST_FILE, read_manifest
from umd_bench.data.packs.pack import Pack


@dataclass(frozen=True)
class Listing:
    """A data set as far as it is known: ``images`` by split, and its packs at all sizes (none where ``packs`` is empty)."""

    name: str
    images: dict[str, int]
    classes: int
    size: int | None
    licence: str
    packs: tuple[Pack, ...] = ()
    own: bool = False


def list_data(root: Path) -> Iterator[Listing]:
    """Every data set of the table, then users' own that are packed below ``root``, by name.

    Raises :class:`UserError` for a pack whose manifest cannot be read.
    """
    packs: dict[str, list[Pack]] = {}
    for packed in packs_below(root):
        packs.setdefault(packed.manifest.name, []).append(packed)
    for name, facts in SOURCES.items():
        here = packs.pop(name, [])
        images = dict(facts.counts) or (here[0].manifest.counts if here else {})
        yield Listing(name, images, facts.classes, facts.size, facts.licence, tuple(here))
    for name, own in sorted(packs.items()):
        first = own[0].manifest
        yield Listing(name, first.counts, len(first.class_names), None, first.licence, tuple(own), own=True)


def packs_below(root: Path) -> list[Pack]:
    """Every pack below ``root``, by folder. Raises :class:`UserError` for a manifest that cannot be read."""
    folders = sorted(path.parent for path in root.glob(f"*.{FORMAT}/{MANIFEST_FILE}") if not path.parent.name.startswith("."))
    return [Pack(folder, read_manifest(folder)) for folder in folders]


def find_packs(which: str | None, root: Path, size: int | None) -> list[Pack]:
    """The packs meant by ``which``: all below ``root`` where None, the pack in that folder, or those of that name.

    ``size`` in pixels narrows them down; latents have their images'. Raises :class:`UserError` where there is none.
    """
    if which is not None and (Path(which) / MANIFEST_FILE).is_file():
        return [Pack(Path(which), read_manifest(Path(which)))]
    packs = packs_below(root)
    found = [x for x in packs if which in (None, x.manifest.name) and size in (None, x.manifest.image_size)]
    if not found:
        what = f"no pack of {which!r}" if which is not None else "no pack"
        sized = f" at {size} px" if size is not None else ""
        here = one_of(sorted({x.manifest.name for x in packs})) if packs else "`umd-bench data pack` makes one"
        raise UserError(f"{root} holds {what}{sized}: {here}")
    return found


def bytes_of(pack: Pack) -> int:
    """What the files of a pack take on the disk; one that is missing takes nothing."""
    paths = [pack.path / file for file in pack.manifest.sha256]
    return sum(path.stat().st_size for path in paths if path.exists())
