"""Sweeps and results folders of any size, with made-up results: planning, status and tables are timed on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from umd_bench.config.sweep.resolve import Sweep, load_sweep
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.orchestration.graph import sweep_record
from umd_bench.store import RunDir, write_sweep

NAME = "made-up"


def synthetic_sweep(folder: Path, trials: int) -> Path:
    """Write the file of a sweep of the digits tier with ``trials`` seeds, each with a pre-training and a probe."""
    path = folder / f"{NAME}.yaml"
    document = {
        "name": NAME,
        "question": "How do costs grow with the number of trials?",
        "tier": "digits",
        "trial": {"method": "umd"},
        "axes": {"stages.pretrain.corruption.mask_ratio": [0.25]},
        "seeds": list(range(trials)),
        "stages": ["probe"],
    }
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return path


def synthetic_axis_sweep(folder: Path, trials: int) -> Path:
    """As :func:`synthetic_sweep`, but all trials have the same seed and differ in the value of an axis."""
    path = folder / f"{NAME}-axis.yaml"
    document = yaml.safe_load(synthetic_sweep(folder, trials).read_text(encoding="utf-8"))
    rates = [1e-6 * (1 + i) for i in range(trials)]
    document |= {"name": f"{NAME}-axis", "axes": {"stages.pretrain.optim.lr_per_256": rates}, "seeds": [0]}
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return path


def one_stage_sweep(folder: Path) -> Path:
    """Write the file of a sweep with one trial of one stage, which trains for two steps."""
    path = folder / f"{NAME}-small.yaml"
    document = {
        "name": f"{NAME}-small",
        "question": "How long does a sweep take to begin?",
        "tier": "digits",
        "trial": {"method": "umd", "stages": {"pretrain": {"nimg": 32, "batch": 16}}},
        "axes": {"stages.pretrain.corruption.mask_ratio": [0.25]},
        "seeds": [0],
        "stages": ["pretrain"],
    }
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return path


def synthetic_results(root: Path, trials: int) -> Sweep:
    """Write the record of a :func:`synthetic_sweep` and a result for each of its stages below ``root``, without training."""
    root.mkdir(parents=True, exist_ok=True)
    sweep = load_sweep(synthetic_sweep(root, trials))
    for trial in sweep.trials:
        for spec in trial.specs.values():
            run = RunDir(root, spec.key)
            run.prepare(spec)
            with run.begin() as attempt:
                attempt.event("state", state="running", pid=1)
                attempt.finish(_result(spec))
    write_sweep(root, sweep_record(sweep))
    return sweep


def _result(spec: StageSpec) -> dict[str, Any]:
    environment = {"umd_bench": "0", "torch": "0", "python": "0", "commit": "0", "device": "cpu", "device_name": "a processor"}
    return {
        "key": spec.key,
        "kind": spec.kind,
        "metrics": {"loss_final": 0.5, "made_up": 1.0},
        "facts": {"nimg": 32, "flops_per_image": 1.0},
        "cost": {"seconds": 1.0, "images_per_second": 100.0, "peak_memory_bytes": 1},
        "environment": {**environment, "threads": 1, "world_size": 1, "host": "a-host"},
        "data": {"name": spec.data.name, "digest": "0" * 64},
        "exact": True,
        "attempts": 1,
    }
