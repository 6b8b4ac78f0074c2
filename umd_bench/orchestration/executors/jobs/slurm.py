"""Slurm: submitted through submitit, asked through squeue, sacct and scontrol.

squeue answers on every cluster; sacct only where there is accounting. Of a job that neither lists, scontrol is asked by its id:
only its word that there is no such job counts as one.
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
from umd_bench.orchestration.commands import answer, output
from umd_bench.orchestration.executors.contract import EndReason
from umd_bench.orchestration.executors.jobs.local import nothing
from umd_bench.orchestration.executors.jobs.queue_contract import JobStatus, Unreachable
from umd_bench.orchestration.executors.jobs.records import Batch

ANSWER_SECONDS = 60.0
MOST_QUESTIONS = 20  # jobs asked for by id in one look
MOST_IDS = 500  # on one command line
# What ends a job, in Slurm's words; any other word means that it is not over, or will be run again.
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
_SILENT = re.compile(r"unable to contact|connection refused|timed out|communication|try again|temporarily|limit", re.IGNORECASE)
_SAME_NAMES = ("partition", "account", "qos", "mem", "constraint", "exclude", "nodelist")
_DEFAULTS = {"SBATCH_ACCOUNT": "account", "SBATCH_PARTITION": "partition", "SBATCH_QOS": "qos"}


class SlurmQueue:
    """The cluster that the command's environment talks to."""

    name = "slurm"
    capacity: int | None = None

    def __init__(self, config: ClusterConfig, *, threads: int, status_seconds: float = 15.0) -> None:
        self._config, self._threads, self.status_seconds = config, threads, status_seconds
        self._limit: int | None = None

    def array_limit(self) -> int:
        """MaxArraySize is one more than the highest index."""
        if self._limit is None:
            found = re.search(r"MaxArraySize\s*=\s*(\d+)", self._ask("scontrol", "show", "config") or "")
            self._limit = max(1, int(found.group(1)) if found else 1001)
        return self._limit

    def check(self, devices: int = 1, *, seconds: float = ANSWER_SECONDS) -> str:
        """Have Slurm judge the settings, for a stage on ``devices``, and submit nothing: what it says.

        Raises :class:`UserError` with its own words.
        """
        if shutil.which("sbatch") is None:
            raise UserError("--on slurm needs Slurm's commands, and there is no sbatch on this machine")
        with clean_environment(self._config):
            said = answer("sbatch", "--test-only", *self.options(devices), "--wrap", "true", seconds=seconds)
        if said is None:
            raise UserError(f"--on slurm: sbatch did not answer within {seconds:.0f} s")
        if said.returncode:
            raise UserError(f"Slurm refuses jobs with these settings: {_reason(said.stderr)}")
        return _reason(said.stderr).removeprefix("sbatch: ")

    def options(self, devices: int = 1, **instead: object) -> list[str]:
        """What jobs ask for, as options of sbatch; ``instead`` are others for some of them."""
        options = [f"--{name.replace('_', '-')}={value}" for name, value in {**self._parameters(devices), **instead}.items()]
        return options + [f"--{name}" if value is True else f"--{name}={value}" for name, value in _extra(self._config).items()]

    def _parameters(self, devices: int) -> dict[str, object]:
        """What both sbatch and submitit call by the same names. A stage on several devices is one task a device."""
        config = self._config
        nodes = min(config.nodes, devices)
        if devices % nodes:
            raise UserError(f"nodes = {nodes} is not accepted: expected a divisor of resources.devices = {devices}")
        each = devices // nodes
        asked = {
            "time": config.time,
            "cpus_per_task": config.cpus or self._threads * (config.side_by_side if devices == 1 else 1),
            "gpus_per_node": (config.gpus if devices == 1 else each) if config.gpus else None,
            **({"nodes": nodes, "ntasks_per_node": each} if devices > 1 else {}),
            **{name: getattr(config, name) for name in _SAME_NAMES},
        }
        return {name: value for name, value in asked.items() if value is not None}

    def submit(self, batch: Batch, folder: Path, python: str, *, after: str | None, avoid: Iterable[str]) -> list[str]:
        """One sbatch for the batch, an array where it has several tasks."""
        parameters = self._parameters(batch.devices)
        if exclude := ",".join([*filter(None, [self._config.exclude]), *avoid]):
            parameters["exclude"] = exclude
        additional: dict[str, object] = {**_extra(self._config), "requeue": True, "chdir": batch.root}
        if after is not None:
            parameters["dependency"] = f"afterok:{after}"
        if "mem" in parameters:  # which submitit would take for a number of gigabytes
            additional["mem"] = parameters.pop("mem")
        if after is not None:
            additional["kill-on-invalid-dep"] = "yes"
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
                jobs = [executor.submit(nothing)] if count == 1 else executor.map_array(_nothing_of, range(count))
            except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError, OSError) as error:
                if _SILENT.search(str(error)):
                    raise Unreachable(_reason(str(error))) from None
                raise UserError(f"Slurm does not take the jobs: {_reason(str(error))}") from None
        return [job.job_id for job in jobs]

    def find(self, batch: Batch, folder: Path) -> list[str] | None:
        """By the job's name, which no other batch has; an empty answer counts only from a Slurm that is up."""
        lines = self._ask("squeue", "--noheader", "--states=all", f"--name={batch.name}", "--format=%A|%F|%K")
        if lines is None:
            return None
        found = [line.split("|") for line in lines.splitlines() if line]
        if not found:
            ping = self._ask("scontrol", "ping")
            return [] if ping is not None and " UP" in ping else None
        array = found[0][1] if len(batch.tasks) > 1 else found[0][0]
        return [array] if len(batch.tasks) == 1 else [f"{array}_{i}" for i in range(len(batch.tasks))]

    def status(self, ids: Sequence[str]) -> dict[str, JobStatus]:
        """What squeue says of our jobs, sacct of those it has forgotten, and scontrol of those that neither knows."""
        lines = self._ask("squeue", "--noheader", "--array", "--states=all", f"--user={os.getuid()}", "--format=%i|%T|%N")
        if lines is None:
            return {}
        wanted = set(ids)
        listed = dict(_parse(lines))
        # an array that was taken back before any of its tasks began is listed by its own number alone
        found = {name: listed.get(name) or listed.get(name.partition("_")[0]) for name in wanted}
        looks = {name: look for name, look in found.items() if look is not None}
        forgotten = [name for name in ids if name not in looks]
        for start in range(0, len(forgotten), MOST_IDS):
            names = ",".join(forgotten[start : start + MOST_IDS])
            lines = self._ask("sacct", "-X", "-n", "-P", "-j", names, "-o", "JobID,State,NodeList")
            looks |= {name: look for name, look in _parse(lines or "") if name in wanted and name not in looks}
        for name in [name for name in forgotten if name not in looks][:MOST_QUESTIONS]:
            if self._denied(name):
                looks[name] = JobStatus(over=True, state="no longer known to Slurm")
        return looks

    def cancel(self, ids: Sequence[str], *, pending_only: bool = False) -> None:
        """scancel, which warns what runs by SIGTERM and ends it after KillWait seconds."""
        for start in range(0, len(ids), MOST_IDS):
            self._ask("scancel", *(["--state=PENDING"] if pending_only else []), *ids[start : start + MOST_IDS])

    def _denied(self, name: str) -> bool:
        said = answer("scontrol", "show", "job", name, seconds=ANSWER_SECONDS)
        return said is not None and said.returncode != 0 and "Invalid job id" in said.stderr

    def _ask(self, *command: str) -> str | None:
        """The answer, or None where there is none to be trusted."""
        return output(*command, seconds=ANSWER_SECONDS)


def _parse(lines: str) -> Iterator[tuple[str, JobStatus]]:
    """``id|state|nodes`` a line; sacct writes ``CANCELLED by 1000``."""
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


def _reason(text: str) -> str:
    """The line of an error in which Slurm says why."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = [line for line in lines if line.startswith(("sbatch: error", "allocation failure", "sbatch: fatal"))]
    return (said or lines or ["it does not say why"])[-1].removeprefix("sbatch: error: ")


def _nothing_of(index: int) -> None:
    """One argument a task, for submitit's arrays."""


@contextlib.contextmanager
def clean_environment(config: ClusterConfig) -> Iterator[None]:
    """Without what an enclosing allocation or the user's defaults would add to, or set above, the job's own options."""
    kept = {"SLURM_CONF", *(name for name, field in _DEFAULTS.items() if getattr(config, field) is None)}
    hidden = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("SLURM_", "SBATCH_", "SRUN_", "SUBMITIT_")) and name not in kept
    }
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)
