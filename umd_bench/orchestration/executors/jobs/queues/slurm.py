"""Slurm: jobs are submitted through submitit, their states read from squeue, sacct and scontrol.

squeue works on every cluster, sacct only on clusters with accounting. If neither lists a job, scontrol looks it up by its id.
Such a job counts as over only if scontrol says that the id is invalid.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import submitit

from umd_bench.config.errors import UserError
from umd_bench.config.launch.cluster import ClusterConfig
from umd_bench.orchestration.commands import output_of, run_command
from umd_bench.orchestration.executors.contract import EndReason
from umd_bench.orchestration.executors.jobs.queues.contract import JobStatus, Unreachable, placeholder
from umd_bench.orchestration.executors.jobs.queues.slurm_states import array_ids
from umd_bench.orchestration.executors.jobs.records import Batch

ANSWER_SECONDS = 60.0  # for one of Slurm's commands
MAX_LOOKUPS = 20  # jobs that one call of `status` looks up by id, since each takes a command of its own
MAX_IDS = 500  # on one command line
# Slurm's job states in which a job is over, and the reason that each gives. In any other state it is queued or running, or
# Slurm will run it again.
OVER: dict[str, EndReason | None] = {
    "COMPLETED": None,
    "FAILED": None,
    "CANCELLED": EndReason.CANCELLED,
    "TIMEOUT": EndReason.TIMEOUT,
    "DEADLINE": EndReason.TIMEOUT,
    "OUT_OF_MEMORY": EndReason.OOM,
    "PREEMPTED": EndReason.PREEMPTED,
    "NODE_FAIL": EndReason.NODE_FAIL,
    "BOOT_FAIL": EndReason.NODE_FAIL,
}
# Errors of sbatch after which the same job may be accepted later, such as a controller that did not answer.
_TRANSIENT = re.compile(
    r"unable to contact|connection refused|timed out|communication|try again|temporarily|limit", re.IGNORECASE
)
# Settings that have the same name in ClusterConfig, sbatch and submitit.
_SHARED_NAMES = ("partition", "account", "qos", "mem", "constraint", "exclude", "nodelist")
# Variables with the user's defaults, and the setting that each is for.
_DEFAULTS = {"SBATCH_ACCOUNT": "account", "SBATCH_PARTITION": "partition", "SBATCH_QOS": "qos"}


class SlurmQueue:
    """The cluster that this process's environment points Slurm's commands to."""

    name = "slurm"
    capacity: int | None = None

    def __init__(self, config: ClusterConfig, *, threads: int, status_seconds: float = 15.0) -> None:
        self._config, self._threads, self.status_seconds = config, threads, status_seconds
        self._limit: int | None = None

    def array_limit(self) -> int:
        """MaxArraySize of the cluster, which is one more than the highest index."""
        if self._limit is None:
            match = re.search(r"MaxArraySize\s*=\s*(\d+)", _output("scontrol", "show", "config") or "")
            self._limit = max(1, int(match.group(1)) if match else 1001)  # 1001 is Slurm's default
        return self._limit

    def check(self, devices: int = 1, *, seconds: float = ANSWER_SECONDS) -> str:
        """Have Slurm test the settings for a stage on ``devices`` devices, without submitting a job; returns its answer.

        Raises :class:`UserError` with Slurm's own message if it refuses them.
        """
        if shutil.which("sbatch") is None:
            raise UserError("--on slurm: there is no sbatch on this machine; run the command on a login node of the cluster")
        with clean_environment(self._config):
            tested = run_command("sbatch", "--test-only", *self.options(devices), "--wrap", "true", seconds=seconds)
        if tested is None:
            raise UserError(f"--on slurm: sbatch did not answer within {seconds:.0f} s; try again later")
        if tested.returncode:
            raise UserError(f"Slurm refuses jobs with these settings: {_error_line(tested.stderr)}")
        return _error_line(tested.stderr).removeprefix("sbatch: ")

    def options(self, devices: int = 1, **overrides: object) -> list[str]:
        """The requests of a job, as options of sbatch; ``overrides`` replace some of them."""
        options = [f"--{name.replace('_', '-')}={value}" for name, value in {**self._parameters(devices), **overrides}.items()]
        return options + [f"--{name}" if value is True else f"--{name}={value}" for name, value in _extra(self._config).items()]

    def _parameters(self, devices: int) -> dict[str, object]:
        """The requests of a job, by the names that sbatch and submitit share. Each of several devices gets one task."""
        config = self._config
        nodes = min(config.nodes, devices)
        if devices % nodes:
            raise UserError(f"nodes = {nodes} is not accepted: expected a divisor of resources.devices = {devices}")
        per_node = devices // nodes
        requested = {
            "time": config.time,
            "cpus_per_task": config.cpus or self._threads * (config.side_by_side if devices == 1 else 1),
            "gpus_per_node": (config.gpus if devices == 1 else per_node) if config.gpus else None,
            **({"nodes": nodes, "ntasks_per_node": per_node} if devices > 1 else {}),
            **{name: getattr(config, name) for name in _SHARED_NAMES},
        }
        return {name: value for name, value in requested.items() if value is not None}

    def submit(self, batch: Batch, folder: Path, python: str, *, after: str | None, avoid: Iterable[str]) -> list[str]:
        """Call sbatch once; several tasks are submitted as an array."""
        parameters = self._parameters(batch.devices)
        if exclude := ",".join([*filter(None, [self._config.exclude]), *avoid]):
            parameters["exclude"] = exclude
        additional: dict[str, object] = {**_extra(self._config), "requeue": True, "chdir": batch.root}
        if after is not None:
            parameters["dependency"] = f"afterok:{after}"
            additional["kill-on-invalid-dep"] = "yes"
        if "mem" in parameters:  # submitit would read a number as gigabytes
            additional["mem"] = parameters.pop("mem")
        with clean_environment(self._config):
            executor = submitit.SlurmExecutor(folder, python=python)
            executor.update_parameters(
                **parameters,
                job_name=batch.name,
                comment=",".join(batch.tasks[0][:4]),
                array_parallelism=self._config.max_running,
                wckey=None,
                signal_delay_s=self._config.signal_seconds,
                additional_parameters=additional,
                setup=list(self._config.setup),
                srun_args=["--kill-on-bad-exit=1"] if batch.devices > 1 else [],
            )
            try:
                count = len(batch.tasks)
                jobs = [executor.submit(placeholder)] if count == 1 else executor.map_array(placeholder, range(count))
            except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError, OSError) as error:
                if _TRANSIENT.search(str(error)):
                    raise Unreachable(_error_line(str(error))) from None
                raise UserError(f"Slurm refuses the jobs: {_error_line(str(error))}") from None
        return [job.job_id for job in jobs]

    def find(self, batch: Batch, folder: Path) -> list[str] | None:
        """Look for jobs with the batch's name, which is unique. An empty answer counts only if the controller is up."""
        lines = _output("squeue", "--noheader", "--states=all", f"--name={batch.name}", "--format=%A|%F|%K")
        if lines is None:
            return None
        jobs = [line.split("|") for line in lines.splitlines() if line]
        if not jobs:
            ping = _output("scontrol", "ping")
            return [] if ping is not None and " UP" in ping else None
        job, array, _ = jobs[0]
        return array_ids(array, len(batch.tasks)) if len(batch.tasks) > 1 else [job]

    def status(self, ids: Sequence[str]) -> dict[str, JobStatus]:
        """The state of each job in squeue, or in sacct if squeue has forgotten it; the rest are looked up in scontrol."""
        lines = _output("squeue", "--noheader", "--array", "--states=all", f"--user={os.getuid()}", "--format=%i|%T|%N")
        if lines is None:
            return {}
        wanted = set(ids)
        listed = dict(_parse(lines))
        # If an array is cancelled before any of its tasks begins, squeue lists it by the array's id alone.
        found = {name: listed.get(name) or listed.get(name.partition("_")[0]) for name in wanted}
        known = {name: status for name, status in found.items() if status is not None}
        forgotten = [name for name in ids if name not in known]
        for some in _in_parts(forgotten):
            lines = _output("sacct", "-X", "-n", "-P", "-j", ",".join(some), "-o", "JobID,State,NodeList")
            known |= {name: status for name, status in _parse(lines or "") if name in wanted and name not in known}
        for name in [name for name in forgotten if name not in known][:MAX_LOOKUPS]:
            if _is_invalid(name):
                known[name] = JobStatus(over=True, state="no longer known to Slurm")
        return known

    def cancel(self, ids: Sequence[str], *, pending_only: bool = False) -> None:
        """Call scancel, which sends running jobs SIGTERM, and SIGKILL after the cluster's KillWait."""
        for some in _in_parts(ids):
            _output("scancel", *(["--state=PENDING"] if pending_only else []), *some)


