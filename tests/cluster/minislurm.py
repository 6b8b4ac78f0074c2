"""A real Slurm on one machine: munged, slurmctld and a slurmd per virtual node, run by any user in one new folder.

``python tests/cluster/minislurm.py FOLDER`` starts one to work with by hand until Ctrl-C. There is no accounting daemon, so
sacct always fails, as on many small clusters. Each daemon runs under :mod:`cluster.reaper` and ends with this process. Nodes
are named by loopback addresses, which resolve without a hosts file.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

NEEDED = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "squeue", "scontrol", "scancel", "sinfo")
SYSTEM_FOLDERS = "/usr/sbin:/usr/local/sbin:/sbin"
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random")  # Slurm accepts only a character device as a GPU
REAPER = Path(__file__).with_name("reaper.py")
# Without cred_expire every requeue waits for 121 s. batch_sched_delay 0 and the intervals make scheduling immediate.
# config_overrides lets nodes have more processors than the machine. The high partition preempts jobs of main and requeues them,
# after USR2 (preempt_send_user_signal) and a grace of ten seconds.
CONF = """\
ClusterName=mini
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={root}/munge/s,cred_expire=5
CredType=cred/munge
SlurmctldPort={port}
SlurmctldPidFile={root}/run/slurmctld.pid
SlurmdPidFile={root}/run/slurmd.%n.pid
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdLogFile={root}/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
ReturnToService=2
SlurmdTimeout=10
SlurmctldTimeout=10
KillWait=5
MinJobAge=86400
MaxArraySize={array}
JobRequeue=1
BatchStartTimeout=10
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
GresTypes=gpu
{nodes}
PartitionName=main Nodes={names} Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=10 PreemptMode=REQUEUE
PartitionName=high Nodes={names} MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""
NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} Boards=1 SocketsPerBoard=1 "
    "CoresPerSocket={cpus} ThreadsPerCore=1 RealMemory=4000 Gres=gpu:{gpus} State=UNKNOWN"
)


