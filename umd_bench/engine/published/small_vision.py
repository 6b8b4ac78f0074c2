"""Read files of the official JAX implementation (small-vision, commit 3d4555b); ``small_vision_conversion.py`` converts them.

The shapes determine the whole model, including the number of heads, which is an axis of the attention kernels. All names may
have a common prefix such as ``params/``.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from umd_bench.config.errors import UserError
from umd_bench.config.trial.model import ModelConfig
from umd_bench.engine.published.shapes import Shape, Weights, grid_side, require_shapes, shape_of
from umd_bench.engine.published.small_vision_conversion import from_official

NAME = "small-vision"
_BLOCKS = "/ScanCheckpointEncoder1DBlock_0/"
_QUERY = _BLOCKS + "MultiHeadDotProductAttention_0/query/kernel"
_LANDMARK = "image_mask_embedding"  # every model has this parameter once


def read_small_vision(tensors: Mapping[str, Tensor], *, heads: int | None = None) -> Weights:
    """Convert official parameters. Raises :class:`UserError` naming the first parameter that is wrong."""
    tensors, prefix = _below_prefix(tensors)
    p, _, channels, width = shape_of(tensors, "embedding/kernel", "patch patch channels width", NAME)
    depth, _, n_heads, _ = shape_of(tensors, "Encoder" + _QUERY, "layers width heads head_dim", NAME)
    decoder_depth, *_ = shape_of(tensors, "Decoder" + _QUERY, "layers width heads head_dim", NAME)
    _, class_tokens, _ = shape_of(tensors, "cls", "1 tokens width", NAME)
    _, patches, _ = shape_of(tensors, "pos_embedding", "1 patches width", NAME)
    table = "label_emb/embedding/embedding"
    classes = shape_of(tensors, table, "classes+1 width", NAME)[0] - 1 if table in tensors else 0
    if heads is not None and heads != n_heads:
        raise UserError(f"heads = {heads} is not accepted: the file's attention kernels have {n_heads}")
    try:
        model = ModelConfig(
            patch=p,
            width=width,
            depth=depth,
            decoder_depth=decoder_depth,
            heads=n_heads,
            class_tokens=class_tokens,
            adaln="final_modulation/kernel" in tensors,
        )
    except ValueError as error:
        raise UserError(f"parameter 'Encoder{_QUERY}' has a shape that no model here has: {error}") from None
    size = p * grid_side(patches, "pos_embedding")
    require_shapes(tensors, official_shapes(model, size=size, channels=channels, classes=classes), NAME)
    state = from_official({name: value.numpy() for name, value in tensors.items()})
    notes = (f"names stand below {prefix!r} in the file",) if prefix else ()
    return Weights(model, size, channels, classes, state, notes)


def official_shapes(model: ModelConfig, *, size: int, channels: int, classes: int) -> dict[str, Shape]:
    """The official name and shape of every parameter of a model; blocks are stacked on axis 0."""
    D, p, C, H = model.width, model.patch, channels, model.heads
    patches = (size // p) ** 2
    shapes: dict[str, Shape] = {
        "cls": (1, model.class_tokens, D),
        "pos_embedding": (1, patches, D),
        "dec_pos_embedding": (1, patches, D),
        _LANDMARK: (1, 1, D),
        "embedding/kernel": (p, p, C, D),
        "embedding/bias": (D,),
        "final_conv/kernel": (p, p, D, 2 * C),
        "final_conv/bias": (2 * C,),
        **_dense("time_trunk/Dense_0", D, 2 * D),
        **_dense("time_trunk/Dense_1", 2 * D, D),
    }
    if classes:
        shapes["label_emb/embedding/embedding"] = (classes + 1, D)
        shapes |= _dense("label_trunk/Dense_0", D, 2 * D) | _dense("label_trunk/Dense_1", 2 * D, D)
    if model.adaln:
        shapes |= _dense("final_modulation", D, 2 * D)
    for coder, depth in (("Encoder", model.depth), ("Decoder", model.decoder_depth)):
        block = _dense("MlpBlock_0/Dense_0", D, 4 * D) | _dense("MlpBlock_0/Dense_1", 4 * D, D)
        if model.adaln:
            block |= _dense("Dense_0", D, 6 * D)
        for norm in ("LayerNorm_0", "LayerNorm_1"):
            block |= {f"{norm}/scale": (D,), f"{norm}/bias": (D,)}
        attention = "MultiHeadDotProductAttention_0"
        for part in ("query", "key", "value"):
            block |= {f"{attention}/{part}/kernel": (D, H, D // H), f"{attention}/{part}/bias": (H, D // H)}
        block |= {f"{attention}/out/kernel": (H, D // H, D), f"{attention}/out/bias": (D,)}
        shapes |= {f"{coder}{_BLOCKS}{name}": (depth, *shape) for name, shape in block.items()}
        shapes |= {f"{coder}/encoder_norm/scale": (D,), f"{coder}/encoder_norm/bias": (D,)}
    return shapes


def _dense(name: str, n_in: int, n_out: int) -> dict[str, Shape]:
    return {f"{name}/kernel": (n_in, n_out), f"{name}/bias": (n_out,)}


def _below_prefix(tensors: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
    """The parameters without their common prefix, and that prefix: it ends in '/' or is empty."""
    landmarks = [name for name in tensors if name == _LANDMARK or name.endswith("/" + _LANDMARK)]
    if not landmarks:
        raise UserError(f"parameter {_LANDMARK!r} is missing: the file does not have the layout {NAME}")
    prefix = landmarks[0].removesuffix(_LANDMARK)
    for name in tensors:
        if not name.startswith(prefix):
            raise UserError(f"parameter {name!r} is not below {prefix!r}, as {landmarks[0]!r} is: expected one set of weights")
    return {name.removeprefix(prefix): value for name, value in tensors.items()}, prefix
