"""The reader of Hugging Face data sets on disk: written by ``save_to_disk``, or a folder of Parquet or Arrow files.

    root/dataset_dict.json, root/<split>/...           saved by DatasetDict.save_to_disk
    root/dataset_info.json, root/state.json            saved by Dataset.save_to_disk: no splits
    root/[data/]<split>-00000-of-00004.parquet         as on the hub; with .arrow, as in the library's cache

Columns are found by their types: the picture has the type Image, the label the type ClassLabel. The network is never used.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from umd_bench.config.errors import FieldError, UserError, one_of
from umd_bench.data.readers.picture_list import ListedDataset, PictureFile, PictureList, inputs_of, with_all_splits
from umd_bench.data.readers.pictures import Encoded, FileRange

_SPLITS = ("train", "test", "validation", "val", "valid")


def is_huggingface(root: Path) -> bool:
    """Whether ``root`` has one of the layouts above."""
    return any((root / name).is_file() for name in ("dataset_dict.json", "state.json")) or bool(_table_files(root))


def read_huggingface(
    root: Path, test_share: float | None, *, image_column: str | None = None, label_column: str | None = None
) -> ListedDataset:
    """The splits of a data set on disk, with the class names that its ClassLabel column states.

    A label column of another type has to be given by name; its distinct values, sorted, are then the classes. Raises
    :class:`UserError` if the library is not installed, if the columns cannot be found by type, and if training rows have no
    label; :class:`FieldError` for a column that does not exist.
    """
    tables = _open(root)
    if not tables:
        raise UserError(f"{root} holds no split: expected one called train")
    features = next(iter(tables.values())).features
    image, label = _columns(features, image_column, label_column)
    names = getattr(features[label], "names", None)
    labelled: dict[str, PictureList] = {}
    values = {split: table.values(label) for split, table in tables.items()}
    if names is None:
        distinct = sorted(set().union(*values.values()))
        names, index = [str(value) for value in distinct], {value: i for i, value in enumerate(distinct)}
        values = {split: [index[value] for value in column] for split, column in values.items()}
    for split, table in tables.items():
        labels = np.array([-1 if value is None else value for value in values[split]], np.int64)
        if (labels >= 0).all():
            labelled[split] = PictureList(labels, _RowNames(split, len(labels)), table.pictures(image))
        elif split == "train":
            raise UserError(f"{root}: {int((labels < 0).sum()):,} rows of its train split have no label in {label!r}")
    splits, options = with_all_splits(labelled, test_share)
    if left := sorted(set(tables) - set(labelled)):
        options["unlabelled"] = f"left out: {', '.join(left)}"
    inputs = inputs_of(
        PictureFile(path.relative_to(root).as_posix(), 0, FileRange(str(path)), path.stat().st_size)
        for path in root.rglob("*")
        if path.is_file()
    )
    return ListedDataset(splits, tuple(names), f"{inputs} {image} {label}", options)


class _Table(Protocol):
    """One split in either file format."""

    features: Any

    def values(self, column: str) -> list[Any]:
        """All values of a small column."""

    def pictures(self, column: str) -> Callable[[int], Encoded]:
        """A function from a row's index to its picture; it is called with ascending indices."""


class _ArrowTable:
    """Memory-mapped Arrow files."""

    def __init__(self, dataset: Any) -> None:
        self._dataset, self.features = dataset, dataset.features

    def values(self, column: str) -> list[Any]:
        return list(self._dataset.with_format(None)[column])

    def pictures(self, column: str) -> Callable[[int], Encoded]:
        import datasets

        encoded = self._dataset.with_format(None).select_columns([column]).cast_column(column, datasets.Image(decode=False))
        return lambda i: _picture(encoded[i][column])