def why_unavailable() -> str | None:
    """Why a Slurm cannot run here, or None."""
    if sys.platform != "linux":
        return "a Slurm needs Linux"
    missing = [name for name in NEEDED if _which(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (Debian: apt-get install slurm-wlm munge)"
    try:  # Slurm resolves addresses with these flags, which find nothing if lo is the only interface
        flags = socket.AI_PASSIVE | socket.AI_ADDRCONFIG
        socket.getaddrinfo(None, 1, socket.AF_INET, socket.SOCK_STREAM, 0, flags)
    except OSError:
        return "this machine has no IPv4 address but the loopback one"
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        return "the user who runs this has no passwd entry"
    return None


class MiniSlurm:
    """A context manager for a cluster in ``root``, a new folder with a short name (it holds sockets)."""

    def __init__(self, root: Path, *, nodes: int = 2, cpus: int = 4, gpus: int = 2, array: int = 1001) -> None:
        self.root = root.absolute()
        self.names = [f"127.0.0.{11 + i}" for i in range(nodes)]  # not 127.0.0.1, which Ray replaces
        self._cpus, self._gpus, self._array = cpus, gpus, array
        self._user = pwd.getpwuid(os.getuid()).pw_name
        self._conf = self.root / "etc" / "slurm.conf"
        self.environment = {"SLURM_CONF": str(self._conf)}
        self._pipes: dict[str, int] = {}
        self._past: set[str] = set()

    def __enter__(self) -> MiniSlurm:
        self._write()
        munge = self.root / "munge"
        try:
            files = [f"--{name}-file={munge}/{name}" for name in ("key", "pid", "log", "seed")]
            self._daemon("munged", "--foreground", f"--socket={munge}/s", *files)
            self._until((munge / "s").exists, 10, "munged")
            self._daemon("slurmctld", "-D", "-f", str(self._conf))
            for name in self.names:
                self._daemon("slurmd", "-D", "-N", name, "-f", str(self._conf), tag=f"slurmd.{name}")
            self._until(self._idle, 60, "idle nodes")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End every daemon and every process below it: close the pipes of the reapers, and wait until these have ended."""
        for pipe in self._pipes.values():
            os.close(pipe)
        reapers = [pids[0] for tag in self._pipes if (pids := self._pids(tag)) is not None]
        self._pipes.clear()
        self._until(lambda: not any(_alive(pid) for pid in reapers), 30, "the end of all daemons")

    def run(self, *command: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        """Run one of Slurm's commands."""
        environment = os.environ | self.environment
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False)

    def jobs(self) -> dict[str, str]:
        """The states of all jobs submitted since the last :meth:`reset`, by job id."""
        lines = self.run("squeue", "-h", "-r", "-t", "all", "-o", "%i|%T").stdout.splitlines()
        states = dict(line.split("|") for line in lines)
        return {job: state for job, state in states.items() if job not in self._past}

    def unfinished(self) -> dict[str, str]:
        """The :meth:`jobs` that wait or run."""
        return {job: state for job, state in self.jobs().items() if state in ("PENDING", "RUNNING")}

    # ---- faults

    def kill_daemon(self, tag: str) -> None:
        """Kill ``slurmctld`` or ``slurmd.NODE`` alone; the processes that it started live on."""
        os.kill(self._expected(tag)[1], signal.SIGKILL)

    def cut_power(self, node: str) -> None:
        """Kill a slurmd and every process on its node."""
        os.kill(self._expected(f"slurmd.{node}")[0], signal.SIGUSR2)

    def boot(self, tag: str) -> None:
        """Start a daemon again."""
        os.kill(self._expected(tag)[0], signal.SIGUSR1)

    def reset(self) -> None:
        """Cancel and forget all jobs, start every dead daemon, wait for idle nodes: the state in which each test begins."""
        for tag in self._pipes:
            if not _alive(self._expected(tag)[1]):
                self.boot(tag)
        self._until(lambda: self.run("scontrol", "ping").returncode == 0, 30, "slurmctld")
        self.run("scancel", "-u", self._user)

        def ready() -> bool:
            if self._idle():
                return True
            for name in self.names:
                self.run("scontrol", "update", f"nodename={name}", "state=resume")  # if it was drained
            return False

        self._until(ready, 60, "idle nodes")
        self._past |= set(self.jobs())

    # ---- processes

    def _daemon(self, program: str, *arguments: str, tag: str = "") -> None:
        tag = tag or program
        path = _which(program)
        assert path is not None
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH", "SRUN"))}
        read, write = os.pipe()
        with (self.root / "log" / f"{tag}.out").open("ab") as log:
            subprocess.Popen(
                [sys.executable, str(REAPER), str(self.root / "run" / f"{tag}.pids"), path, *arguments],
                stdin=read, stdout=log, stderr=log, env=environment | self.environment, start_new_session=True, cwd="/",
            )  # fmt: skip
        os.close(read)
        self._pipes[tag] = write
        self._until(lambda: self._pids(tag) is not None, 20, tag)

    def _pids(self, tag: str) -> tuple[int, int] | None:
        """Process ids of a daemon's reaper and of the daemon."""
        try:
            reaper, daemon = (self.root / "run" / f"{tag}.pids").read_text().split()
        except FileNotFoundError:
            return None
        return int(reaper), int(daemon)

    def _expected(self, tag: str) -> tuple[int, int]:
        pids = self._pids(tag)
        assert pids is not None, f"{tag} was never started"
        return pids

    def _idle(self) -> bool:
        fields = self.run("sinfo", "-h", "-N", "-p", "main", "-o", "%N %t").stdout.split()
        states = dict(zip(fields[::2], fields[1::2], strict=True))
        return all(states.get(name) == "idle" for name in self.names)

    def _until(self, condition: Callable[[], bool], seconds: float, expected: str) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{expected}: not within {seconds} s; see {self.root}/log")
            time.sleep(0.05)

    def _write(self) -> None:
        for name in ("etc", "munge", "state", "log", "run", *(f"spool/{node}" for node in self.names)):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o755)
        (self.root / "munge" / "key").write_bytes(os.urandom(128))
        (self.root / "munge" / "key").chmod(0o400)
        host = socket.gethostname().split(".")[0]
        port, *ports = _free_ports(1 + len(self.names))
        nodes = [
            NODE.format(name=name, host=host, port=node_port, cpus=self._cpus, gpus=self._gpus)
            for name, node_port in zip(self.names, ports, strict=True)
        ]
        text = CONF.format(
            host=host, user=self._user, root=self.root, port=port, array=self._array,
            nodes="\n".join(nodes), names=",".join(self.names),
        )  # fmt: skip
        if _resolves_to_loopback(host):
            text += "CommunicationParameters=NoInAddrAny,NoCtldInAddrAny\n"
        self._conf.write_text(text)
        devices = ",".join(DEVICES[: self._gpus])
        gres = [f"NodeName={name} Name=gpu File={devices}\n" for name in self.names]
        (self.root / "etc" / "gres.conf").write_text("AutoDetect=off\n" + "".join(gres))


def _which(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SYSTEM_FOLDERS}")


def _alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        os.waitpid(pid, os.WNOHANG)  # if it is our own child
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _resolves_to_loopback(host: str) -> bool:
    try:
        found = socket.getaddrinfo(host, None, socket.AF_INET, flags=socket.AI_ADDRCONFIG)
    except OSError:
        return False
    return str(found[0][4][0]).startswith("127.")


if __name__ == "__main__":
    reason = why_unavailable()
    if reason is not None:
        sys.exit(reason)
    with MiniSlurm(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp(prefix="ms"))) as cluster:
        for variable, value in cluster.environment.items():
            print(f"export {variable}={value}", flush=True)
        signal.pause()
