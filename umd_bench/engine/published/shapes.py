"""What every layout proves of a file before it is believed: each parameter is known, is there, and has the shape it must have.

Also what a layout hands over: :class:`Weights`.
"""

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
    """What a checkpoint says: the architecture and data it fits, and ``state``, its parameters under that model's own names.

    ``size`` is the side of the square images in pixels. ``notes`` are sentences on what was not taken over, or taken otherwise
    than it stands in the file.
    """

    model: ModelConfig
    size: int
    channels: int
    classes: int
    state: dict[str, Tensor]
    notes: tuple[str, ...] = ()


def shape_of(tensors: Mapping[str, Tensor], name: str, axes: str, layout: str) -> Shape:
    """The shape of a parameter that must be there, with one axis for each word of ``axes``; otherwise :class:`UserError`."""
    if name not in tensors:
        raise UserError(f"parameter {name!r} is missing: the file has not the layout {layout}")
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
                f"parameter {name!r} has the shape {list(found)}: expected {list(shape)}, as the other parameters say"
            )


def layers(names: Collection[str], prefix: str, layout: str) -> int:
    """How many blocks ``<prefix><number>.`` there are, whose numbers run from 0; :class:`UserError` where there is none."""
    numbers = {name.removeprefix(prefix).partition(".")[0] for name in names if name.startswith(prefix)}
    if not numbers:
        raise UserError(f"parameter '{prefix}0.*' is missing: the file has not the layout {layout}")
    return len(numbers)


def grid_side(patches: int, name: str) -> int:
    """The side of the square grid of ``patches`` tokens that the position table ``name`` has; otherwise :class:`UserError`."""
    side = math.isqrt(max(patches, 0))
    if side < 1 or side**2 != patches:
        raise UserError(
            f"parameter {name!r} has {patches} positions of patches: expected a square number, since images are square"
        )
    return side


def heads_of(width: int, known: Mapping[int, int], asked: int | None) -> int:
    """Attention heads of a width, which a fused kernel does not tell; ``asked`` wins over the published models' table."""
    heads = asked if asked is not None else known.get(width)
    if heads is None:
        widths = ", ".join(f"{n} of width {w}" for w, n in known.items())
        raise UserError(f"the number of attention heads cannot be told from the width {width} (known: {widths}): give --heads")
    if heads < 1 or width % heads:
        raise UserError(f"heads = {heads} is not accepted: expected a divisor of the width {width}")
    return heads
