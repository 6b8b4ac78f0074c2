"""The Inception-v3 that the Fréchet inception distance is defined by (Heusel et al., arXiv 1706.08500), through torch-fidelity.

The network is the TensorFlow graph of 2015-12-05 with its own resizing to 299 pixels. Its weights are one public file; they are
taken from an explicit place, checked by SHA-256 and never downloaded from here.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from umd_bench.config.errors import UserError

VARIABLE = "UMD_BENCH_INCEPTION"
FILE = "pt_inception-2015-12-05-6726825d.pth"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
# Where its authors publish it; torch-fidelity's weights-inception-2015-12-05-6726825d.pth is the same file.
ADDRESS = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{FILE}"
DIM = 2048
RESIZE = "bilinear to 299 px, corners as TensorFlow 1 puts them, no antialiasing"
# ADM's evaluator (Dhariwal and Nichol, arXiv 2105.05233) takes sFID from the first 7 channels of the graph's
# ``mixed_6/conv:0``: the node that closes the scope of the 1x1 branch of ``mixed_6``, so after batch normalisation and ReLU.
# The graph counts its blocks ``mixed``, ``mixed_1`` ...: ``mixed_6`` is the seventh, torch-fidelity's ``Mixed_6d``.
_SPATIAL_CHANNELS, _SPATIAL_SIDE = 7, 17
SPATIAL_DIM = _SPATIAL_SIDE**2 * _SPATIAL_CHANNELS


class Inception:
    """uint8 RGB [B, 3, H, W] of any side -> features after the last pooling, logits without their bias, spatial features.

    [B, 2048], [B, 1008] and, where asked for, [B, 2023]: 17 x 17 places of 7 channels, the channel running fastest as in the
    TensorFlow graph, so that published spatial statistics fit.
    """

    def __init__(self, network: Any) -> None:
        self._network = network
        self._branch: Tensor | None = None
        network.Mixed_6d.branch1x1.register_forward_hook(self._keep)

    def __call__(self, images: Tensor, *, spatial: bool = False) -> tuple[Tensor, Tensor, Tensor | None]:
        pooled, logits = self._network(images)
        branch, self._branch = self._branch, None
        assert branch is not None  # the hook has run
        if not spatial:
            return pooled, logits, None
        return pooled, logits, branch[:, :_SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1)

    def _keep(self, module: Any, given: Any, output: Tensor) -> None:
        self._branch = output


def weights_path() -> Path:
    """Where the weights are looked for: ``$UMD_BENCH_INCEPTION``, else the user's cache."""
    stated = os.environ.get(VARIABLE)
    return Path(stated).expanduser() if stated else Path.home() / ".cache" / "umd-bench" / "weights" / FILE


def load_inception(device: torch.device) -> Inception:
    """The network with its published weights on ``device``; :class:`UserError` where they are missing or others."""
    path = weights_path()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"the weights of inception-v3-compat cannot be read from {path} ({error.strerror}): "
            f"download {ADDRESS} and put it there, or name its place in ${VARIABLE}"
        ) from None
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256:
        raise UserError(
            f"{path} is not the Inception-v3 that FID is defined by (SHA-256 {found[:8]}, expected {SHA256[:8]}): "
            f"download {ADDRESS} again, or name its place in ${VARIABLE}"
        )
    return Inception(build_network(data).to(device))


def build_network(data: bytes) -> Any:
    """The network with the state dict that ``data`` holds as torch saves it; :class:`UserError` where it holds another thing.

    torch-fidelity unpickles whatever file it is given, so it is handed a copy of the tensors that a safe load has let through.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    try:
        state = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise UserError(f"the weights of inception-v3-compat are not tensors that torch saved ({error})") from None
    safe = io.BytesIO()
    torch.save(state, safe)
    safe.seek(0)
    return FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=safe)
