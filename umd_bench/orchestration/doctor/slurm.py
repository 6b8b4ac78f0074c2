"""Is the Slurm that this machine talks to one that a sweep can be given to: its commands, limits, requeues and preemption.

Slurm is only asked, never changed, and every question has its time; a question without an answer is a warning. Where nobody
asked for Slurm (``asked`` false), what would stop a sweep there only warns too.
"""

from __future__ import annotations

import getpass
import re
import shutil
from collections.abc import Iterator

from umd_bench.config.errors import UserError
from umd_bench.config.launch.cluster import ClusterConfig
from umd_bench.orchestration.commands import output_of, run_command
from umd_bench.orchestration.doctor.finding import Finding, Level
from umd_bench.orchestration.executors.jobs.slurm import SlurmQueue

ANSWER_SECONDS = 20.0
UNASKED_SECONDS = 5.0  # where nobody asked for Slurm: its commands look for a lost configuration for a minute
COMMANDS = ("sbatch", "squeue", "scontrol", "scancel")
LIMITS = ("MaxJobs", "MaxSubmitJobs", "GrpJobs", "GrpSubmitJobs")  # of an association; a QOS calls the first two MaxJobsPU, ...


def examine_slurm(config: ClusterConfig, *, asked: bool, threads: int = 1) -> Iterator[Finding]:
    """Every finding about Slurm, for jobs with these settings."""
    bad: Level = "fail" if asked else "warn"
    missing = [name for name in COMMANDS if shutil.which(name) is None]
    if "sbatch" in missing and not asked:
        yield Finding("pass", "no sbatch on this machine: --on slurm is not for it")
        return
    if missing:
        yield Finding(bad, f"Slurm's commands are missing: {', '.join(missing)}", "run on a login node, or use --on ray")
        return
    seconds = ANSWER_SECONDS if asked else UNASKED_SECONDS
    said = run_command("scontrol", "show", "config", seconds=seconds)
    settings = _settings(said.stdout) if said is not None and said.returncode == 0 else {}
    if not settings:
        why = f"no answer within {seconds:.0f} s" if said is None else "".join(said.stderr.strip().splitlines()[-1:])
        text = f"Slurm's commands are here, but its controller cannot be asked ({why})"
        yield Finding(bad, text, "without a cluster nothing is lost; with one, see SLURM_CONF, and ask whoever runs it")
        return
    yield Finding("pass", f"Slurm {settings.get('SLURM_VERSION', 'of an unknown version')} answers")
    yield from _memory_of_jobs(settings)
    yield from _sizes(settings, config)
    yield from _user_limits(settings, config)
    yield from _partition(settings, config, bad)
    yield _judged(config, threads, asked, bad)


def _settings(text: str) -> dict[str, str]:
    """``Name = value`` lines."""
    pairs = (line.partition("=") for line in text.splitlines())
    return {name.strip(): value.strip() for name, equals, value in pairs if equals}


def _memory_of_jobs(settings: dict[str, str]) -> Iterator[Finding]:
    """How it is known what became of a job that ended while nobody looked."""
    seconds = f"{_number(settings.get('MinJobAge', '')) or 0:,} s (MinJobAge)"
    if settings.get("AccountingStorageType", "").endswith("/none"):
        yield Finding(
            "warn",
            f"accounting is off: what became of a job is known for {seconds} after its end",
            "look within that time (the command itself, status or watch); a job that was killed and then forgotten counts as "
            "died, whatever the reason, and is submitted again up to three times",
        )
    elif output_of("sacct", "-X", "-n", "-j", "1", seconds=ANSWER_SECONDS) is None:
        yield Finding("warn", "accounting is on, but sacct does not answer", f"ended jobs are known for {seconds} only")
    else:
        yield Finding("pass", "sacct answers: what became of a job is known later too")


def _sizes(settings: dict[str, str], config: ClusterConfig) -> Iterator[Finding]:
    array, jobs = _number(settings.get("MaxArraySize", "")), _number(settings.get("MaxJobCount", ""))
    if array is None or jobs is None:
        yield Finding("warn", "MaxArraySize or MaxJobCount is not known: arrays of up to 1001 tasks are tried")
        return
    text = f"an array has up to {array:,} tasks (MaxArraySize), the cluster {jobs:,} jobs (MaxJobCount)"
    if jobs < config.max_submitted:
        yield Finding("warn", text, f"give --slurm max_submitted={max(1, jobs // 2)} or fewer, found {config.max_submitted}")
    else:
        yield Finding("pass", text + (", so stages are submitted one by one" if array <= 1 else ""))


