"""A tiny job that shows what a node is like before a sweep is given to it: submitted, waited for within a time, taken back.

It runs as stages do: the frozen copy of the package, the interpreter of this command, the settings and ``setup`` lines of the
cluster; its folder is one in the results folder.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock

from umd_bench.config.launch.cluster import ClusterConfig
from umd_bench.orchestration.commands import output_of, run_command
from umd_bench.orchestration.doctor.finding import Finding
from umd_bench.orchestration.doctor.folders import LOW_DISK_BYTES
from umd_bench.orchestration.doctor.node_main import ASKED, HELD, OURS, REPORT, SEEN, TAKEN, versions
from umd_bench.orchestration.executors.frozen_code import code_folder, freeze_code
from umd_bench.orchestration.executors.jobs.slurm import SlurmQueue, clean_environment
from umd_bench.orchestration.executors.jobs.slurm_states import describe_state
from umd_bench.store.files import read_json, write_json

JOB_MINUTES = 5
ANSWER_SECONDS = 20.0
LOOK_SECONDS = 0.5
OVER_LOOKS = 10  # how often a job that is over is looked for its report: a shared file system may be late
NO_FOLDER, NO_PYTHON = 41, 42  # exit codes of the job's script
# The output goes into the folder itself: one that a node does not have would end the job before a word.
SCRIPT = """\
#!/bin/sh
cd {folder} || exit {no_folder}
exec > output 2>&1
{setup}
{python} -c pass || exit {no_python}
exec env PYTHONPATH={code} OMP_NUM_THREADS={threads} MKL_NUM_THREADS={threads} {python} -P -m {module} {folder}
"""


def probe_node(results: Path, data_root: Path, config: ClusterConfig, seconds: float) -> Iterator[Finding]:
    """Submit the job, and say what it reports; gives up, and takes the job back, after ``seconds``."""
    if shutil.which("sbatch") is None:
        yield Finding("fail", "no sbatch: no node can be asked", "leave out --probe-node")
        return
    root = results.resolve()
    with tempfile.TemporaryDirectory(prefix="doctor-", dir=root, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / TAKEN).touch()
        write_json(folder / ASKED, {"folders": [str(root), str(data_root.resolve())]})
        with filelock.FileLock(folder / HELD, is_singleton=False):
            job = submit_script(folder, code_folder(root), config, module="umd_bench.orchestration.doctor.node_main")
            if isinstance(job, Finding):
                yield job
                return
            try:
                found = _wait(folder, job, config, seconds)
                if isinstance(found, Finding):
                    yield found
                    return
                report, took = found
                theirs_binds = _excluded(folder)
                (folder / SEEN).touch()
                yield from _told(report, took, theirs_binds, root, data_root, config)
            finally:
                run_command("scancel", job, seconds=ANSWER_SECONDS)


def submit_script(
    folder: Path, code: Path, config: ClusterConfig, *, module: str, threads: int = 1, minutes: int = JOB_MINUTES
) -> str | Finding:
    """Submit one job that runs ``module`` on the folder as stages are run; its id, or why there is none."""
    script = folder / "script.sh"
    fields = {"folder": shlex.quote(str(folder)), "python": shlex.quote(sys.executable), "setup": "\n".join(config.setup)}
    fields["code"] = shlex.quote(os.pathsep.join(filter(None, [str(freeze_code(code)), os.environ.get("PYTHONPATH", "")])))
    script.write_text(SCRIPT.format(**fields, no_folder=NO_FOLDER, no_python=NO_PYTHON, module=module, threads=threads))
    options = SlurmQueue(config, threads=threads).options(time=min(minutes, config.time))
    ours = ["--parsable", "--job-name=umd-doctor", "--output=/dev/null", "--no-requeue", "--chdir=/"]
    with clean_environment(config):
        said = run_command("sbatch", *options, *ours, str(script), seconds=ANSWER_SECONDS)
    if said is None:
        return Finding("warn", f"sbatch did not answer within {ANSWER_SECONDS:.0f} s: no node was asked", "try again later")
    if said.returncode:
        why = "".join(said.stderr.strip().splitlines()[-1:])
        return Finding("fail", f"Slurm takes no job to ask a node ({why})", "give other settings with --slurm KEY=VALUE")
    return said.stdout.strip().partition(";")[0]


def _wait(folder: Path, job: str, config: ClusterConfig, seconds: float) -> tuple[dict[str, Any], float] | Finding:
    """The node's report and the seconds it took, or what became of the job instead."""
    queue, begun, over = SlurmQueue(config, threads=1), time.monotonic(), 0
    while over < OVER_LOOKS:
        report = read_json(folder / REPORT)
        if report is not None:
            return dict(report), time.monotonic() - begun
        if time.monotonic() - begun > seconds:
            why = describe_state(job, ANSWER_SECONDS) or "nobody says what became of it"
            remedy = "give it longer with --probe-seconds, or other settings"
            return Finding("warn", f"the job that asks a node has not reported within {seconds:.0f} s: it {why}", remedy)
        status = queue.status([job]).get(job)
        over += status is not None and status.over
        time.sleep(LOOK_SECONDS)
    return _ended(folder, job)


