"""The exponential moving average of the weights, used for sampling (fine-tuning only; UMD paper, appendix)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class WeightAverage:
    """``w_ema = d w_ema + (1 - d) w`` after every step, with ``d = decay`` and without bias correction.

    The average starts as a copy of the model's weights, or continues from ``weights``, float32 tensors by parameter name.
    """

    def __init__(self, model: nn.Module, decay: float, weights: Mapping[str, Tensor] | None = None) -> None:
        self._model, self._decay = model, decay
        start = dict(model.named_parameters()) if weights is None else weights
        self.weights = {name: start[name].detach().to(p.device, copy=True) for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the model's current weights."""
        torch._foreach_lerp_(list(self.weights.values()), list(self._model.parameters()), 1 - self._decay)
