"""How an attempt ends: the record of its result, or of its failure."""

from __future__ import annotations

import hashlib
import re
import resource
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from umd_bench.config.errors import UserError
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.data.packs.pack import Pack
from umd_bench.engine.training.loop import Stopped, TrainResult
from umd_bench.engine.training.parallel import RankLost
from umd_bench.engine.training.state import NonFiniteError
from umd_bench.evaluation.stage_result import StageResult
from umd_bench.orchestration.stage_process.entry_point import Outcome
from umd_bench.orchestration.stage_process.ranks import RankFailed
from umd_bench.store.run import Attempt, Failure


@dataclass
class Record:
    """The block of :func:`recorded` sets ``result``; ``outcome`` is valid after the block."""

    result: dict[str, Any] = field(default_factory=dict)
    outcome: Outcome = Outcome.FAILED


@contextmanager
def recorded(attempt: Attempt) -> Iterator[Record]:
    """Record in the run directory how the block ends: with ``result``, by a stop, or by an exception, which is not raised.

    Only :class:`RankLost` is raised, after it is recorded.
    """
    record = Record()
    try:
        yield record
    except Stopped:
        attempt.event("state", state="stopped")
        record.outcome = Outcome.STOPPED
    except RankLost as error:
        attempt.event("state", state="died", message=str(error))
        raise
    except Exception as error:  # a stage may fail in any way; it fails alone and says why
        attempt.fail(_failure(error))
    else:
        attempt.finish(record.result)
        record.outcome = Outcome.DONE


def training_result(trained: TrainResult) -> StageResult:
    """The result of a training stage, on any number of devices."""
    facts = {"nimg": trained.nimg, "flops_per_image": trained.flops_per_image}
    return StageResult(trained.metrics, facts, {"images_per_second": trained.images_per_second})


def result_record(
    attempt: Attempt,
    spec: StageSpec,
    pack: Pack,
    environment: dict[str, Any],
    result: StageResult,
    *,
    seconds: float,
    exact: bool,
) -> dict[str, Any]:
    """The content of ``result.json``. ``exact``: no part was computed in another environment."""
    return {
        "key": attempt.run.key,
        "kind": spec.kind,
        "metrics": result.metrics,
        "facts": dict(result.facts),
        "cost": {"seconds": seconds, **result.cost, "peak_memory_bytes": _peak_memory()},
        "environment": environment,
        "data": {"name": pack.manifest.name, "digest": pack.manifest.digest},
        "exact": exact,
        "attempts": attempt.number,
    }


def _failure(error: Exception) -> Failure:
    """Classify an error. The fingerprint leaves out numbers and addresses, which differ between failures of one cause."""
    if isinstance(error, NonFiniteError):
        state = "nan"
    elif isinstance(error, MemoryError | torch.OutOfMemoryError):
        state = "oom"
    elif isinstance(error, UserError):
        state = "user"
    elif isinstance(error, RankFailed):
        state = error.state
    else:
        state = "error"
    message = f"{error}" if isinstance(error, UserError | NonFiniteError) else f"{type(error).__name__}: {error}"
    frames = [f"{frame.filename.rsplit('/', 1)[-1]}:{frame.name}" for frame in traceback.extract_tb(error.__traceback__)]
    cause = "|".join([state, type(error).__name__, re.sub(r"0x[0-9a-f]+|[0-9a-f]{16}|\d+", "#", str(error)), *frames[-3:]])
    return Failure(
        state=state,
        message=message,
        fingerprint=hashlib.sha256(cause.encode()).hexdigest()[:12],
        traceback="".join(traceback.format_exception(error)),
    )


def _peak_memory() -> int:
    """Peak bytes: of device memory in this stage, or of this process's resident memory since it started."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
