"""Checks whether this machine's Slurm can run a sweep: its commands, limits, partition, requeues and preemption.

Slurm is only queried, and each query has a timeout. If the user runs on Slurm (``required``), a problem that would stop a sweep
there is a failure, and so is a controller that does not answer; otherwise both are warnings.
"""

from __future__ import annotations

import getpass
import re
import shutil
from collections.abc import Iterator

from umd_bench.config.errors import UserError
from umd_bench.config.launch.cluster import ClusterConfig
from umd_bench.orchestration.commands import last_line, output_of, run_command
from umd_bench.orchestration.doctor.finding import Finding, Level
from umd_bench.orchestration.executors.jobs.queues.slurm import SlurmQueue

ANSWER_SECONDS = 20.0
NOT_REQUIRED_SECONDS = 5.0  # if Slurm is not required: without a controller its commands would take a minute
COMMANDS = ("sbatch", "squeue", "scontrol", "scancel")
# Limits of an association; a QOS calls the first two MaxJobsPU and MaxSubmitPU.
LIMITS = ("MaxJobs", "MaxSubmitJobs", "GrpJobs", "GrpSubmitJobs")


def examine_slurm(config: ClusterConfig, *, required: bool, threads: int = 1) -> Iterator[Finding]:
    """Yield every finding about Slurm, for jobs with the settings ``config`` and ``threads``."""
    bad: Level = "fail" if required else "warn"
    missing = [name for name in COMMANDS if shutil.which(name) is None]
    if "sbatch" in missing and not required:
        yield Finding("pass", "there is no sbatch on this machine, so --on slurm cannot be used")
        return
    if missing:
        yield Finding(bad, f"Slurm's commands are missing: {', '.join(missing)}", "run on a login node, or use --on ray")
        return
    seconds = ANSWER_SECONDS if required else NOT_REQUIRED_SECONDS
    result = run_command("scontrol", "show", "config", seconds=seconds)
    settings = _settings(result.stdout) if result is not None and result.returncode == 0 else {}
    if not settings:
        why = f"no answer within {seconds:.0f} s" if result is None else last_line(result.stderr)
        text = f"Slurm's commands are installed, but its controller cannot be reached ({why})"
        yield Finding(bad, text, "ignore this if you have no cluster; otherwise check SLURM_CONF or ask its administrators")
        return
    yield Finding("pass", f"Slurm {settings.get('SLURM_VERSION', 'of an unknown version')} answers")
    yield from _ended_jobs(settings)
    yield from _sizes(settings, config)
    yield from _user_limits(settings, config)
    yield from _partition(settings, config, bad)
    yield _test_submission(config, threads, required, bad)


def _settings(text: str) -> dict[str, str]:
    """Parse lines of ``Name = value``."""
    pairs = (line.partition("=") for line in text.splitlines())
    return {name.strip(): value.strip() for name, equals, value in pairs if equals}


def _ended_jobs(settings: dict[str, str]) -> Iterator[Finding]:
    """For how long after a job's end Slurm can say how it ended."""
    seconds = f"{_number(settings.get('MinJobAge', '')) or 0:,} s (MinJobAge)"
    if settings.get("AccountingStorageType", "").endswith("/none"):
        yield Finding(
            "warn",
            f"accounting is off, so Slurm knows how a job ended for only {seconds} after its end",
            "run `umd-bench sweep` within that time; later, a job killed for any reason counts as died, and after "
            "three such jobs the stage has failed",
        )
    elif output_of("sacct", "-X", "-n", "-j", "1", seconds=ANSWER_SECONDS) is None:
        text = f"accounting is on, but sacct does not answer: Slurm knows how a job ended for only {seconds} after its end"
        yield Finding("warn", text, "ask the cluster's administrators")
    else:
        yield Finding("pass", "accounting is on and sacct answers, so Slurm knows how a job ended")


def _sizes(settings: dict[str, str], config: ClusterConfig) -> Iterator[Finding]:
    array, jobs = _number(settings.get("MaxArraySize", "")), _number(settings.get("MaxJobCount", ""))
    if array is None or jobs is None:
        yield Finding("warn", "MaxArraySize or MaxJobCount is unknown, so arrays of up to 1001 tasks are submitted")
        return
    text = f"an array may have {array:,} tasks (MaxArraySize), the cluster {jobs:,} jobs (MaxJobCount)"
    if jobs < config.max_submitted:
        yield Finding("warn", text, f"give --slurm max_submitted={max(1, jobs // 2)} or fewer, not {config.max_submitted}")
    else:
        yield Finding("pass", text + (", so stages are submitted one by one" if array <= 1 else ""))


