"""Job options on every verb that runs stages: impossible ones are refused in one sentence, and nothing is written."""

from __future__ import annotations

from pathlib import Path

import pytest
from orchestration.small import write_small

from umd_bench.cli import app
from umd_bench.config.errors import UserError
from umd_bench.config.launch.cluster import ClusterConfig
from umd_bench.config.launch.ray import RayConfig
from umd_bench.data.packs.manifest import data_root
from umd_bench.orchestration import launch
from umd_bench.orchestration.executors.registry import check_settings
from umd_bench.store import list_sweeps

SEARCH = """\
name: small
question: Which ratio is best?
tier: digits
trial: {method: umd, stages: {pretrain: {nimg: 640, batch: 64}, probe: {shots: [5], draws: 2}}}
search:
  trials: 2
  objectives: {probe.acc_5shot: maximise}
  space: {stages.pretrain.corruption.mask_ratio: {low: 0.1, high: 0.5}}
"""
REFUSING = "#!/bin/sh\necho 'sbatch: error: invalid partition specified: nowhere' >&2\nexit 1\n"


@pytest.mark.parametrize(
    "verb", [["sweep", "small.yaml"], ["train", "umd", "--tier", "digits"], ["evaluate", "0123456789abcdef"]]
)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--on", "inline", "--slurm", "time=5m"], "--slurm is for jobs: expected --on slurm"),
        (["--on", "inline", "--detach"], "--detach leaves the work to a cluster: expected --on slurm"),
        (["--on", "slurm", "--cluster", "nowhere"], "there is no clusters/nowhere.yaml"),
        (["--on", "slurm", "--slurm", "time=soon"], "expected a duration"),
        (["--on", "slrum"], "expected one of inline, ray, slurm"),
    ],
)
def test_impossible_job_options_are_refused_before_anything_is_written(
    verb: list[str], options: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_small(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        app([*verb, *options], standalone_mode=False)
    assert [path.name for path in tmp_path.iterdir()] == ["small.yaml"]


@pytest.mark.parametrize("verb", ["sweep small.yaml", "sweep search.yaml", "train umd --tier digits"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--on slurm --slurm partition=nowhere", "Slurm refuses jobs with these settings: invalid partition"),
        ("--on slurm --slurm partition=nowhere --detach", "invalid partition|--detach is not accepted: a search"),
        ("--on ray --ray-address 127.0.0.1:9", "nothing answers there"),
    ],
)
def test_options_that_only_the_cluster_can_refuse_are_refused_before_anything_is_written(
    verb: str, options: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _sbatch(tmp_path, monkeypatch, REFUSING)
    work = tmp_path / "work"
    work.mkdir()
    write_small(work)
    (work / "search.yaml").write_text(SEARCH)
    monkeypatch.chdir(work)
    with pytest.raises(UserError, match=message):
        app([*verb.split(), *options.split(), "--data-root", str(work / "data")], standalone_mode=False)
    assert sorted(path.name for path in work.iterdir()) == ["search.yaml", "small.yaml"]


def test_a_sweep_whose_executor_does_not_start_leaves_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise UserError("no node of this Ray has room for a stage")

    write_small(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch, "start_executor", refuse)
    with pytest.raises(UserError, match="no node of this Ray has room"):
        app(["sweep", "small.yaml", "--gpus-per-stage", "1", "--data-root", str(data_root())], standalone_mode=False)
    assert list_sweeps(tmp_path / "results") == []
    assert not (tmp_path / "results" / "sweeps").exists()


def test_nodes_must_divide_the_number_of_devices_of_every_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _sbatch(tmp_path, monkeypatch, "#!/bin/sh\nexit 0\n")
    for devices, nodes in (((1, 4, 6), 2), ((1, 2), 4)):
        check_settings("slurm", ClusterConfig(nodes=nodes), RayConfig(), threads=1, devices=devices)
    with pytest.raises(UserError, match=r"nodes = 3 is not accepted: expected a divisor of resources\.devices = 4"):
        check_settings("slurm", ClusterConfig(nodes=3), RayConfig(), threads=1, devices=(1, 4, 6))


def _sbatch(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a program ``sbatch`` that runs ``script`` first on the PATH."""
    program = folder / "bin" / "sbatch"
    program.parent.mkdir()
    program.write_text(script)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
