"""The Inception-v3 that the Fréchet inception distance is defined by (Heusel et al., arXiv 1706.08500), through torch-fidelity.

The network is the TensorFlow graph of 2015-12-05 with its own resizing to 299 pixels. Its weights are one public file, looked
for in three places and checked by SHA-256; nothing downloads it but the verb that says so.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from umd_bench.config.errors import UserError
from umd_bench.evaluation.extractors.weight_files import Published, weights_folder

if TYPE_CHECKING:  # torch is imported where a network is built: what a sweep needs is known without
    import torch
    from torch import Tensor

NAME = "inception-v3-compat"
VARIABLE = "UMD_BENCH_INCEPTION"
FILE = "pt_inception-2015-12-05-6726825d.pth"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
# Where pytorch-fid publishes it; torch-fidelity publishes the same file under a name of its own, and keeps it where torch's
# hub keeps its files.
ADDRESS = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{FILE}"
FIDELITY_FILE = "weights-inception-2015-12-05-6726825d.pth"
DIM = 2048
RESIZE = "bilinear to 299 px as TensorFlow 1 does it, without antialiasing"
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


def fetched_path() -> Path:
    """Where the verb that downloads the weights puts them."""
    return weights_folder() / FILE


def published() -> Published:
    """The file that can be downloaded."""
    return Published(ADDRESS, fetched_path(), SHA256)


def weights_places() -> list[Path]:
    """Where the weights are looked for, in order: the file that ``$UMD_BENCH_INCEPTION`` names and nowhere else, or
    without it the folder of fetched weights and then what torch-fidelity downloads for itself."""
    stated = os.environ.get(VARIABLE)
    if stated:
        return [Path(stated).expanduser()]
    return [fetched_path(), _hub_folder() / "checkpoints" / FIDELITY_FILE]


def _hub_folder() -> Path:
    """``torch.hub.get_dir()``, without waiting for torch."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("TORCH_HOME") or f"{cache}/torch").expanduser() / "hub"


def find_weights() -> bytes:
    """The published weights, from the first place that has a file; :class:`UserError` where none has, or it is another."""
    path = next((path for path in weights_places() if path.exists()), None)
    if path is None:
        raise UserError(f"{NAME} has no weights in {' or '.join(map(str, weights_places()))}: {ways()}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"the weights of {NAME} cannot be read from {path} ({error.strerror}): {ways()}") from None
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256:
        raise UserError(
            f"{path} is not the Inception-v3 that FID is defined by (SHA-256 {found[:8]}, expected {SHA256[:8]}): "
            f"remove it, then {ways()}"
        )
    return data


def ways() -> str:
    """The sentence part that says how the weights can be had."""
    return (
        f"name the file in ${VARIABLE}, or run `umd-bench extractor fetch {NAME}`, which downloads {ADDRESS} "
        f"to {fetched_path()}, or put torch-fidelity's {FIDELITY_FILE} into $TORCH_HOME/hub/checkpoints"
    )


def load_inception(device: torch.device) -> Inception:
    """The network with its published weights on ``device``. Raises :class:`UserError` as :func:`find_weights` does."""
    return Inception(build_network(find_weights()).to(device))


def build_network(data: bytes) -> Any:
    """The network with the state dict that ``data`` holds as torch saves it; :class:`UserError` where it holds another thing.

    torch-fidelity unpickles whatever file it is given, so it is handed a copy of the tensors that a safe load has let through.
    """
    import torch
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    try:
        state = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise UserError(f"the weights of {NAME} are not tensors that torch saved ({error})") from None
    safe = io.BytesIO()
    torch.save(state, safe)
    safe.seek(0)
    return FeatureExtractorInceptionV3(NAME, ["2048", "logits_unbiased"], feature_extractor_weights_path=safe)
