"""The check of Slurm: every problem has a remedy and fails only if Slurm is required; silent accounting is only a warning."""

from __future__ import annotations

from pathlib import Path

import pytest

from umd_bench.config.launch.cluster import ClusterConfig
from umd_bench.orchestration.doctor import slurm as slurm_check
from umd_bench.orchestration.doctor.finding import Finding
from umd_bench.orchestration.doctor.slurm import examine_slurm

SETTINGS = {
    "SLURM_VERSION": "23.11.4", "AccountingStorageType": "accounting_storage/slurmdbd", "MaxArraySize": "1001",
    "MaxJobCount": "10000", "MinJobAge": "300 sec", "JobRequeue": "1", "KillWait": "30 sec", "PreemptType": "preempt/none",
    "SelectType": "select/cons_tres",
}  # fmt: skip

PARTITION = "PartitionName=gpu Default=YES MaxTime=1-00:00:00 TotalNodes=4 State=UP PreemptMode=OFF GraceTime=0"

ASSOCIATION = "lab||normal,long|10|200||"

QOS = "normal|5|||\nlong||40||\nother|1|1|1|1"


class FakeSlurm:
    """Slurm's commands as shell scripts whose output a test sets."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.settings, self.partition, self.test_only = dict(SETTINGS), PARTITION, "exit 0"
        for name in ("sbatch", "squeue", "scancel", "sacct"):
            self.set_command(name, "exit 0")
        self.set_command("sacctmgr", f"case $3 in assoc) echo '{ASSOCIATION}';; qos) echo '{QOS}';; esac")
        self.set_config()

    def set_command(self, name: str, script: str) -> None:
        (self._folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (self._folder / name).chmod(0o755)

    def set_config(self, **settings: str) -> None:
        lines = "\n".join(f"{name} = {value}" for name, value in {**self.settings, **settings}.items())
        self.set_command("scontrol", f"case $2 in config) echo '{lines}';; partition) echo '{self.partition}';; esac")


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return FakeSlurm(folder)


def slurm_findings(required: bool = True, **cluster: object) -> list[Finding]:
    return list(
        examine_slurm(ClusterConfig.model_validate({"max_running": 4, "max_submitted": 30, **cluster}), required=required)
    )


def levels(findings: list[Finding]) -> set[str]:
    return {finding.level for finding in findings}


def finding_with(findings: list[Finding], text: str) -> Finding:
    [one] = [finding for finding in findings if text in finding.text]
    return one


def test_a_suitable_slurm_passes_every_check(slurm: FakeSlurm) -> None:
    findings = slurm_findings()
    assert levels(findings) == {"pass"}, [finding.text for finding in findings if finding.level != "pass"]
    assert "running 5, submitted 40" in finding_with(findings, "job limits of your account").text


def test_a_machine_without_slurm_fails_only_if_slurm_is_required(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [finding.level for finding in slurm_findings(required=False)] == ["pass"]
    assert [finding.level for finding in slurm_findings(required=True)] == ["fail"]


@pytest.mark.parametrize(("required", "level"), [(True, "fail"), (False, "warn")])
def test_a_controller_that_does_not_answer_is_reported_after_a_timeout(
    slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch, required: bool, level: str
) -> None:
    slurm.set_command("scontrol", "exec sleep 60")
    for name in ("ANSWER_SECONDS", "NOT_REQUIRED_SECONDS"):
        monkeypatch.setattr(slurm_check, name, 0.2)
    [finding] = slurm_findings(required)
    assert finding.level == level
    assert "cannot be reached (no answer" in finding.text


@pytest.mark.parametrize(
    ("settings", "partition", "cluster", "text", "remedy"),
    [
        ({"AccountingStorageType": "accounting_storage/none"}, {}, {}, "300 s (MinJobAge)", "counts as died"),
        ({"MaxJobCount": "20"}, {}, {}, "20 jobs (MaxJobCount)", "max_submitted=10"),
        ({}, {}, {"max_running": 9}, "running 5", "--slurm max_running=5"),
        ({}, {}, {"account": "physics"}, "no association for account physics", "lab"),
        ({"SelectType": "select/linear"}, {}, {}, "whole node", "pack=N"),
        ({"PreemptType": "preempt/qos"}, {"PreemptMode=OFF": "PreemptMode=CANCEL"}, {}, "not requeued", "--detach"),
    ],
)
def test_a_setting_that_needs_attention_warns_with_its_remedy(
    slurm: FakeSlurm, settings: dict[str, str], partition: dict[str, str], cluster: dict[str, object], text: str, remedy: str
) -> None:
    for old, new in partition.items():
        slurm.partition = slurm.partition.replace(old, new)
    slurm.set_config(**settings)
    finding = finding_with(slurm_findings(**cluster), text)
    assert finding.level == "warn"
    assert remedy in finding.remedy


@pytest.mark.parametrize(
    ("partition", "cluster", "text", "remedy"),
    [
        ({}, {"time": "2d"}, "would wait forever", "--slurm time=1440m"),
        ({"State=UP": "State=DRAIN"}, {}, "drain", "another partition"),
        ({}, {"partition": "cpu"}, "no partition cpu", "one of: gpu"),
        ({"Default=YES": "Default=NO"}, {}, "no default partition", "one of: gpu"),
    ],
)
def test_a_partition_in_which_jobs_would_wait_forever_fails(
    slurm: FakeSlurm, partition: dict[str, str], cluster: dict[str, object], text: str, remedy: str
) -> None:
    for old, new in partition.items():
        slurm.partition = slurm.partition.replace(old, new)
    slurm.set_config()
    finding = finding_with(slurm_findings(**cluster), text)
    assert finding.level == "fail"
    assert remedy in finding.remedy
    assert finding_with(slurm_findings(required=False, **cluster), text).level == "warn"


def test_settings_that_slurm_refuses_fail_with_slurms_message(slurm: FakeSlurm) -> None:
    slurm.set_command("sbatch", "echo 'sbatch: error: Batch job submission failed: Invalid qos specification' >&2; exit 1")
    assert finding_with(slurm_findings(qos="best"), "Invalid qos specification").level == "fail"


def test_accounting_that_does_not_answer_only_warns(slurm: FakeSlurm) -> None:
    slurm.set_command("sacct", "exit 1")
    slurm.set_command("sacctmgr", "exit 1")
    findings = slurm_findings()
    assert "fail" not in levels(findings)
    assert finding_with(findings, "sacct does not answer").level == "warn"
    assert finding_with(findings, "sacctmgr does not answer").level == "warn"
