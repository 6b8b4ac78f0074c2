"""The processes of a stage that trains on several devices: rank 0, which owns the stage, and the ranks that follow it.

Rank 0 opens a TCP store, the meeting point, on a free port. The other ranks learn its address, connect, receive the stage from
the store and leave when the stage is over. If the executor started no other ranks (:class:`RankLaunch`), rank 0 starts them as
processes of this machine, which exit with the stage.

A lost rank ends the attempt in all ranks. ``python -m ...stage_process.ranks ADDRESS RANK`` runs a rank other than 0.
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
from umd_bench.data.packs.pack import Pack
from umd_bench.engine.device import pick_device
from umd_bench.engine.training.loop import Stopped, TrainResult, follow, train
from umd_bench.engine.training.parallel import RankGroup, RankLost
from umd_bench.engine.training.state import NonFiniteError
from umd_bench.orchestration.stage_process.entry_point import RankLaunch
from umd_bench.store.run import Attempt, RunDir

LOOPBACK = "127.0.0.1"
JOIN_SECONDS = 300.0  # rank 0 waits this long for every rank to connect
CONNECT_SECONDS = 30.0  # another rank waits this long for rank 0's store, which is open before its address is announced
LEAVE_SECONDS = 10.0  # rank 0 waits this long for the processes it started to exit
REPORT_SECONDS = 1.0  # rank 0 waits this long for a failed rank's report
POLL_SECONDS = 0.05
_FAILED, _READY, _ALL, _STAGE = "failed", "ready", "all", "stage"  # keys of the store


class RankFailed(Exception):  # noqa: N818 - the report of another rank's error
    """Another rank failed; ``state`` as in :class:`~umd_bench.store.run.Failure`."""

    def __init__(self, message: str, state: str) -> None:
        super().__init__(message)
        self.state = state


def train_on_ranks(
    spec: StageSpec,
    pack: Pack,
    attempt: Attempt,
    data_root: Path,
    *,
    stop: Callable[[], bool],
    rank_launch: RankLaunch | None,
) -> TrainResult:
    """:func:`~umd_bench.engine.training.loop.train` on ``spec.devices`` devices, with this process as rank 0.

    Raises as ``train``; :class:`RankLost` if a rank does not connect in time or is gone, with its signal if known;
    :class:`RankFailed` if a rank reported an error; :class:`Stopped` if ``stop`` returns true before all ranks are ready;
    :class:`FieldError` for more devices than this machine has.
    """
    with _group_of_rank_0(spec, attempt, data_root, stop=stop, rank_launch=rank_launch) as group:
        return train(spec, pack, attempt, stop=stop, parallel=group)


@contextmanager
def _group_of_rank_0(
    spec: StageSpec, attempt: Attempt, data_root: Path, *, stop: Callable[[], bool], rank_launch: RankLaunch | None
) -> Iterator[RankGroup]:
    """Open the meeting point, start the other ranks if no executor did, and wait until all have joined the group."""
    size, device = spec.devices, device_of(spec.resources.device, 0)
    if rank_launch is None and device.type == "cuda" and torch.cuda.device_count() < size:
        raise FieldError("resources.devices", size, f"expected at most {torch.cuda.device_count()}, the GPUs visible here")
    host = LOOPBACK if rank_launch is None else rank_launch.host
    store = TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=JOIN_SECONDS))
    store.set(_STAGE, _stage_message(spec, attempt.run, data_root))
    address = f"{host}:{store.port}"
    started: dict[int, subprocess.Popen[bytes]] = {}
    leave_seconds = 0.0  # 0 until all ranks have joined: before that, they do not exit
    try:
        if rank_launch is None:
            for rank in range(1, size):
                started[rank] = _start(address, rank, attempt.path / f"rank-{rank}.log", spec.resources.threads)
        else:
            rank_launch.announce(address)
        _wait_for_all(store, size, started, stop)
        store.set(_ALL, "")
        with _joined(store, 0, size, device, loopback=host == LOOPBACK) as group:
            leave_seconds = LEAVE_SECONDS
            yield group
    except RankLost as error:
        _raise_reported_failure(store, size)
        raise RankLost(f"{error}{_first_signal(started)}") from error
    finally:
        until = time.monotonic() + leave_seconds
        for process in started.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, until - time.monotonic()))
            process.kill()
            process.wait()


def follow_stage(address: str, rank: int, *, local: int, stop: Callable[[], bool] = lambda: False) -> None:
    """Run as ``rank`` of the stage whose rank 0 is at ``address``, until it ends; ``local`` numbers the ranks of one machine.

    Returns if rank 0 ended the stage (a result, a stop, a NaN). Otherwise raises this rank's own error, which it has reported
    to rank 0, or :class:`RankLost` if another rank is gone.
    """
    host, _, port = address.rpartition(":")
    try:
        store = TCPStore(host, int(port), is_master=False, timeout=timedelta(seconds=CONNECT_SECONDS))
        message = json.loads(store.get(_STAGE))
    except RuntimeError as error:
        raise RankLost(f"rank 0 is not at {address}") from error
    run = RunDir(Path(message["root"]), message["key"])
    try:
        spec = StageSpec.model_validate(message["spec"])
        torch.set_num_threads(spec.resources.threads)
        device = device_of(spec.resources.device, local)
        pack = open_data(spec.input_data, Path(message["data_root"]))
        try:
            store.set(f"{_READY}/{rank}", "")
            store.wait([_ALL], timedelta(seconds=JOIN_SECONDS))
        except RuntimeError as error:
            raise RankLost("rank 0 is gone, or another rank did not join in time") from error
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


def _stage_message(spec: StageSpec, run: RunDir, data_root: Path) -> str:
    """The stage as rank 0 runs it, as JSON. The run directory may by now hold another request."""
    message = {"root": str(run.root.resolve()), "key": run.key, "data_root": str(data_root.resolve())}
    return json.dumps({**message, "spec": spec.model_dump(mode="json")})


def device_of(name: str, local: int) -> torch.device:
    """The device of the ``local``-th rank of this machine; on CUDA its own GPU, even if a scheduler hides the others.

    Raises :class:`FieldError` for more ranks than visible GPUs, if several are visible.
    """
    device = pick_device(name)
    if device.type == "cpu":
        return device
    count = torch.cuda.device_count()
    if local >= count > 1:
        raise FieldError("resources.devices", local + 1, f"expected at most {count}, the GPUs visible here")
    device = torch.device("cuda", local if count > 1 else 0)
    torch.cuda.set_device(device)
    return device


def _start(address: str, rank: int, log: Path, threads: int) -> subprocess.Popen[bytes]:
    """Start a rank on this machine, in a session of its own. A terminal's signals reach only rank 0, which stops the others."""
    isolated = ["-P"] if sys.flags.safe_path else []
    command = [sys.executable, *isolated, "-m", "umd_bench.orchestration.stage_process.ranks", address, str(rank)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    with log.open("ab") as file:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment, start_new_session=True
        )


