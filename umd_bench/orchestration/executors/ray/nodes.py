"""Queries about the nodes of a Ray. Each needs a head that answers."""

from __future__ import annotations

from typing import Any

import ray


def living_nodes() -> list[dict[str, Any]]:
    """Ray's records of the nodes that are alive."""
    return [node for node in ray.nodes() if node["Alive"]]


def is_alive(node: str) -> bool:
    """Whether the node with this id is alive."""
    return any(each["NodeID"] == node for each in living_nodes())


def describe_nodes() -> str:
    """``10.0.0.1 with 16 CPUs and 2 GPUs, ...``."""
    texts = [
        f"{node['NodeManagerAddress']} with {node['Resources'].get('CPU', 0):g} CPUs and "
        f"{node['Resources'].get('GPU', 0):g} GPUs"
        for node in living_nodes()
    ]
    return ", ".join(texts) or "no node"


def room_on_nodes(threads: int, gpus: float) -> int:
    """How many processes of ``threads`` CPUs and ``gpus`` GPUs fit at a time, if nothing else runs; each fits on one node."""
    count = 0
    for node in living_nodes():
        resources = node["Resources"]
        by_cpu = int(resources.get("CPU", 0) // threads)
        whole = int(resources.get("GPU", 0) // max(gpus, 1)) if gpus else by_cpu
        count += min(by_cpu, whole * int(1 / gpus + 1e-9) if 0 < gpus < 1 else whole)
    return count


def one_line(error: BaseException) -> str:
    """The text of an error in one line: Ray's errors have many."""
    return " ".join(str(error).split()).rstrip(".")