class _ParquetTable:
    """Parquet files; pictures are read by groups of rows, one group at a time."""

    def __init__(self, paths: Sequence[Path]) -> None:
        import datasets
        import pyarrow.parquet

        self._files = [pyarrow.parquet.ParquetFile(path) for path in paths]
        self.features = datasets.Features.from_arrow_schema(self._files[0].schema_arrow)
        self._groups = [(file, group) for file in self._files for group in range(file.num_row_groups)]
        self._ends = np.cumsum([file.metadata.row_group(group).num_rows for file, group in self._groups])
        self._group = -1
        self._rows: list[Any] = []

    def values(self, column: str) -> list[Any]:
        return [value for file in self._files for value in file.read([column])[column].to_pylist()]

    def pictures(self, column: str) -> Callable[[int], Encoded]:
        return lambda i: _picture(self._cell(i, column))

    def _cell(self, i: int, column: str) -> Any:
        group = int(np.searchsorted(self._ends, i, side="right"))
        if group != self._group:
            file, within = self._groups[group]
            self._group, self._rows = group, file.read_row_group(within, [column])[column].to_pylist()
        return self._rows[i - int(self._ends[group]) + len(self._rows)]


def _picture(cell: Any) -> Encoded:
    """A cell of type Image: {"bytes": ..., "path": ...}; one of the two may be missing."""
    if cell is None or (cell["bytes"] is None and not cell["path"]):
        return b""
    return bytes(cell["bytes"]) if cell["bytes"] is not None else FileRange(cell["path"])


def _open(root: Path) -> dict[str, _Table]:
    """The tables by split; they are not read into memory."""
    os.environ["HF_DATASETS_OFFLINE"] = os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        import datasets
    except ImportError:
        raise UserError("a Hugging Face data set needs the library datasets: pip install 'umd-bench[huggingface]'") from None
    try:
        if not (files := _table_files(root)):
            loaded = datasets.load_from_disk(str(root))
            splits = dict(loaded) if isinstance(loaded, datasets.DatasetDict) else {"train": loaded}
            return {str(split): _ArrowTable(table) for split, table in splits.items()}
        if files[0].suffix == ".parquet":
            return {split: _ParquetTable(paths) for split, paths in _by_split(files).items()}
        return {
            split: _ArrowTable(datasets.concatenate_datasets([datasets.Dataset.from_file(str(path)) for path in paths]))
            for split, paths in _by_split(files).items()
        }
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:  # from datasets and pyarrow
        raise UserError(f"{root} cannot be read as a Hugging Face data set ({' '.join(str(error).split())})") from None


def _table_files(root: Path) -> list[Path]:
    """The Parquet or Arrow files of a folder, sorted; empty if the folder was written by ``save_to_disk``."""
    if any((root / name).is_file() for name in ("dataset_dict.json", "state.json")):
        return []
    for folder in (root, root / "data"):
        for ending in ("parquet", "arrow"):
            if files := sorted(folder.glob(f"*.{ending}")):
                return files
    return []


def _by_split(files: Sequence[Path]) -> dict[str, list[Path]]:
    """Files by the split in their names: train-00000-of-00004.parquet, food-test.arrow.

    If no name has a split, all files are of the train split.
    """
    words = {path: [word for word in re.split(r"[-_.]", path.stem.lower()) if word] for path in files}
    stated = any(set(_SPLITS) & set(parts) for parts in words.values())
    split_of = {path: next((word for word in parts if word in _SPLITS), parts[0]) for path, parts in words.items()}
    splits: dict[str, list[Path]] = {}
    for path in files:
        splits.setdefault(split_of[path] if stated else "train", []).append(path)
    return splits


def _columns(features: Any, image: str | None, label: str | None) -> tuple[str, str]:
    import datasets

    for field, name in (("image_column", image), ("label_column", label)):
        if name is not None and name not in features:
            raise FieldError(field, name, one_of(features))
    images = [image] if image else [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
    labels = [label] if label else [name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    for wanted, columns, kind, option in (
        ("the picture", images, "Image", "--image-column"),
        ("the label", labels, "ClassLabel", "--label-column"),
    ):
        if len(columns) != 1:
            several = f"{', '.join(columns)} are" if columns else "none is"
            raise UserError(
                f"the column of {wanted} cannot be found ({several} of type {kind}): give it with {option}, {one_of(features)}"
            )
    return images[0], labels[0]


class _RowNames(Sequence[str]):
    """The names of a split's rows, such as "train row 7"."""

    def __init__(self, split: str, n: int) -> None:
        self._split, self._n = split, n

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(self._n))]
        if not 0 <= i < self._n:
            raise IndexError(i)
        return f"{self._split} row {i}"
