"""The live display: failures are printed once, and running stages are read no more often than the display is drawn."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from orchestration.small import write_small
from rich.console import Console

from umd_bench.config.sweep.resolve import load_sweep
from umd_bench.orchestration.graph import Node, build_graph
from umd_bench.orchestration.monitor import live
from umd_bench.orchestration.trial_source import SweepProgress
from umd_bench.store import Failure, StageState


@pytest.fixture
def nodes(tmp_path: Path) -> dict[str, Node]:
    return build_graph(tmp_path, load_sweep(write_small(tmp_path)).trials)


def test_running_stages_are_read_no_more_often_than_the_display_is_drawn(
    tmp_path: Path, nodes: dict[str, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    monkeypatch.setattr(live, "read_stage_progress", lambda root, node: read.append(node.key) or live.StageProgress())
    for node in nodes.values():
        node.state = StageState.RUNNING
    with live.LiveDisplay(Console(file=io.StringIO()), tmp_path, 1) as display:
        for _ in range(100):
            display.show(SweepProgress(nodes))
    assert read == []


def test_a_failure_is_printed_once_and_plain_lines_count_the_states(
    tmp_path: Path, nodes: dict[str, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "PLAIN_LINE_SECONDS", 0.0)
    key, *blocked = nodes
    nodes[key].state = StageState.FAILED
    failure = Failure(state="error", message="it broke", fingerprint="")
    progress = SweepProgress(nodes, failures={key: failure}, blocked=set(blocked[:1]))
    out = io.StringIO()
    with live.LiveDisplay(Console(file=out, width=200), tmp_path, 1) as display:
        display.show(progress)
        display.show(progress)
    first, *lines = out.getvalue().splitlines()
    assert first.endswith("pretrain (error): it broke")
    assert [line.partition(", 0:")[0] for line in lines] == [
        "0/20 stages done, 0 running, 1 failed, 1 blocked by a failed stage"
    ] * 2
