"""How much arithmetic one training image costs, from shapes alone: the matrix products of a step, masked tokens left out.

Needs no torch, so that a plan can say what a sweep costs at once. The tests hold it against torch's own counter, run over the
step itself.
"""

from __future__ import annotations

from umd_bench.config.trial.model import ModelConfig
from umd_bench.config.trial.train_stage import TrainStage

# A product of the forward pass costs as much again for each of its two factors that needs a gradient.
_TRAINED, _OF_FIXED_INPUT = 3, 2


def flops_per_image(config: ModelConfig, stage: TrainStage, *, size: int, channels: int, classes: int) -> float:
    """Floating-point operations (two a multiply-add) of matrix products, forward and backward, of one step over its batch.

    ``size`` in pixels a side. The noised images are conditioned one by one, the clean ones all by the same vector (UMD paper,
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
    """Of one group: ``rows`` images of which the encoder sees ``visible`` patches, under so many different conditions."""
    width, pixels = config.width, channels * config.patch**2
    extra = 0 if config.adaln else 1  # the condition is a token of every block
    encoder = config.depth * _block(width, rows, config.class_tokens + visible + extra)
    decoder = config.decoder_depth * _block(width, rows, 1 + patches + extra)
    head = rows * patches * width * 2 * pixels
    modulation = (6 * (config.depth + config.decoder_depth) + 2) * width**2 if config.adaln else 0
    embedded = 2 * width**2  # each of the two layers of a time's or a label's embedding
    label = 2 * embedded if labels else 0
    trained = encoder + decoder + head + conditions * (modulation + embedded + label)
    of_fixed_input = rows * patches * pixels * width + conditions * embedded  # of pixels, and of a time's sinusoids
    return _TRAINED * trained + _OF_FIXED_INPUT * of_fixed_input


def _block(width: int, rows: int, tokens: int) -> int:
    """Queries, keys, values, projection and MLP are 12 products of width by width a token; attention is two of all pairs."""
    return rows * (12 * tokens * width**2 + 2 * tokens**2 * width)