def _ended(folder: Path, job: str) -> Finding:
    """Why a job left no report."""
    said = output_of("scontrol", "show", "job", job, "--oneliner", seconds=ANSWER_SECONDS) or ""
    facts = dict(pair.partition("=")[::2] for pair in said.split())
    node, code = facts.get("BatchHost", "the node"), facts.get("ExitCode", "").partition(":")[0]
    try:
        last = "".join((folder / "output").read_text(errors="replace").strip().splitlines()[-1:])
    except OSError:
        last = ""
    if code == str(NO_FOLDER):
        return Finding("fail", f"{node} does not see {folder.parent}", "use a results folder that the nodes share")
    if code == str(NO_PYTHON):
        return Finding("fail", f"{node} cannot run {sys.executable} ({last})", "use an environment that the nodes share")
    text = f"a job on {node} ended without a report ({facts.get('JobState', 'state unknown')}, exit {code or '?'}"
    return Finding("fail", f"{text}{f': {last}' if last else ''})", "a stage would end so too; mend the environment there")


def _excluded(folder: Path) -> bool:
    """Whether the lock that the node holds keeps this process out."""
    try:
        filelock.FileLock(folder / OURS, is_singleton=False).acquire(blocking=False)
    except filelock.Timeout:
        return True
    return False


def _told(
    report: dict[str, Any], took: float, theirs_binds: bool, root: Path, data_root: Path, config: ClusterConfig
) -> Iterator[Finding]:
    node, here = report["node"] or report["host"], versions()
    yield Finding("pass", f"a job ran on {node} ({report['host']}) and reported after {took:.0f} s; it sees the results folder")
    other = {name: there for name, there in report["versions"].items() if there != here[name]}
    if other:
        told = ", ".join(f"{name} {there} (here {here[name]})" for name, there in sorted(other.items()))
        yield Finding("warn", f"{node} has other versions: {told}", "use one environment, in a folder that the nodes share")
    else:
        yield Finding("pass", f"{node} has the same versions: {', '.join(f'{n} {v}' for n, v in report['versions'].items())}")
    if report["excluded"] and theirs_binds and report["links"]:
        yield Finding("pass", f"a lock held here keeps {node} out and the other way round; a name taken here stays taken there")
    else:
        names = {"a lock held here": report["excluded"], "its lock": theirs_binds, "a name taken here": report["links"]}
        lost = ", ".join(name for name, kept in names.items() if not kept)
        text = f"between {node} and here there is no exclusion ({lost}): two jobs could work on one stage"
        yield Finding("fail", text, "have the folder mounted with locks, or use another one")
    if str(data_root.resolve()) in report["missing"]:
        yield Finding("fail", f"{node} does not see the data folder {data_root}", "give one that the nodes share")
    low = [f"{path} {free / 1e9:.1f} GB" for path, free in report["free"].items() if free < LOW_DISK_BYTES]
    if low:
        yield Finding("warn", f"little room on {node}: {', '.join(low)}", "free some, or give another folder")
    yield _devices(report, node, config)


def _devices(report: dict[str, Any], node: str, config: ClusterConfig) -> Finding:
    gpus, cores = report["gpus"], f"{report['cores']} cores"
    if gpus["error"]:
        return Finding("fail", f"torch cannot be imported on {node} ({gpus['error']})", "mend the environment there")
    names = ", ".join(gpus["names"]) or "no CUDA device"
    text = f"a job on {node} may use {cores} and {names}"
    if len(gpus["names"]) < config.gpus:
        told = f"; Slurm gave it CUDA_VISIBLE_DEVICES={gpus['visible']}" if gpus["visible"] else ""
        return Finding(
            "warn", f"{text}; it asked for {config.gpus}{told}", "a driver, or a torch without CUDA, may be the cause"
        )
    return Finding("pass", text)