def _user_limits(settings: dict[str, str], config: ClusterConfig) -> Iterator[Finding]:
    """What the user's associations and their QOS allow, where sacctmgr tells."""
    if settings.get("AccountingStorageType", "").endswith("/none"):
        return
    user = getpass.getuser()
    fields = ",".join(("Account", "Partition", "QOS", *LIMITS))
    lines = output_of("sacctmgr", "-nP", "show", "assoc", "where", f"user={user}", f"format={fields}", seconds=ANSWER_SECONDS)
    if lines is None:
        yield Finding("warn", "sacctmgr does not answer: limits of your account are not known")
        return
    rows = [line.split("|") for line in lines.splitlines() if line.count("|") == 2 + len(LIMITS)]
    if not rows:
        yield Finding("warn", f"Slurm's accounting knows no association of {user}", "it may refuse jobs; ask whoever runs it")
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
    told = ", ".join(f"{setting.removeprefix('max_')} {min(found):,}" for setting, found in limits.items() if found)
    over = [f"--slurm {s}={min(found)}" for s, found in limits.items() if found and min(found) < getattr(config, s)]
    text = f"limits of your account or QOS: {told or 'none on the number of jobs'}"
    yield Finding("warn", text, f"give {' '.join(over)}") if over else Finding("pass", text)


def _partition(settings: dict[str, str], config: ClusterConfig, bad: Level) -> Iterator[Finding]:
    """Time limit, nodes, requeue and preemption of the partition that jobs go to."""
    said = output_of("scontrol", "show", "partition", "--oneliner", seconds=ANSWER_SECONDS) or ""
    partitions = [dict(pair.partition("=")[::2] for pair in line.split()) for line in said.splitlines()]
    asked = set((config.partition or "").split(",")) - {""}
    chosen = [p for p in partitions if (p.get("PartitionName") in asked if asked else p.get("Default") == "YES")]
    if not chosen:
        known = ", ".join(p.get("PartitionName", "?") for p in partitions) or "none that answers"
        what = f"there is no partition {config.partition}" if config.partition else "there is no default partition"
        yield Finding(bad, what, f"give --slurm partition=NAME, one of: {known}")
        return
    for partition in chosen:
        name = partition.get("PartitionName", "?")
        longest, state = _partition_minutes(partition.get("MaxTime", "")), partition.get("State", "?")
        text = f"partition {name}: {state.lower()}, {partition.get('TotalNodes', '?')} nodes"
        text += f", jobs up to {longest:,} minutes" if longest is not None else ", no time limit"
        if state != "UP":
            yield Finding(bad, text, "jobs wait there until it is up; give another partition")
        elif longest is not None and longest < config.time:
            yield Finding(bad, f"{text}; jobs ask for {config.time:,} and would wait for ever", f"give --slurm time={longest}m")
        else:
            yield Finding("pass", text)
        yield _preemption(settings, partition)
    if settings.get("SelectType", "").endswith("/linear"):
        yield Finding("warn", "each job gets a whole node (select/linear)", "small stages can share one: --slurm pack=N")
    requeue = (
        "jobs may be requeued" if settings.get("JobRequeue") == "1" else "jobs are requeued only where they ask, as ours do"
    )
    grace = settings.get("KillWait", "?")
    yield Finding(
        "pass", f"{requeue} (JobRequeue={settings.get('JobRequeue', '?')}); scancel leaves {grace} to save a stage's state"
    )


def _preemption(settings: dict[str, str], partition: dict[str, str]) -> Finding:
    """What another's urgent job does to ours."""
    name, mode = partition.get("PartitionName", "?"), partition.get("PreemptMode", "OFF").split(",")[-1]
    if settings.get("PreemptType", "preempt/none").endswith("/none") or mode == "OFF":
        return Finding("pass", f"jobs in {name} are not preempted")
    grace = _number(partition.get("GraceTime", "")) or 0
    warned = "preempt_send_user_signal" in settings.get("SlurmctldParameters", "")
    if mode == "REQUEUE":
        how = f"warned {grace} s before, so the state is saved" if grace and warned else "from their last checkpoint"
        return Finding("pass", f"preempted jobs in {name} are requeued and go on ({how})")
    if mode == "CANCEL":
        return Finding(
            "warn",
            f"preempted jobs in {name} are ended and not requeued (PreemptMode=CANCEL)",
            "a command that stays submits them again; after --detach the next `umd-bench sweep` does",
        )
    return Finding("pass", f"preempted jobs in {name} are suspended ({mode}) and go on later")


def _judged(config: ClusterConfig, threads: int, asked: bool, bad: Level) -> Finding:
    """Slurm's own word on the settings."""
    try:
        said = SlurmQueue(config, threads=threads).check(seconds=ANSWER_SECONDS)
    except UserError as error:
        return Finding(bad, str(error), "give other settings with --slurm KEY=VALUE or --cluster NAME")
    whose = "these settings" if asked else "the default settings"
    return Finding("pass", f"sbatch --test-only takes {whose}: {said}")


def _number(text: str) -> int | None:
    """The number that a value begins with: ``300 sec``."""
    found = re.match(r"\d+", text)
    return int(found.group()) if found else None


def _partition_minutes(text: str) -> int | None:
    """``1-00:00:00`` or ``30:00``, as Slurm writes a limit; None for none."""
    days, _, clock = text.rpartition("-")
    parts = clock.split(":")
    if not all(part.isdigit() for part in parts) or len(parts) != 3:
        return None
    hours, minutes, _ = map(int, parts)
    return int(days or 0) * 1440 + hours * 60 + minutes
