"""The jobs of ``test_parallel.py``. Two processes run the same list of jobs together, with a new process group for every job.

``python -m engine.two_ranks ADDRESS FOLDER`` is rank 1, and writes the results of its jobs into ``FOLDER/outcomes.json``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from engine.small_runs import BATCH, Killed, after, made_up_pack, run_of, training
from torch import Tensor

from umd_bench.config.trial.noise import NoiseConfig
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.config.trial.train_stage import CorruptionConfig, OptimConfig, TrainStage
from umd_bench.engine.diffusion.corruption import draw_noise
from umd_bench.engine.diffusion.noise_process import NoiseProcess
from umd_bench.engine.diffusion.objective import Losses, umd_loss
from umd_bench.engine.networks.initialise import build_model
from umd_bench.engine.training import parallel
from umd_bench.engine.training.loop import follow, train, training_step
from umd_bench.engine.training.parallel import SINGLE_DEVICE, DataParallel, RankGroup
from umd_bench.engine.training.state import TrainingState

WAIT = timedelta(seconds=60)
CPU = torch.device("cpu")


def _umd(r_t0: float, ratio: float = 0.375, **fields: object) -> StageSpec:
    return training(corruption=CorruptionConfig(r_t0=r_t0, mask_ratio=ratio), **fields)


# Name -> a stage whose first gradient is compared: special cases of the objective and of the division of rows among ranks.
STEPS_OF: dict[str, StageSpec] = {
    "umd": _umd(0.5),
    "umd-odd": _umd(0.43, batch=7, nimg=7 * 10),  # 3 clean, 4 noised
    "umd-both-odd": _umd(0.375, batch=8, nimg=8 * 10),  # 3 clean, 5 noised
    "one-clean": _umd(0.2, batch=5, nimg=5 * 10),  # a rank without a clean image
    "one-noised": _umd(0.8, batch=5, nimg=5 * 10),
    "two-images": _umd(0.5, batch=2, nimg=2 * 10),  # one rank has the noised image, the other the clean one
    "mae": _umd(1.0),
    "dit": _umd(0.0, 0.0),
    "maskdit": _umd(0.0, 0.5, batch=3, nimg=3 * 10),
    "no-labels": _umd(0.5, labels=False),
    "min-snr": _umd(0.25, loss_weight="min_snr"),
    "bf16": _umd(0.375, precision="bf16"),
}


def gradients(spec: StageSpec, parallel: DataParallel = SINGLE_DEVICE) -> dict[str, Any]:
    """The gradient of one step by parameter name (None if there is none), and the losses."""
    stage = spec.stage
    assert isinstance(stage, TrainStage)
    B = stage.batch
    model = build_model(spec.model, size=8, channels=1, classes=3 if stage.labels else 0, seed=5)
    with torch.no_grad():  # initial weights are zero in many places
        for index, p in enumerate(model.parameters()):
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(index)), alpha=0.1)
    draws = torch.Generator().manual_seed(1)
    x_0, label = torch.rand(B, 1, 8, 8, generator=draws) * 2 - 1, torch.arange(B) % 3
    process = NoiseProcess(NoiseConfig(timesteps=50), CPU)
    x_0, noise, label, n_clean = parallel.share(x_0, draw_noise(x_0, model.n_patches, process, draws), label, stage)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=stage.precision == "bf16"):
        losses = umd_loss(model, x_0, noise, stage, process, label if stage.labels else None, n_clean=n_clean)
    losses = parallel.backward(model, losses, stage)
    found = {name: p.grad for name, p in model.named_parameters()}
    return {"gradients": found, "losses": Losses(*(loss.detach() for loss in losses))}


def _whole_run(spec: StageSpec, name: str, *, stop: dict[int, Callable[[], bool]] | None = None) -> Callable[..., object]:
    """A job that trains ``spec`` in the folder ``name``; ``stop`` maps a rank to its stop function."""

    def job(group: RankGroup, folder: Path) -> object:
        pack = made_up_pack(_made(folder / "pack"))
        own_stop = (stop or {}).get(group.rank, lambda: False)
        if group.rank:  # rank 1 must write nothing into its results folder
            follow(spec, pack, run_of(spec, folder / name), group, stop=own_stop)
            return None
        with run_of(spec, folder / name).begin() as attempt:
            return train(spec, pack, attempt, stop=own_stop, parallel=group)

    return job


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def strayed(group: RankGroup, folder: Path) -> None:
    """Compare the weights of the ranks twice: when they are equal, and when one weight of rank 1 differs in its last bits."""
    model = torch.nn.Linear(3, 2)
    torch.nn.init.ones_(model.weight)
    torch.nn.init.zeros_(model.bias)
    group.require_same_weights(model)
    if group.rank:
        model.weight.data[1, 1] += 1e-7
    group.require_same_weights(model)


def two_buckets(group: RankGroup, folder: Path) -> list[dict[str, Tensor]]:
    """The weights after two steps, once with gradients summed in one bucket and once in many."""
    found = []
    for elements in (10**9, 100):
        with torch.random.fork_rng(), patch.object(parallel, "BUCKET_ELEMENTS", elements):
            spec = training()
            pack = made_up_pack(_made(folder / "pack"))
            run = run_of(spec, folder / "buckets")
            state = TrainingState(spec, spec.stage, pack.manifest, run, CPU, 2)  # type: ignore[arg-type]
            process, generator = NoiseProcess(spec.noise, CPU), torch.Generator()
            group._buckets = None
            for step in range(2):
                x_0 = torch.rand(BATCH, 1, 8, 8, generator=torch.Generator().manual_seed(step))
                training_step(state, spec, process, generator, x_0, torch.arange(BATCH) % 3, group)
            found.append({name: p.detach().clone() for name, p in state.model.named_parameters()})
    return found


WITH_SNAPSHOT = training(snapshots=(10 * BATCH,))
DIVERGING = training(optim=OptimConfig(lr_per_256=1e30, clip_norm=1e30))
JOBS: dict[str, Callable[[RankGroup, Path], object]] = {
    **{f"gradients {name}": lambda group, folder, spec=spec: gradients(spec, group) for name, spec in STEPS_OF.items()},
    "two buckets": two_buckets,
    "strayed": strayed,
    "whole": _whole_run(WITH_SNAPSHOT, "whole"),
    "stopped by rank 1": _whole_run(WITH_SNAPSHOT, "stopped", stop={1: after(7)}),
    "stopped by rank 0": _whole_run(WITH_SNAPSHOT, "stopped", stop={0: after(5)}),
    "resumed": _whole_run(WITH_SNAPSHOT, "stopped"),
    "nothing is left to do": _whole_run(WITH_SNAPSHOT, "stopped"),
    "killed": _whole_run(WITH_SNAPSHOT, "killed", stop={0: after(7, Killed)}),
    "killed again": _whole_run(WITH_SNAPSHOT, "killed", stop={1: after(9, Killed)}),
    "resumed after a kill": _whole_run(WITH_SNAPSHOT, "killed"),
    "began alone": _whole_run(WITH_SNAPSHOT, "alone"),
    "diverging": _whole_run(DIVERGING, "diverging"),
}


def run_all(store: dist.TCPStore, rank: int, folder: Path) -> dict[str, Any]:
    """The value that each job returned, or the error that it raised, by name."""
    found: dict[str, Any] = {}
    for name, job in JOBS.items():
        group = RankGroup(dist.PrefixStore(name, store), rank, 2, CPU)
        try:
            found[name] = job(group, folder)
        except (Exception, Killed) as error:
            found[name] = error
        finally:
            group.close()
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    host, port = sys.argv[1].split(":")
    mine = Path(sys.argv[2])
    outcomes = run_all(dist.TCPStore(host, int(port), is_master=False, timeout=WAIT), 1, mine)
    report = {name: [type(value).__name__, str(value)[:300]] for name, value in outcomes.items()}
    (mine / "outcomes.json").write_text(json.dumps(report))
