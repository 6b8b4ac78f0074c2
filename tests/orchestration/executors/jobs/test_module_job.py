"""A small job is submitted with the cluster's settings, waited for until a timeout, and cancelled at the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from umd_bench.config.errors import UserError
from umd_bench.config.launch.cluster import ClusterConfig
from umd_bench.orchestration.executors.jobs import module_job
from umd_bench.orchestration.executors.jobs.module_job import ModuleJob, NoAnswerError


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of scripts in place of Slurm's commands: sbatch prints the job id 7, and squeue shows a failed job."""
    folder = tmp_path / "bin"
    folder.mkdir()
    write(folder, "sbatch", "echo 7")
    write(folder, "squeue", "echo '7|FAILED||'")
    write(folder, "scancel", f"echo $* > {tmp_path}/cancelled")
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setattr(module_job, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(module_job, "freeze_code", lambda folder: folder)
    return folder


def write(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def job_in(folder: Path) -> ModuleJob:
    config = ClusterConfig.model_validate({"time": "5m", "setup": ["module load python"]})
    return ModuleJob(folder, folder / "code", config, module="some.module", threads=2, minutes=60)


def test_a_job_is_waited_for_and_cancelled_at_the_end(slurm: Path, tmp_path: Path) -> None:
    with job_in(tmp_path) as job:
        script = (tmp_path / "script.sh").read_text()
        assert "module load python\n" in script
        assert "OMP_NUM_THREADS=2 MKL_NUM_THREADS=2" in script
        assert job.wait(lambda: True, 10) == "reported"
        assert job.wait(lambda: False, 0) == "timeout"
        assert job.last_output() == ""
        (tmp_path / module_job.OUTPUT).write_text("loading\nno such module\n")
        assert job.last_output() == "no such module"
        assert not (tmp_path / "cancelled").exists()
    assert (tmp_path / "cancelled").read_text() == "7\n"


def test_a_refused_job_and_an_sbatch_without_an_answer_are_errors(
    slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(slurm, "sbatch", "echo 'sbatch: error: Invalid qos' >&2; exit 1")
    with pytest.raises(UserError, match="Invalid qos"), job_in(tmp_path):
        pass
    write(slurm, "sbatch", "exec sleep 60")
    monkeypatch.setattr(module_job, "ANSWER_SECONDS", 0.2)
    with pytest.raises(NoAnswerError, match="did not answer"), job_in(tmp_path):
        pass
    assert not (tmp_path / "cancelled").exists()
