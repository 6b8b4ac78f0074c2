"""Proof, from a process on each node of a running cluster, that the node can run stages.

A node must see the results folder and the data folder, and import the frozen copy of the package.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import umd_bench
from umd_bench.config.errors import UserError
from umd_bench.orchestration.executors.ray.nodes import living_nodes, one_line

REPORT_SECONDS = 60.0  # for a process on each node to start and report


def check_nodes(code: Path, root: Path, data_root: Path) -> None:
    """Raise :class:`UserError` for the first node that does not see a folder, or does not run the package in ``code``."""
    folders = {"results": root, "data": data_root}
    token = uuid.uuid4().hex
    probes = {name: folder / f".seen-by-all-nodes-{token[:8]}" for name, folder in folders.items()}
    try:
        for path in probes.values():
            with contextlib.suppress(OSError):  # a data folder need not be writable; then nodes must see its files
                path.write_text(token)
        seen_here = {name: sorted(os.listdir(folder)) for name, folder in folders.items()}  # noqa: PTH208 - names alone
        nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in living_nodes() if node["Resources"].get("CPU")}
        reports = {}
        for node, address in nodes.items():
            there = NodeAffinitySchedulingStrategy(node, soft=False)
            remote = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(_report)
            reports[remote.remote({name: str(folder) for name, folder in folders.items()}, seen_here)] = address
        ready, late = ray.wait(list(reports), num_returns=len(reports), timeout=REPORT_SECONDS)
        if late:
            raise UserError(f"Ray node {reports[late[0]]} started no process within {REPORT_SECONDS:.0f} s")
        for reference in ready:
            _check_report(reports[reference], reference, code, folders)
    finally:
        for path in probes.values():
            with contextlib.suppress(OSError):
                path.unlink()


def _report(folders: dict[str, str], expected: dict[str, list[str]]) -> tuple[list[str], str, str]:
    """Runs on a node: which folders lack an expected file, and the package's file and version."""
    missed = []
    for name, folder in folders.items():
        try:
            files = os.listdir(folder)  # noqa: PTH208
        except OSError:
            files = None
        if files is None or not set(expected[name]) <= set(files):
            missed.append(name)
    return missed, umd_bench.__file__, umd_bench.__version__


def _check_report(node: str, reference: Any, code: Path, folders: dict[str, Path]) -> None:
    try:
        missed, package, version = ray.get(reference)
    except ray.exceptions.TaskUnschedulableError:
        return  # the node has left the cluster since: nothing will run there
    except Exception as error:
        raise UserError(
            f"Ray node {node} cannot run this package: {one_line(error)}; its copy {code} must be on a file system that the "
            "nodes share"
        ) from error
    for name in missed:
        raise UserError(
            f"Ray node {node} does not see this machine's files in the {name} folder {folders[name]}: expected a folder on a "
            "file system that all nodes share"
        )
    if not Path(package).is_relative_to(code):
        raise UserError(
            f"Ray node {node} runs umd-bench {version} from {package} instead of the copy in {code}: expected a Ray that was "
            "not started with a package of its own on PYTHONPATH"
        )
