"""The code that all layouts share: their result, :class:`Weights`, and checks of the parameters' names and shapes."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from torch import Tensor

from umd_bench.config.errors import UserError
from umd_bench.config.trial.model import ModelConfig

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Weights:
    """A checkpoint's architecture, the images it takes, and ``state``, its parameters under our model's names.

    ``size`` is the side of the square images in pixels. ``notes`` are sentences about parameters that were left out or changed.
    """

    model: ModelConfig
    size: int
    channels: int
    classes: int
    state: dict[str, Tensor]
    notes: tuple[str, ...] = ()


def shape_of(tensors: Mapping[str, Tensor], name: str, axes: str, layout: str) -> Shape:
    """The shape of a parameter, which must have one axis for each word of ``axes``.

    Raises :class:`UserError` if the parameter is missing or has another number of axes.
    """
    if name not in tensors:
        raise UserError(f"parameter {name!r} is missing: the file does not have the layout {layout}")
    shape = tuple(tensors[name].shape)
    if len(shape) != len(axes.split()):
        raise UserError(
            f"parameter {name!r} has the shape {list(shape)}: expected [{', '.join(axes.split())}] in the layout {layout}"
        )
    return shape


def require_shapes(tensors: Mapping[str, Tensor], expected: Mapping[str, Shape], layout: str) -> None:
    """Raise :class:`UserError` naming the first parameter that is unknown, missing or of another shape."""
    for name in tensors:
        if name not in expected:
            raise UserError(f"parameter {name!r} is unknown to the layout {layout}")
    for name, shape in expected.items():
        found = shape_of(tensors, name, " ".join(map(str, shape)), layout)
        if found != shape:
            raise UserError(
                f"parameter {name!r} has the shape {list(found)}: expected {list(shape)} from the other parameters' shapes"
            )


def layers(names: Collection[str], prefix: str, layout: str) -> int:
    """The number of blocks ``<prefix>0.``, ``<prefix>1.``, ... Raises :class:`UserError` if there is none."""
    numbers = {name.removeprefix(prefix).partition(".")[0] for name in names if name.startswith(prefix)}
    if not numbers:
        raise UserError(f"parameter '{prefix}0.*' is missing: the file does not have the layout {layout}")
    return len(numbers)


def grid_side(patches: int, name: str) -> int:
    """The side of the grid of ``patches`` in position table ``name``. Raises :class:`UserError` unless the grid is square."""
    side = math.isqrt(max(patches, 0))
    if side < 1 or side**2 != patches:
        raise UserError(
            f"parameter {name!r} has {patches} positions of patches: expected a square number, since images are square"
        )
    return side


def heads_of(width: int, known: Mapping[int, int], requested: int | None) -> int:
    """The number of attention heads: ``requested`` if given, else ``known[width]``. A joint qkv matrix does not show it."""
    heads = requested if requested is not None else known.get(width)
    if heads is None:
        widths = ", ".join(f"{n} for width {w}" for w, n in known.items())
        raise UserError(f"the number of attention heads does not follow from the width {width} (known: {widths}): give --heads")
    if heads < 1 or width % heads:
        raise UserError(f"heads = {heads} is not accepted: expected a divisor of the width {width}")
    return heads
