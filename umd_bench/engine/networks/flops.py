"""Floating-point operations of training, from shapes alone: the matrix products of a step.

The encoder's blocks are counted for the visible patches only. Imports no torch, so that ``umd-bench plan`` is fast. The tests
compare the count with torch's own counter, run over the step itself.
"""

from __future__ import annotations

from umd_bench.config.trial.model import ModelConfig
from umd_bench.config.trial.train_stage import TrainStage

# Cost of a matrix product, in forward products: one for the forward pass, and one more for each factor that needs a gradient.
_TRAINED, _OF_FIXED_INPUT = 3, 2


def flops_per_image(config: ModelConfig, stage: TrainStage, *, size: int, channels: int, classes: int) -> float:
    """Floating-point operations per image of one step's matrix products, forward and backward; a multiply-add counts as two.

    ``size`` is the image side in pixels. Each noised image has its own condition; all clean images share one (UMD paper,
    section 3.2).
    """
    patches = (size // config.patch) ** 2
    corruption, n_noised = stage.corruption, stage.batch - stage.n_clean
    groups = [
        (n_noised, n_noised, corruption.mask_ratio),
        (stage.n_clean, min(1, stage.n_clean), corruption.mask_ratio_t0),
    ]
    adds = sum(
        _multiply_adds(config, rows, conditions, int(patches * (1 - ratio)), patches, channels, labels=classes > 0)
        for rows, conditions, ratio in groups
    )
    return 2 * adds / stage.batch


def _multiply_adds(
    config: ModelConfig, rows: int, conditions: int, visible: int, patches: int, channels: int, *, labels: bool
) -> int:
    """Multiply-adds of ``rows`` images with ``visible`` patches each, under ``conditions`` different conditions."""
    width, pixels = config.width, channels * config.patch**2
    extra = 0 if config.adaln else 1  # the condition is a token of every block
    encoder = config.depth * _block(width, rows, config.class_tokens + visible + extra)
    decoder = config.decoder_depth * _block(width, rows, 1 + patches + extra)
    head = rows * patches * width * 2 * pixels
    modulation = (6 * (config.depth + config.decoder_depth) + 2) * width**2 if config.adaln else 0
    embedded = 2 * width**2  # each of the two layers in a time or label embedding
    label = 2 * embedded if labels else 0
    trained = encoder + decoder + head + conditions * (modulation + embedded + label)
    of_fixed_input = rows * patches * pixels * width + conditions * embedded  # pixels and sinusoids need no gradient
    return _TRAINED * trained + _OF_FIXED_INPUT * of_fixed_input


def _block(width: int, rows: int, tokens: int) -> int:
    """Multiply-adds of a block: 12 width-by-width products per token, and attention's two products over token pairs."""
    return rows * (12 * tokens * width**2 + 2 * tokens**2 * width)
