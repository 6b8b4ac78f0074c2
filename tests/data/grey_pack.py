"""A user's own pack of grey images: the digits under another name."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from umd_bench.data.builtin import digits
from umd_bench.data.datasets import OWN_VERSION
from umd_bench.data.open_data import open_pack
from umd_bench.data.packs.manifest import Manifest, folder_name
from umd_bench.data.packs.pack import Pack
from umd_bench.data.packs.row_source import rows_from_arrays
from umd_bench.data.packs.writer import write_pack


def pack_of_digits(root: Path, name: str = "mine", shift: int = 0) -> Pack:
    """The digits as the data set ``name`` below ``root``. ``shift`` is added to the pixels: another shift, other images."""
    splits = digits.read(None)
    rows = {split: rows_from_arrays((images + np.uint8(shift)), labels) for split, (images, labels) in splits.items()}
    draft = Manifest(
        name=name,
        version=OWN_VERSION,
        size=8,
        channels=1,
        counts={},
        shards={},
        class_names=digits.CLASS_NAMES,
        licence="not stated",
        sha256={},
        digest="",
    )
    write_pack(root / folder_name(name, OWN_VERSION, 8), draft, rows, inputs=f"digits {shift}")
    return open_pack(name, root, size=8)
