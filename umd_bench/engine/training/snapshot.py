"""Snapshots: weights at a requested nimg, which later stages start from or evaluate.

A snapshot is one safetensors file: ``model/<parameter>``, ``ema/<parameter>`` if there is an average, and the training's
outcome so far as metadata.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from umd_bench.config.errors import UserError
from umd_bench.data.datasets import DataFacts
from umd_bench.engine.families import Evaluated, Sampled, empty_model
from umd_bench.engine.training.checkpoint import safetensors_metadata
from umd_bench.store.files import write_atomic
from umd_bench.store.run import Attempt, RunDir


def publish_snapshot(
    attempt: Attempt, nimg: int, weights: Mapping[str, Tensor], average: Mapping[str, Tensor] | None, outcome: dict[str, Any]
) -> None:
    """Write the weights into the attempt's folder and link them into the run directory, unless that snapshot exists."""
    tensors = {f"model/{name}": value.detach() for name, value in weights.items()}
    tensors |= {f"ema/{name}": value for name, value in (average or {}).items()}
    target = attempt.run.snapshot(nimg)
    written = attempt.path / "snapshots" / target.name
    write_atomic(written, safetensors.torch.save(tensors, {"nimg": str(nimg), "outcome": json.dumps(outcome)}))
    attempt.publish(written, target)


def snapshot_outcome(run: RunDir, nimg: int) -> dict[str, Any]:
    """The outcome that training stored with the snapshot. Raises as :func:`load_snapshot`."""
    _, metadata = _read(run, nimg)
    outcome: dict[str, Any] = json.loads(metadata["outcome"])
    return outcome


def load_snapshot(run: RunDir, nimg: int, *, ema: bool = False) -> dict[str, Tensor]:
    """The weights after ``nimg`` images (``ema``: their average) by parameter name, float32 on the CPU.

    Raises :class:`UserError` if the snapshot is missing or damaged, or has no average.
    """
    prefix = "ema/" if ema else "model/"
    tensors, _ = _read(run, nimg)
    weights = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    if not weights:
        raise UserError(
            f"{run.snapshot(nimg)} keeps no average of the weights: train with optim.ema, or evaluate with ema = false"
        )
    return weights


def restore_model(
    run: RunDir, nimg: int, *, source: DataFacts, ema: bool = False, device: torch.device | str = "cpu"
) -> Evaluated:
    """The trained or imported model of ``run`` after ``nimg`` images, on ``device``, in eval mode and without gradients.

    Raises :class:`UserError` as :func:`load_snapshot`, and if the run's stage has no weights.
    """
    model = empty_model(run.config(), source)
    model.load_state_dict(load_snapshot(run, nimg, ema=ema), assign=True)
    return model.to(device).eval().requires_grad_(requires_grad=False)


def restore_sampled(
    run: RunDir, nimg: int, *, source: DataFacts, ema: bool = False, device: torch.device | str = "cpu"
) -> Sampled:
    """As :func:`restore_model`, for sampling. Raises :class:`UserError` also if the model family cannot be sampled."""
    model = restore_model(run, nimg, source=source, ema=ema, device=device)
    if not isinstance(model, Sampled):
        raise UserError(
            f"run {run.key} has the family {run.config().model.family}, which predicts nothing and cannot be sampled"
        )
    return model


def _read(run: RunDir, nimg: int) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    """Tensors and metadata of a snapshot."""
    path = run.snapshot(nimg)
    try:
        data = path.read_bytes()
        return safetensors.torch.load(data), safetensors_metadata(data)
    except FileNotFoundError:
        existing = sorted(int(other.stem.removeprefix("nimg-")) for other in path.parent.glob("nimg-*.safetensors"))
        raise UserError(f"run {run.key} keeps no weights at nimg = {nimg}: expected one of {existing}") from None
    except SafetensorError as error:
        raise UserError(f"{path} is damaged ({error}): remove it to have it trained again") from None