def _output(*command: str) -> str | None:
    """The output of one of Slurm's commands, or None if it failed or did not answer."""
    return output_of(*command, seconds=ANSWER_SECONDS)


def _is_invalid(name: str) -> bool:
    """Whether Slurm answers that it knows no job with this id."""
    shown = run_command("scontrol", "show", "job", name, seconds=ANSWER_SECONDS)
    return shown is not None and shown.returncode != 0 and "Invalid job id" in shown.stderr


def _in_parts(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """The ids in parts that fit on a command line."""
    return (ids[start : start + MAX_IDS] for start in range(0, len(ids), MAX_IDS))


def _parse(lines: str) -> Iterator[tuple[str, JobStatus]]:
    """Job ids and their states from lines ``id|state|nodes``; sacct may write a state as ``CANCELLED by 1000``."""
    for line in lines.splitlines():
        parts = line.strip().split("|")
        if len(parts) != 3 or not parts[1]:
            continue
        state = parts[1].split()[0]
        yield (
            parts[0],
            JobStatus(over=state in OVER, running=state == "RUNNING", reason=OVER.get(state), state=state, node=parts[2]),
        )


def _extra(config: ClusterConfig) -> dict[str, object]:
    pairs = [line.removeprefix("--").partition("=") for line in config.extra]
    return {name: value if equals else True for name, equals, value in pairs}


def _error_line(text: str) -> str:
    """The line of sbatch's errors that gives the reason."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("sbatch: error", "allocation failure", "sbatch: fatal"))]
    return (errors or lines or ["it gives no reason"])[-1].removeprefix("sbatch: error: ")


@contextlib.contextmanager
def clean_environment(config: ClusterConfig) -> Iterator[None]:
    """Hide the environment variables that would add to or replace a job's own options.

    An enclosing allocation and the user's defaults set such variables. The user's account, partition and QOS stay if ``config``
    names none.
    """
    visible = {"SLURM_CONF", *(name for name, field in _DEFAULTS.items() if getattr(config, field) is None)}
    hidden = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("SLURM_", "SBATCH_", "SRUN_", "SUBMITIT_")) and name not in visible
    }
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)