def _user_limits(settings: dict[str, str], config: ClusterConfig) -> Iterator[Finding]:
    """The limits of the user's associations and their QOS, from sacctmgr."""
    if settings.get("AccountingStorageType", "").endswith("/none"):
        return
    user = getpass.getuser()
    fields = ",".join(("Account", "Partition", "QOS", *LIMITS))
    lines = output_of("sacctmgr", "-nP", "show", "assoc", "where", f"user={user}", f"format={fields}", seconds=ANSWER_SECONDS)
    if lines is None:
        yield Finding("warn", "sacctmgr does not answer, so the limits of your account are unknown")
        return
    rows = [line.split("|") for line in lines.splitlines() if line.count("|") == 2 + len(LIMITS)]
    if not rows:
        yield Finding(
            "warn", f"{user} has no association in Slurm's accounting", "Slurm may refuse jobs; ask its administrators"
        )
        return
    fits = [row for row in rows if row[0] == (config.account or row[0]) and row[1] in ("", config.partition or row[1])]
    if not fits:
        accounts = ", ".join(sorted({row[0] for row in rows}))
        yield Finding("warn", f"{user} has no association for account {config.account}", f"expected one of {accounts}")
        return
    names = "format=Name,MaxJobsPU,MaxSubmitPU,GrpJobs,GrpSubmit"
    qos = output_of("sacctmgr", "-nP", "show", "qos", names, seconds=ANSWER_SECONDS) or ""
    wanted = {config.qos} if config.qos else {name for row in fits for name in row[2].split(",")}
    limits: dict[str, list[int]] = {"max_running": [], "max_submitted": []}
    for cells in [row[3:] for row in fits] + [row[1:] for row in (q.split("|") for q in qos.splitlines()) if row[0] in wanted]:
        for cell, setting in zip(cells, ("max_running", "max_submitted") * 2, strict=False):
            if cell.isdigit():
                limits[setting].append(int(cell))
    lowest = {setting: min(values) for setting, values in limits.items() if values}
    listed = ", ".join(f"{setting.removeprefix('max_')} {limit:,}" for setting, limit in lowest.items())
    over = [f"--slurm {setting}={limit}" for setting, limit in lowest.items() if limit < getattr(config, setting)]
    text = f"job limits of your account or QOS: {listed or 'none'}"
    yield Finding("warn", text, f"give {' '.join(over)}") if over else Finding("pass", text)


def _partition(settings: dict[str, str], config: ClusterConfig, bad: Level) -> Iterator[Finding]:
    """Time limit, nodes, requeue and preemption of the partitions that the jobs use."""
    shown = output_of("scontrol", "show", "partition", "--oneliner", seconds=ANSWER_SECONDS) or ""
    partitions = [dict(pair.partition("=")[::2] for pair in line.split()) for line in shown.splitlines()]
    named = set((config.partition or "").split(",")) - {""}
    chosen = [p for p in partitions if (p.get("PartitionName") in named if named else p.get("Default") == "YES")]
    if not chosen:
        known = ", ".join(p.get("PartitionName", "?") for p in partitions) or "(none known)"
        text = f"there is no partition {config.partition}" if config.partition else "there is no default partition"
        yield Finding(bad, text, f"give --slurm partition=NAME, one of: {known}")
        return
    for partition in chosen:
        name = partition.get("PartitionName", "?")
        longest, state = _partition_minutes(partition.get("MaxTime", "")), partition.get("State", "?")
        text = f"partition {name}: {state.lower()}, {partition.get('TotalNodes', '?')} nodes"
        text += f", jobs up to {longest:,} minutes" if longest is not None else ", no time limit"
        if state != "UP":
            yield Finding(bad, f"{text}; jobs wait until it is up", "give another partition")
        elif longest is not None and longest < config.time:
            yield Finding(
                bad, f"{text}; jobs request {config.time:,} minutes and would wait forever", f"give --slurm time={longest}m"
            )
        else:
            yield Finding("pass", text)
        yield _preemption(settings, partition)
    if settings.get("SelectType", "").endswith("/linear"):
        yield Finding("warn", "each job gets a whole node (select/linear)", "let small stages share a job with --slurm pack=N")
    requeue = (
        "jobs may be requeued"
        if settings.get("JobRequeue") == "1"
        else "jobs are requeued only if they request it, which ours do"
    )
    grace = settings.get("KillWait", "?")
    yield Finding(
        "pass", f"{requeue} (JobRequeue={settings.get('JobRequeue', '?')}); after scancel a stage has {grace} to save its state"
    )


def _preemption(settings: dict[str, str], partition: dict[str, str]) -> Finding:
    """How Slurm treats our jobs when another job preempts them."""
    name, mode = partition.get("PartitionName", "?"), partition.get("PreemptMode", "OFF").split(",")[-1]
    if settings.get("PreemptType", "preempt/none").endswith("/none") or mode == "OFF":
        return Finding("pass", f"jobs in {name} are not preempted")
    grace = _number(partition.get("GraceTime", "")) or 0
    signalled = "preempt_send_user_signal" in settings.get("SlurmctldParameters", "")
    if mode == "REQUEUE":
        how = f"warned {grace} s before, so they save their state" if grace and signalled else "from their last checkpoint"
        return Finding("pass", f"preempted jobs in {name} are requeued and continue ({how})")
    if mode == "CANCEL":
        return Finding(
            "warn",
            f"preempted jobs in {name} are ended and not requeued (PreemptMode=CANCEL)",
            "a running `umd-bench sweep` submits them again; after --detach, run `umd-bench sweep` again",
        )
    return Finding("pass", f"preempted jobs in {name} are suspended ({mode}) and continue later")


def _test_submission(config: ClusterConfig, threads: int, required: bool, bad: Level) -> Finding:
    """Whether ``sbatch --test-only`` accepts the settings."""
    try:
        answered = SlurmQueue(config, threads=threads).check(seconds=ANSWER_SECONDS)
    except UserError as error:
        return Finding(bad, str(error), "give other settings with --slurm KEY=VALUE or --cluster NAME")
    whose = "these settings" if required else "the default settings"
    return Finding("pass", f"sbatch --test-only accepts {whose}: {answered}")


def _number(text: str) -> int | None:
    """The leading number of a value such as ``300 sec``; None if there is none."""
    match = re.match(r"\d+", text)
    return int(match.group()) if match else None


def _partition_minutes(text: str) -> int | None:
    """Minutes of a time limit as Slurm writes it, ``1-00:00:00`` or ``00:30:00``; None for no limit."""
    days, _, clock = text.rpartition("-")
    parts = clock.split(":")
    if not all(part.isdigit() for part in parts) or len(parts) != 3:
        return None
    hours, minutes, _ = map(int, parts)
    return int(days or 0) * 1440 + hours * 60 + minutes
