"""The processes of a stage that trains on several devices: rank 0, which owns the stage, and the others, which follow it.

When rank 0 owns the stage it opens a meeting point: a TCP store on a port that the system gives, so that none is taken. The
other ranks learn its address, come, are told the stage, and go when it is over; each lives for one stage. They were started
beside rank 0 by whoever runs the job (:class:`RankLaunch`); where nobody did, rank 0 starts them as processes of this machine.

A rank that is lost ends the attempt in all of them. As a module, ``ranks ADDRESS RANK``, this file is such a process.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import timedelta
from pathlib import Path

import torch
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from umd_bench.config.errors import FieldError, UserError
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.data.open_data import open_data
from umd_bench.engine.device import pick_device
from umd_bench.engine.training.loop import Stopped, follow
from umd_bench.engine.training.parallel import Group, RankLost
from umd_bench.engine.training.state import NonFiniteError
from umd_bench.orchestration.stage_process.entry_point import RankLaunch
from umd_bench.store.run import Attempt, RunDir

LOOPBACK = "127.0.0.1"
JOIN_SECONDS = 300.0  # for every rank to come
REACH_SECONDS = 30.0  # for rank 0, which is there already, to be reached
LEAVE_SECONDS = 10.0  # for every rank to go when the stage is over
SAY_SECONDS = 1.0  # for a rank that failed to say so
LOOK_SECONDS = 0.05
_FAILED, _READY, _ALL, _STAGE = "failed", "ready", "all", "stage"


class RankFailed(Exception):  # noqa: N818 - another rank's error, told here
    """Another rank failed by itself; ``state`` as in :class:`~umd_bench.store.run.Failure`."""

    def __init__(self, message: str, state: str) -> None:
        super().__init__(message)
        self.state = state


@contextmanager
def together(
    spec: StageSpec, attempt: Attempt, data_root: Path, *, stop: Callable[[], bool], rank_launch: RankLaunch | None
) -> Iterator[Group | None]:
    """The group of the stage's devices, with this process as rank 0; None for a stage on one device.

    Raises :class:`RankLost` when a rank does not come in time or is gone, with what is known of it, :class:`RankFailed` when
    one failed by itself, :class:`Stopped` when that is asked before all are there, :class:`FieldError` for more devices than
    this machine has.
    """
    if spec.devices == 1:
        yield None
        return
    size, device = spec.devices, device_of(spec.resources.device, 0)
    if rank_launch is None and device.type == "cuda" and torch.cuda.device_count() < size:
        raise FieldError("resources.devices", size, f"expected at most {torch.cuda.device_count()}, the GPUs to be seen here")
    host = LOOPBACK if rank_launch is None else rank_launch.host
    store = TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=JOIN_SECONDS))
    store.set(_STAGE, _told(spec, attempt.run, data_root))
    address = f"{host}:{store.port}"
    started: dict[int, subprocess.Popen[bytes]] = {}
    patience = 0.0  # with ranks that wait for this one, which will not come
    try:
        if rank_launch is None:
            for rank in range(1, size):
                started[rank] = _start(address, rank, attempt.path / f"rank-{rank}.log", spec.resources.threads)
        else:
            rank_launch.announce(address)
        _wait_for_all(store, size, started, stop)
        store.set(_ALL, "")
        with _joined(store, 0, size, device, loopback=host == LOOPBACK) as group:
            patience = LEAVE_SECONDS
            yield group
    except RankLost as error:
        _raise_what_failed(store, size)
        raise RankLost(f"{error}{_first_end(started)}") from error
    finally:
        until = time.monotonic() + patience
        for process in started.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, until - time.monotonic()))
            process.kill()
            process.wait()


def follow_stage(address: str, rank: int, *, local: int, stop: Callable[[], bool] = lambda: False) -> None:
    """Be ``rank`` of the stage whose rank 0 is at ``address``, to its end; ``local`` counts the ranks of one machine.

    What rank 0 ends by itself (its result, a stop, a NaN) returns; otherwise raises what went wrong, :class:`RankLost` when
    another rank is gone.
    """
    host, _, port = address.rpartition(":")
    try:
        store = TCPStore(host, int(port), is_master=False, timeout=timedelta(seconds=REACH_SECONDS))
        told = json.loads(store.get(_STAGE))
    except RuntimeError as error:
        raise RankLost(f"rank 0 is not at {address}") from error
    run = RunDir(Path(told["root"]), told["key"])
    try:
        spec = StageSpec.model_validate(told["spec"])
        torch.set_num_threads(spec.resources.threads)
        device = device_of(spec.resources.device, local)
        pack = open_data(spec.input_data, Path(told["data_root"]))
        try:
            store.set(f"{_READY}/{rank}", "")
            store.wait([_ALL], timedelta(seconds=JOIN_SECONDS))
        except RuntimeError as error:
            raise RankLost("rank 0 is gone, or waits for others in vain") from error
        with _joined(store, rank, spec.devices, device, loopback=host == LOOPBACK) as group:
            follow(spec, pack, run, group, stop=stop)
    except (Stopped, NonFiniteError):
        return
    except RankLost:
        raise
    except Exception as error:
        state = "oom" if isinstance(error, MemoryError | torch.OutOfMemoryError) else "error"
        state = "user" if isinstance(error, UserError) else state
        with suppress(RuntimeError):
            store.set(f"{_FAILED}/{rank}", json.dumps({"state": state, "message": traceback.format_exc()}))
        raise


def _told(spec: StageSpec, run: RunDir, data_root: Path) -> str:
    """The stage as rank 0 has it: another rank that read the run directory by itself could find what was asked for since."""
    told = {"root": str(run.root.resolve()), "key": run.key, "data_root": str(data_root.resolve())}
    return json.dumps({**told, "spec": spec.model_dump(mode="json")})


def device_of(name: str, local: int) -> torch.device:
    """The device of the ``local``-th rank of this machine: its own GPU, also where a scheduler shows it no other."""
    device = pick_device(name)
    if device.type == "cpu":
        return device
    count = torch.cuda.device_count()
    if local >= count > 1:
        raise FieldError("resources.devices", local + 1, f"expected at most {count}, the GPUs to be seen here")
    device = torch.device("cuda", local if count > 1 else 0)
    torch.cuda.set_device(device)
    return device


def _start(address: str, rank: int, log: Path, threads: int) -> subprocess.Popen[bytes]:
    """A rank as a process of this machine, deaf to what a terminal sends: rank 0 tells it when to stop."""
    isolated = ["-P"] if sys.flags.safe_path else []
    command = [sys.executable, *isolated, "-m", "umd_bench.orchestration.stage_process.ranks", address, str(rank)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    with log.open("ab") as file:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment, start_new_session=True
        )


def _wait_for_all(store: TCPStore, size: int, started: dict[int, subprocess.Popen[bytes]], stop: Callable[[], bool]) -> None:
    deadline = time.monotonic() + JOIN_SECONDS
    missing = set(range(1, size))
    while missing := {rank for rank in missing if not store.check([f"{_READY}/{rank}"])}:
        if any(store.check([f"{_FAILED}/{rank}"]) for rank in missing):
            raise RankLost("another device failed before it began")
        if any(process.poll() is not None for process in started.values()):
            raise RankLost("another device of this stage is gone before it began")
        if stop():
            raise Stopped("stopped before every device was there")
        if time.monotonic() > deadline:
            raise RankLost(f"rank {min(missing)} of {size} did not come within {JOIN_SECONDS:.0f} s")
        time.sleep(LOOK_SECONDS)


@contextmanager
def _joined(store: Store, rank: int, size: int, device: torch.device, *, loopback: bool) -> Iterator[Group]:
    """In the group, and out of it at the end."""
    with _only_loopback() if loopback else nullcontext():
        group = Group(PrefixStore("group", store), rank, size, device)
    lost = True
    try:
        yield group
        lost = False
    except (Stopped, NonFiniteError):
        lost = False
        raise
    finally:
        group.close(lost=lost)


@contextmanager
def _only_loopback() -> Iterator[None]:
    """gloo listens where the host's name points unless told otherwise, which need not be an address of this machine."""
    before = os.environ.get("GLOO_SOCKET_IFNAME")
    os.environ["GLOO_SOCKET_IFNAME"] = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    try:
        yield
    finally:
        del os.environ["GLOO_SOCKET_IFNAME"]
        if before is not None:
            os.environ["GLOO_SOCKET_IFNAME"] = before


def _raise_what_failed(store: TCPStore, size: int) -> None:
    """Raise :class:`RankFailed` if some rank says that it did; a rank that was killed says nothing."""
    deadline = time.monotonic() + SAY_SECONDS
    while time.monotonic() < deadline:
        for rank in range(1, size):
            if store.check([f"{_FAILED}/{rank}"]):
                told = json.loads(store.get(f"{_FAILED}/{rank}"))
                raise RankFailed(f"rank {rank} of {size} failed:\n{told['message']}", told["state"])
        time.sleep(LOOK_SECONDS)


def _first_end(started: dict[int, subprocess.Popen[bytes]]) -> str:
    """Which process of this machine was ended by a signal, in words."""
    for rank, process in started.items():
        code = process.poll()
        if code is not None and code < 0:
            return f"; rank {rank} was ended by {signal.Signals(-code).name}"
    return ""


if __name__ == "__main__":
    try:
        follow_stage(sys.argv[1], int(sys.argv[2]), local=int(sys.argv[2]))
    except RankLost as lost:
        sys.exit(f"{lost}")
