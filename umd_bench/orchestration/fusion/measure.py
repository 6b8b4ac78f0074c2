"""How much faster stages of one shape are trained as one than apart, on this machine, with all its workers at work.

Each worker is a process of its own. It makes a few steps of a unit, then as many of the same stages one after another, in turn,
while the others do the same: so both ways share the machine's cores and caches as they would in the sweep. What was measured
is kept below the results folder, by all that it depends on.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import umd_bench
from umd_bench.config.trial.fusion_shape import shape_of
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.config.trial.train_stage import TrainStage
from umd_bench.orchestration.fusion.policy import Alike, Gain, alike_stages, choose
from umd_bench.orchestration.graph import Node
from umd_bench.store.files import read_json, write_json
from umd_bench.store.run import RunDir

SECONDS = 6.0  # of steps, in each process
MOST_SECONDS = 90.0  # for a process from its start to its end
FEWEST_ROUNDS = 5
_MODULE = "umd_bench.orchestration.fusion.measure"


def kept_gain(root: Path, group: Alike, workers: int) -> Gain | None:
    """What was measured before on such a machine, if anything was."""
    kept = read_json(_file(root, group, workers))
    return None if kept is None else Gain(**kept["gain"])


def measured_gain(root: Path, group: Alike, workers: int, data_root: Path) -> Gain | None:
    """What was measured before, or is now; None where the time did not suffice, which is not kept."""
    kept = kept_gain(root, group, workers)
    if kept is not None:
        return kept
    specs = [spec.model_copy(update={"parent_key": None, "parent_nimg": None}) for spec in group.specs[: group.size]]
    request = json.dumps({"data_root": str(data_root.resolve()), "specs": [spec.model_dump(mode="json") for spec in specs]})
    ratios = _side_by_side(request, workers)
    if len(ratios) < FEWEST_ROUNDS:
        return None
    low, median, high = statistics.quantiles(ratios, n=4)
    gain = Gain(median, low, high)
    about = {**_about(group, workers), "rounds": len(ratios)}
    write_json(_file(root, group, workers), {"gain": vars(gain), "about": about})
    return gain


def planned(root: Path, nodes: Iterable[Node], workers: int, mode: str) -> list[str]:
    """What ``--fuse`` of that mode would do, as far as it is known without measuring."""
    if mode == "off":
        return []
    groups = alike_stages(nodes, workers)
    unknown = [group for group in groups if mode == "auto" and kept_gain(root, group, workers) is None]
    lines = [
        f"{len(group.specs)} stages of {group.name}, up to {group.size} as one: if that is measured to be faster"
        for group in unknown
    ]
    if len(unknown) == len(groups) > 0:
        return lines
    known = [node for node in nodes if shape_of(node.spec) not in {group.shape for group in unknown}]
    return lines + choose(known, workers, mode, lambda group: kept_gain(root, group, workers)).lines


def _side_by_side(request: str, workers: int) -> list[float]:
    """The ratios of all processes; none where one of them failed or took too long."""
    command = [sys.executable, "-m", _MODULE]
    deadline = time.monotonic() + MOST_SECONDS
    processes: list[subprocess.Popen[str]] = []
    ratios: list[float] = []
    try:
        for _ in range(workers):
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            processes.append(process)
            assert process.stdin is not None
            process.stdin.write(request)
            process.stdin.close()
            process.stdin = None
        for process in processes:
            said, _ = process.communicate(timeout=max(0.1, deadline - time.monotonic()))
            if process.returncode:
                return []
            ratios += json.loads(said)
    except (subprocess.TimeoutExpired, OSError, json.JSONDecodeError):
        return []
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return ratios


def _about(group: Alike, workers: int) -> dict[str, Any]:
    """All that the gain depends on; the clean images say whether matrix products have equal rows."""
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


def _file(root: Path, group: Alike, workers: int) -> Path:
    text = json.dumps(_about(group, workers), sort_keys=True)
    return root / "fusing" / "measured" / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


def ratios_of(specs: list[StageSpec], data_root: Path, *, seconds: float = SECONDS) -> list[float]:
    """Time of a step of each stage by itself against one of all as one, measured in turn for ``seconds``, once at least."""
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
    return ratios[1:]  # the first of each is warm-up


if __name__ == "__main__":
    asked = json.loads(sys.stdin.read())
    stages = [StageSpec.model_validate(spec) for spec in asked["specs"]]
    print(json.dumps(ratios_of(stages, Path(asked["data_root"]))))
