"""Measure how much faster fused stages train than the same stages alone, on this machine with all its workers busy.

Each worker is a process. It alternates between a step of the fused stages and a step of each stage alone. All workers do so at
the same time, so both ways share the machine's cores and caches as they would in the sweep. The gain is cached in the results
folder under a hash of everything it depends on.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import umd_bench
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.config.trial.train_stage import TrainStage
from umd_bench.orchestration.commands import running_process
from umd_bench.orchestration.fusion.policy import FusionGroup, Gain
from umd_bench.store.files import read_json, write_json
from umd_bench.store.run import RunDir

SECONDS = 6.0  # of steps, in each process
DEADLINE_SECONDS = 90.0  # for all processes, from start to end
MIN_ROUNDS = 5
_MODULE = "umd_bench.orchestration.fusion.measure"


def cached_gain(root: Path, group: FusionGroup, workers: int) -> Gain | None:
    """The gain measured earlier on a machine like this one, or None."""
    cached = read_json(_file(root, group, workers))
    return None if cached is None else Gain(**cached["gain"])


def measured_gain(root: Path, group: FusionGroup, workers: int, data_root: Path) -> Gain | None:
    """The cached gain, or one measured now. If too few rounds finish in time, returns None and caches nothing."""
    cached = cached_gain(root, group, workers)
    if cached is not None:
        return cached
    specs = [spec.model_copy(update={"parent_key": None, "parent_nimg": None}) for spec in group.specs[: group.size]]
    request = json.dumps({"data_root": str(data_root.resolve()), "specs": [spec.model_dump(mode="json") for spec in specs]})
    ratios = _side_by_side(request, workers)
    if len(ratios) < MIN_ROUNDS:
        return None
    low, median, high = statistics.quantiles(ratios, n=4)
    gain = Gain(median, low, high)
    about = {**_about(group, workers), "rounds": len(ratios)}
    write_json(_file(root, group, workers), {"gain": vars(gain), "about": about})
    return gain


def _side_by_side(request: str, workers: int) -> list[float]:
    """Run ``workers`` processes at a time; returns the ratios of all, or an empty list if one failed or was too slow."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    ratios: list[float] = []
    try:
        with ExitStack() as stack:
            processes = [stack.enter_context(_started(request)) for _ in range(workers)]
            for process in processes:
                output, _ = process.communicate(timeout=max(0.1, deadline - time.monotonic()))
                if process.returncode:
                    return []
                ratios += json.loads(output)
    except (subprocess.TimeoutExpired, OSError, json.JSONDecodeError):
        return []
    return ratios


@contextmanager
def _started(request: str) -> Iterator[subprocess.Popen[str]]:
    """A process of this module that has received the request on its standard input."""
    command = [sys.executable, "-m", _MODULE]
    with running_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        process.stdin.write(request)
        process.stdin.close()
        process.stdin = None
        yield process


def _about(group: FusionGroup, workers: int) -> dict[str, Any]:
    """Everything the gain depends on. The numbers of clean images decide whether matrix products have equally many rows."""
    from umd_bench.engine.device import device_name

    first = group.specs[0]
    clean = [spec.stage.n_clean for spec in group.specs[: group.size] if isinstance(spec.stage, TrainStage)]
    return {
        "shape": json.loads(group.shape),
        "stages": group.size,
        "clean": sorted(clean),
        "workers": workers,
        "device": device_name(first.resources.device),
        "threads": first.resources.threads,
        "torch": version("torch"),
        "umd_bench": umd_bench.__version__,
    }


def _file(root: Path, group: FusionGroup, workers: int) -> Path:
    text = json.dumps(_about(group, workers), sort_keys=True)
    return root / "fusing" / "measured" / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


def ratios_of(specs: list[StageSpec], data_root: Path, *, seconds: float = SECONDS) -> list[float]:
    """For each round, the time of one step of every stage alone, divided by the time of one fused step.

    The rounds last ``seconds``; at least one ratio is returned.
    """
    import torch

    from umd_bench.data.open_data import open_data
    from umd_bench.engine.device import deterministic_kernels, pick_device
    from umd_bench.engine.fusion.fused_loop import members_of
    from umd_bench.engine.fusion.fused_step import FusedStages
    from umd_bench.engine.training.loop import training_step

    torch.set_num_threads(specs[0].resources.threads)
    pack, device = open_data(specs[0].input_data, data_root), pick_device(specs[0].resources.device)

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    with tempfile.TemporaryDirectory(prefix="umd-bench-fusing-") as folder, ExitStack() as attempts:
        sides = []
        for side in ("fused", "apart"):
            jobs = []
            for spec in specs:
                run = RunDir(Path(folder) / side, spec.key)
                run.prepare(spec)
                jobs.append((spec, attempts.enter_context(run.begin())))
            sides.append(members_of(jobs, pack, device))
        fused, apart = FusedStages(sides[0]), sides[1]
        ratios: list[float] = []
        with deterministic_kernels(device):
            until = time.perf_counter() + seconds
            while len(ratios) < 2 or time.perf_counter() < until:
                begun = clock()
                fused.step()
                between = clock()
                for member in apart:
                    x_0, label = member.batches.at(member.state.nimg)
                    training_step(member.state, member.spec, member.process, member.generator, x_0, label)
                ratios.append((clock() - between) / (between - begun))
    return ratios[1:]  # the first round is warm-up


if __name__ == "__main__":
    request = json.loads(sys.stdin.read())
    stages = [StageSpec.model_validate(spec) for spec in request["specs"]]
    print(json.dumps(ratios_of(stages, Path(request["data_root"]))))
