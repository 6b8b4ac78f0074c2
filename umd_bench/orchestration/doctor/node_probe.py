"""Submits a small job that reports the facts of a node (node_main), and turns the report into findings.

The job uses a temporary folder in the results folder, which the node must share.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock

from umd_bench.config.errors import UserError
from umd_bench.config.launch.cluster import ClusterConfig
from umd_bench.orchestration.commands import output_of
from umd_bench.orchestration.doctor.finding import Finding
from umd_bench.orchestration.doctor.folders import LOW_DISK_BYTES
from umd_bench.orchestration.doctor.node_main import (
    COMMANDS_LOCK,
    LOCK_TESTED,
    NODES_LOCK,
    REPORT,
    REQUEST,
    TAKEN_NAME,
    is_locked,
    versions,
)
from umd_bench.orchestration.executors.frozen_code import code_folder
from umd_bench.orchestration.executors.jobs.module_job import NO_FOLDER, NO_PYTHON, ModuleJob, NoAnswerError
from umd_bench.orchestration.executors.jobs.queues.slurm_states import describe_state
from umd_bench.store.files import read_json, write_json

JOB_MINUTES = 5
ANSWER_SECONDS = 20.0
_MODULE = "umd_bench.orchestration.doctor.node_main"


def probe_node(results: Path, data_root: Path, config: ClusterConfig, seconds: float) -> Iterator[Finding]:
    """Submit the job and report on its node; after ``seconds`` without a report, cancel the job and say why it waits."""
    if shutil.which("sbatch") is None:
        yield Finding("fail", "there is no sbatch on this machine, so no node can be probed", "leave out --probe-node")
        return
    root = results.resolve()
    with tempfile.TemporaryDirectory(prefix="doctor-", dir=root, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / TAKEN_NAME).touch()
        write_json(folder / REQUEST, {"folders": [str(root), str(data_root.resolve())]})
        try:
            with (
                filelock.FileLock(folder / COMMANDS_LOCK, is_singleton=False),
                ModuleJob(folder, code_folder(root), config, module=_MODULE, minutes=JOB_MINUTES) as job,
            ):
                yield from _wait_and_report(folder, job, root, data_root, config, seconds)
        except NoAnswerError as error:
            yield Finding("warn", f"{error}, so no node was probed", "try again later")
        except UserError as error:
            yield Finding("fail", f"no node was probed: {error}", "give other settings with --slurm KEY=VALUE")


def _wait_and_report(
    folder: Path, job: ModuleJob, root: Path, data_root: Path, config: ClusterConfig, seconds: float
) -> Iterator[Finding]:
    begun = time.monotonic()
    outcome = job.wait(lambda: read_json(folder / REPORT) is not None, seconds)
    if outcome == "timeout":
        why = describe_state(job.id, ANSWER_SECONDS) or "is in an unknown state"
        text = f"the job that probes a node has not reported within {seconds:.0f} s: it {why}"
        yield Finding("warn", text, "give it more time with --probe-seconds, or give other settings")
        return
    if outcome == "ended":
        yield _no_report(folder, job)
        return
    took = time.monotonic() - begun
    report = dict(read_json(folder / REPORT) or {})
    nodes_lock_holds = is_locked(folder / NODES_LOCK)
    (folder / LOCK_TESTED).touch()
    yield from _report_findings(report, took, nodes_lock_holds, data_root, config)


def _no_report(folder: Path, job: ModuleJob) -> Finding:
    """Why the job ended without a report."""
    shown = output_of("scontrol", "show", "job", job.id, "--oneliner", seconds=ANSWER_SECONDS) or ""
    facts = dict(pair.partition("=")[::2] for pair in shown.split())
    node, code = facts.get("BatchHost", "the node"), facts.get("ExitCode", "").partition(":")[0]
    last = job.last_output()
    if code == str(NO_FOLDER):
        return Finding("fail", f"{node} does not see {folder.parent}", "use a results folder that the nodes share")
    if code == str(NO_PYTHON):
        return Finding("fail", f"{node} cannot run {sys.executable} ({last})", "use an environment that the nodes share")
    text = f"a job on {node} ended without a report ({facts.get('JobState', 'state unknown')}, exit {code or '?'}"
    return Finding("fail", f"{text}{f': {last}' if last else ''})", "stages would fail there too: repair the environment")


def _report_findings(
    report: dict[str, Any], took: float, nodes_lock_holds: bool, data_root: Path, config: ClusterConfig
) -> Iterator[Finding]:
    node, here = report["node"] or report["host"], versions()
    yield Finding("pass", f"a job ran on {node} ({report['host']}) and reported after {took:.0f} s; it sees the results folder")
    different = {name: version for name, version in report["versions"].items() if version != here[name]}
    if different:
        listed = ", ".join(f"{name} {version} (here {here[name]})" for name, version in sorted(different.items()))
        yield Finding("warn", f"{node} has other versions: {listed}", "use one environment, in a folder that the nodes share")
    else:
        yield Finding("pass", f"{node} has the same versions: {', '.join(f'{n} {v}' for n, v in report['versions'].items())}")
    holds = {
        "a lock held here": report["excluded"],
        "a lock held on the node": nodes_lock_holds,
        "a file name taken here": report["links"],
    }
    if all(holds.values()):
        yield Finding("pass", f"{node} and this machine respect each other's locks, and {node} replaces no file made here")
    else:
        broken = ", ".join(name for name, held in holds.items() if not held)
        text = f"{node} and this machine do not exclude each other (no effect: {broken}), so two jobs could work on one stage"
        yield Finding("fail", text, "have the folder mounted with locks, or use another one")
    if str(data_root.resolve()) in report["missing"]:
        yield Finding("fail", f"{node} does not see the data folder {data_root}", "use a data folder that the nodes share")
    low = [f"{path} {free / 1e9:.1f} GB" for path, free in report["free"].items() if free < LOW_DISK_BYTES]
    if low:
        yield Finding("warn", f"little space is left on {node}: {', '.join(low)}", "free some, or use another folder")
    yield _devices(report, node, config)


def _devices(report: dict[str, Any], node: str, config: ClusterConfig) -> Finding:
    gpus = report["gpus"]
    if gpus["error"]:
        return Finding("fail", f"torch cannot be imported on {node} ({gpus['error']})", "repair the environment there")
    names = ", ".join(gpus["names"]) or "no CUDA device"
    text = f"a job on {node} may use {report['cores']} cores and {names}"
    if len(gpus["names"]) >= config.gpus:
        return Finding("pass", text)
    assigned = f"; Slurm gave it CUDA_VISIBLE_DEVICES={gpus['visible']}" if gpus["visible"] else ""
    remedy = "check the driver, and whether torch was installed with CUDA"
    return Finding("warn", f"{text}; it requested gpus = {config.gpus}{assigned}", remedy)
