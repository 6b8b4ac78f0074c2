"""A process that submits stages and polls until it is killed: ``submitting_command.py EXECUTOR[=ADDRESS] RESULTS KEY...``."""

from __future__ import annotations

import sys
from pathlib import Path

from cluster import scripted_stage
from cluster.lab import CLUSTER, WORKERS

from umd_bench.config.launch.ray import RayConfig
from umd_bench.orchestration.executors.registry import start_executor

if __name__ == "__main__":
    where, folder, *keys = sys.argv[1:]
    name, _, address = where.partition("=")
    root, ray = Path(folder), RayConfig(address=address or None)
    executor = start_executor(
        name, root, root, workers=WORKERS, threads=1, cluster=CLUSTER, entry_point=scripted_stage.NAME, ray=ray
    )
    for key in keys:
        executor.submit(key)
    while True:
        executor.poll(0.2)
        print("polled", flush=True)