def _wait_for_all(store: TCPStore, size: int, started: dict[int, subprocess.Popen[bytes]], stop: Callable[[], bool]) -> None:
    """Wait until every other rank is ready."""
    deadline = time.monotonic() + JOIN_SECONDS
    missing = set(range(1, size))
    while missing := {rank for rank in missing if not store.check([f"{_READY}/{rank}"])}:
        if any(store.check([f"{_FAILED}/{rank}"]) for rank in missing):
            raise RankLost("another device failed before it joined")
        if any(process.poll() is not None for process in started.values()):
            raise RankLost("the process of another device exited before it joined")
        if stop():
            raise Stopped("stopped before every device had joined")
        if time.monotonic() > deadline:
            raise RankLost(f"rank {min(missing)} of {size} did not join within {JOIN_SECONDS:.0f} s")
        time.sleep(POLL_SECONDS)


@contextmanager
def _joined(store: Store, rank: int, size: int, device: torch.device, *, loopback: bool) -> Iterator[RankGroup]:
    """Join the group, and leave it at the end."""
    with _only_loopback() if loopback else nullcontext():
        group = RankGroup(PrefixStore("group", store), rank, size, device)
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
    """Make gloo listen on the loopback interface. By default it resolves the host's name, which may not point here."""
    before = os.environ.get("GLOO_SOCKET_IFNAME")
    os.environ["GLOO_SOCKET_IFNAME"] = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    try:
        yield
    finally:
        del os.environ["GLOO_SOCKET_IFNAME"]
        if before is not None:
            os.environ["GLOO_SOCKET_IFNAME"] = before


def _raise_reported_failure(store: TCPStore, size: int) -> None:
    """Raise :class:`RankFailed` if a rank has reported its error; a rank that was killed reports nothing."""
    deadline = time.monotonic() + REPORT_SECONDS
    while time.monotonic() < deadline:
        for rank in range(1, size):
            if store.check([f"{_FAILED}/{rank}"]):
                report = json.loads(store.get(f"{_FAILED}/{rank}"))
                raise RankFailed(f"rank {rank} of {size} failed:\n{report['message']}", report["state"])
        time.sleep(POLL_SECONDS)


def _first_signal(started: dict[int, subprocess.Popen[bytes]]) -> str:
    """Which of the processes started here was ended by a signal, as the end of a sentence; empty if none was."""
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
