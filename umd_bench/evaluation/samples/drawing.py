"""Draws samples as uint8 images, batch by batch: for the generate stage, and for ``umd-bench sample``.

Shapes: N samples, B samples at once, C channels, H, W.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from umd_bench.config.errors import UserError
from umd_bench.config.trial.generate_stage import GenerateStage
from umd_bench.data.vae import Decode
from umd_bench.engine.diffusion.noise_process import NoiseProcess
from umd_bench.engine.families import Sampled
from umd_bench.engine.samplers import generate


@dataclass
class SampleDrawer:
    """Draws samples from one model; sample i depends on the seed and i alone, not on its batch.

    If ``fixed_batch`` is given, every batch is padded to that many samples, because a compiled model would be compiled again
    for another shape. ``seconds`` is the time spent drawing so far.
    """

    model: Sampled
    process: NoiseProcess
    config: GenerateStage
    decode: Decode
    fixed_batch: int = 0
    seconds: float = 0.0

    def batches(self, label: Tensor | None, seed: int) -> Iterator[tuple[range, Tensor]]:
        """All ``config.n`` samples in batches of ``config.batch``: their numbers, and images as :meth:`draw` gives them."""
        for start in range(0, self.config.n, self.config.batch):
            indices = range(start, min(start + self.config.batch, self.config.n))
            yield indices, self.draw(indices, label, seed)

    def draw(self, indices: Sequence[int], label: Tensor | None, seed: int) -> Tensor:
        """The samples ``indices`` as uint8 images [B, C, H, W] on the CPU; ``label`` [N] int64 are the classes of all samples.

        Raises :class:`UserError` if a sample is NaN or infinite.
        """
        started = time.perf_counter()
        # Padding repeats the last sample, which costs one batch at most.
        padded = [*indices, *[indices[-1]] * (self.fixed_batch - len(indices))]
        classes = None if label is None else label[padded].to(self.model.pos_embed.device)
        x_0 = generate(self.model, self.process, self.config, label=classes, indices=padded, seed=seed)[: len(indices)]
        if not x_0.isfinite().all():  # as uint8, NaN would look like a valid image
            raise UserError(f"samples {indices[0]}..{indices[-1]} are NaN or infinite, so the weights cannot be used")
        images = self.decode(x_0)
        self.seconds += time.perf_counter() - started
        return images
