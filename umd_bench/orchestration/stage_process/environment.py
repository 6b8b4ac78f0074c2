"""The code, libraries and hardware with which a stage runs."""

from __future__ import annotations

import platform
from typing import Any

import torch

import umd_bench
from umd_bench.config.trial.generate_stage import GenerateStage
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.config.trial.train_stage import TrainStage
from umd_bench.engine.device import device_name, pick_device
from umd_bench.orchestration.stage_process.provenance import commit


def environment(spec: StageSpec) -> dict[str, Any]:
    """Everything about this process that may change the last bits of a stage's numbers, and the host."""
    device = pick_device(spec.resources.device)
    return {
        "umd_bench": umd_bench.__version__,
        "commit": commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": device.type,
        "device_name": device_name(spec.resources.device),
        "threads": spec.resources.threads,
        "world_size": spec.devices,
        "compiled": spec.resources.compile and isinstance(spec.stage, TrainStage | GenerateStage),  # no other kind is compiled
        "host": platform.node(),
    }
