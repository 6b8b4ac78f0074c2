"""`doctor` on a real Slurm: its findings about settings that Slurm accepts or refuses, and about a node."""

from __future__ import annotations

from pathlib import Path

import pytest
from cluster.minislurm import MiniSlurm

from umd_bench.config.launch.cluster import ClusterConfig
from umd_bench.orchestration.doctor import node_probe
from umd_bench.orchestration.doctor.finding import Finding
from umd_bench.orchestration.doctor.node_probe import probe_node
from umd_bench.orchestration.doctor.slurm import examine_slurm
from umd_bench.orchestration.executors.jobs import module_job

pytestmark = pytest.mark.slow
SECONDS = 90.0


def settings(**fields: object) -> ClusterConfig:
    return ClusterConfig.model_validate({"time": "5m", **fields})


def lines(findings: list[Finding], level: str) -> str:
    return "\n".join(f"{finding.text}: {finding.remedy}" for finding in findings if finding.level == level)


def test_every_line_about_a_real_slurm(slurm: MiniSlurm) -> None:
    findings = list(examine_slurm(settings(gpus=1), required=True))
    assert lines(findings, "fail") == ""
    assert lines(findings, "warn").startswith("accounting is off")
    for part in (" answers", "33 tasks", "partition main: up, 2 nodes", "warned 10 s before", "accepts these settings: Job"):
        assert part in lines(findings, "pass")
    refused = list(examine_slurm(settings(gpus=5), required=True))
    assert "Requested node configuration is not available" in lines(refused, "fail")
    assert slurm.jobs() == {}


def test_a_node_reports_its_versions_locks_and_gpus(slurm: MiniSlurm, tmp_path: Path) -> None:
    findings = list(probe_node(tmp_path, tmp_path, settings(gpus=1, nodelist=slurm.names[1]), SECONDS))
    assert lines(findings, "fail") == ""
    for part in (f"a job ran on {slurm.names[1]}", "has the same versions", "respect each other's locks"):
        assert part in lines(findings, "pass")
    assert "it requested gpus = 1; Slurm gave it CUDA_VISIBLE_DEVICES=" in lines(findings, "warn")  # torch sees no such GPU
    assert [path.name for path in tmp_path.iterdir()] == ["jobs"]


def test_a_lock_that_a_node_and_the_command_can_both_hold_fails(
    slurm: MiniSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_probe, "COMMANDS_LOCK", "another.lock")  # so the node finds its own lock free
    findings = list(probe_node(tmp_path, tmp_path / "nowhere", settings(), SECONDS))
    assert "do not exclude each other (no effect: a lock held here)" in lines(findings, "fail")
    assert "does not see the data folder" in lines(findings, "fail")


@pytest.mark.parametrize(
    ("setup", "reason"),
    [("exit 3", "ended without a report (FAILED, exit 3)"), ("cd /; exit 41", "does not see")],
)
def test_a_job_that_cannot_report_says_why(
    slurm: MiniSlurm, tmp_path: Path, setup: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module_job, "POLL_SECONDS", 0.1)
    findings = list(probe_node(tmp_path, tmp_path, settings(setup=[setup]), SECONDS))
    assert reason in lines(findings, "fail")


def test_a_job_in_a_full_queue_is_cancelled_after_the_timeout(slurm: MiniSlurm, tmp_path: Path) -> None:
    blocking = slurm.run("sbatch", "-N2", "-c4", "-o", "/dev/null", "--wrap", "sleep 60")
    assert blocking.returncode == 0, blocking.stderr
    findings = list(probe_node(tmp_path, tmp_path, settings(), 2.0))
    assert "it waits in the queue (" in lines(findings, "warn")
    states = sorted(slurm.jobs().values())
    assert states[0] == "CANCELLED"
    assert len(states) == 2
