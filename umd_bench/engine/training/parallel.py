"""The devices that train one stage: a single one, or a group of ranks that share every batch and sum their gradients.

Every rank of a group draws the randomness of the whole batch and computes its own rows. So the ranks' gradients and losses add
up to the gradients and losses of a single device, up to the order of additions. After the sum, all ranks compute the same from
the same numbers (clipping, AdamW, average, running sums), and only rank 0 writes.

Gradients are summed here and not by ``DistributedDataParallel``, which rebuilds its buckets after the first step of a process.
With three or more ranks another layout adds in another order, so a resumed run would differ from an uninterrupted one. The
buckets here are a function of the model alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import NamedTuple, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import Store  # type: ignore[attr-defined]

from umd_bench.config.errors import FieldError
from umd_bench.config.trial.train_stage import TrainStage
from umd_bench.engine.device import pick_device
from umd_bench.engine.diffusion.corruption import Noise
from umd_bench.engine.diffusion.objective import Losses
from umd_bench.engine.training.checkpoint import pack_checkpoint, unpack_checkpoint
from umd_bench.engine.training.state import TrainingState

JOINING_SECONDS = 60.0  # ranks that are all ready connect within this time; it is limited because one may be killed meanwhile
STEP_SECONDS = 600.0  # a rank waits this long for the others, longer than rank 0 takes to write a checkpoint
BUCKET_ELEMENTS = 8 * 2**20  # gradient elements that are summed at once (32 MiB)
PIECE_BYTES = 256 * 2**20  # bytes of the state that are broadcast at once


class RankLost(Exception):  # noqa: N818 - a state, not a fault
    """Another rank is gone or does not answer."""


class Share(NamedTuple):
    """The rows of one rank: a contiguous part of the noised images and one of the clean images; either may be empty."""

    noised: slice
    clean: slice

    @property
    def n_clean(self) -> int:
        """Number of clean images."""
        return int(self.clean.stop - self.clean.start)

    @property
    def n_noised(self) -> int:
        """Number of noised images."""
        return int(self.noised.stop - self.noised.start)

    def of(self, rows: Tensor) -> Tensor:
        """These rows of a batch, noised images first. [B, ...] -> [n, ...]."""
        return torch.cat([rows[self.noised], rows[self.clean]])


def share_of(stage: TrainStage, rank: int, size: int) -> Share:
    """The rows of ``rank`` among ``size`` ranks.

    Images that do not divide evenly go one by one to the first ranks if they are noised, to the last ranks if they are clean.

    Raises :class:`FieldError` if the batch has fewer images than there are ranks.
    """
    if size > stage.batch:
        expected = f"expected at most the batch of {stage.batch}, since each device takes at least one image"
        raise FieldError("resources.devices", size, expected)
    n_noised, n_clean = stage.batch - stage.n_clean, stage.n_clean
    noised = [r * (n_noised // size) + min(r, n_noised % size) for r in (rank, rank + 1)]
    after = [r * (n_clean // size) + min(r, n_clean % size) for r in (size - rank, size - rank - 1)]  # from the end
    return Share(slice(*noised), slice(*(stage.batch - n for n in after)))


class BatchShare(NamedTuple):
    """The part of a batch that one rank computes; the last ``n_clean`` images are clean."""

    x_0: Tensor  # [n, C, H, W]
    noise: Noise
    label: Tensor  # [n] int64
    n_clean: int


class DataParallel(Protocol):
    """How the training loop divides each batch among devices. All ranks call the same methods in the same order."""

    size: int

    def device(self, name: str) -> torch.device:
        """The device of this rank; ``name`` is ``resources.device``."""

    def send_missing(self, missing: list[int]) -> None:
        """Tell the other ranks which snapshots are to be trained."""

    def send_state(self, state: TrainingState, *, warn: Callable[[str], None]) -> None:
        """Give the other ranks this state; if the devices are not of one kind, mark it as not exact and call ``warn``."""

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is true on any rank."""

    def share(self, x_0: Tensor, noise: Noise, label: Tensor, stage: TrainStage) -> BatchShare:
        """This rank's share of a batch: x_0 [B, C, H, W], its draws, label [B] -> n rows of each."""

    def backward(self, model: nn.Module, losses: Losses, stage: TrainStage) -> Losses:
        """Set ``model``'s gradients to the gradients of the whole batch's loss; returns the whole batch's losses."""

    def require_same_weights(self, model: nn.Module) -> None:
        """Raise ``RuntimeError`` unless all ranks hold the same weights."""


class SingleDevice:
    """One device, which computes the whole batch."""

    size = 1

    def device(self, name: str) -> torch.device:
        """As :func:`pick_device`."""
        return pick_device(name)

    def send_missing(self, missing: list[int]) -> None:
        """Nothing: no other rank."""

    def send_state(self, state: TrainingState, *, warn: Callable[[str], None]) -> None:
        """Nothing: no other rank."""

    def any(self, flag: bool) -> bool:
        """``flag``."""
        return flag

    def share(self, x_0: Tensor, noise: Noise, label: Tensor, stage: TrainStage) -> BatchShare:
        """The whole batch."""
        return BatchShare(x_0, noise, label, stage.n_clean)

    def backward(self, model: nn.Module, losses: Losses, stage: TrainStage) -> Losses:
        """The gradient of the loss."""
        torch.autograd.backward(losses.loss)
        return losses

    def require_same_weights(self, model: nn.Module) -> None:
        """Nothing: no other rank."""


SINGLE_DEVICE = SingleDevice()


class RankGroup:
    """The ranks of one stage, joined: NCCL between GPUs, gloo between CPUs and for messages between the hosts.

    Create it once every rank is ready, since it waits only JOINING_SECONDS. Every method but ``device``, ``share`` and
    ``close`` is a collective call: all ranks make these calls in the same order, and a call raises :class:`RankLost` if a rank
    is gone.
    """

    def __init__(self, store: Store, rank: int, size: int, device: torch.device) -> None:
        self.rank, self.size, self._device = rank, size, device
        self._buckets: list[list[nn.Parameter]] | None = None
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        with _lost_ranks():
            limit = timedelta(seconds=JOINING_SECONDS)
            try:
                dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=limit)
            except Exception:
                # torch numbers the groups of a process, and counts one that did not come up. The other ranks of the next
                # stage count from 0, so this process would wait for them under another number.
                dist.distributed_c10d._world.group_count = 0
                raise
            _set_timeout(timedelta(seconds=STEP_SECONDS))

    def close(self, *, lost: bool = False) -> None:
        """Leave the group. If ``lost``, a rank is gone; work that waits for that rank on the device is aborted."""
        if lost and self._device.type == "cuda":
            dist.distributed_c10d._abort_process_group()
        with suppress(RuntimeError):
            dist.destroy_process_group()

    def device(self, name: str) -> torch.device:
        """The device that the group was created with."""
        return self._device

    def send_missing(self, missing: list[int]) -> None:
        """On rank 0; the others call :meth:`receive_missing`."""
        self._broadcast(json.dumps(missing).encode())

    def receive_missing(self) -> list[int]:
        """The snapshots that rank 0 sends by :meth:`send_missing`."""
        missing: list[int] = json.loads(self._broadcast(None))
        return missing

    def send_state(self, state: TrainingState, *, warn: Callable[[str], None]) -> None:
        """On rank 0; the others call :meth:`receive_state`."""
        self._broadcast(pack_checkpoint(state.checkpoint()))
        if self.any(False):  # if another rank's fingerprint differs, no other set of devices gives the same bits
            state.exact = False
            warn("the devices of this stage are not of one kind: the result is not exact")

    def receive_state(self, state: TrainingState) -> None:
        """Load the state that rank 0 sends by :meth:`send_state`."""
        checkpoint = unpack_checkpoint(self._broadcast(None))
        self.any(checkpoint.fingerprint != state.fingerprint())
        state.restore(checkpoint)

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is true on any rank. The hosts wait for each other, not for the devices."""
        flags = torch.tensor([int(flag)])
        with _lost_ranks():
            dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        return bool(flags.item())

    def share(self, x_0: Tensor, noise: Noise, label: Tensor, stage: TrainStage) -> BatchShare:
        """The rows that :func:`share_of` gives to this rank."""
        share = share_of(stage, self.rank, self.size)
        return BatchShare(share.of(x_0), Noise(*map(share.of, noise)), share.of(label), share.n_clean)

    def backward(self, model: nn.Module, losses: Losses, stage: TrainStage) -> Losses:
        """Sum the ranks' gradients of ``losses``, each weighted by its share of the batch; returns the batch's losses.

        A parameter that no rank has a gradient for keeps none. The host waits for the device in the first call only.
        """
        share = share_of(stage, self.rank, self.size)
        of_batch = (share.n_clean + share.n_noised) / stage.batch
        torch.autograd.backward(losses.loss * of_batch)
        parts = (
            of_batch,
            share.n_clean / max(1, stage.n_clean),
            share.n_noised / max(1, stage.batch - stage.n_clean),
        )
        scalars = torch.stack([loss.detach() * part for loss, part in zip(losses, parts, strict=True)])
        if self._buckets is None:
            self._buckets = self._laid_out(model)
        sums = [torch.cat([_gradient(p).flatten() for p in bucket]) for bucket in self._buckets]
        sums.append(scalars)
        with _lost_ranks():
            works = [dist.all_reduce(flat, async_op=True) for flat in sums]
            for work in works:
                work.wait()
        for bucket, flat in zip(self._buckets, sums[:-1], strict=True):
            whole = [g.view_as(p) for g, p in zip(torch.split(flat, [p.numel() for p in bucket]), bucket, strict=True)]
            torch._foreach_copy_([_gradient(p) for p in bucket], whole)
        return Losses(*scalars)

    def require_same_weights(self, model: nn.Module) -> None:
        """Raise ``RuntimeError`` unless the sums of the weights' bits agree, since differing weights make the result wrong."""
        bits = torch.stack([p.detach().view(torch.int32).sum(dtype=torch.int64) for p in model.parameters()]).cpu()
        extremes = torch.stack([bits, -bits])
        with _lost_ranks():
            dist.all_reduce(extremes, op=dist.ReduceOp.MAX)
        if not torch.equal(extremes[0], -extremes[1]):
            raise RuntimeError("the devices of this stage no longer hold the same weights: one of them computes wrongly")

    def _broadcast(self, data: bytes | None) -> bytes:
        """Rank 0's ``data``, on every rank; the others pass None."""
        length = torch.tensor([len(data or b"")])
        with _lost_ranks():
            dist.broadcast(length, src=0)
            buffer = torch.empty(int(length.item()), dtype=torch.uint8)
            if data:
                buffer.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
            for piece in torch.split(buffer, PIECE_BYTES):
                dist.broadcast(piece, src=0)
        return buffer.numpy().tobytes()

    def _laid_out(self, model: nn.Module) -> list[list[nn.Parameter]]:
        """Buckets of the parameters that any rank has a gradient for. These parameters are the same in every step."""
        params = list(model.parameters())
        has = torch.tensor([int(p.grad is not None) for p in params])
        with _lost_ranks():
            dist.all_reduce(has, op=dist.ReduceOp.MAX)
        buckets: list[list[nn.Parameter]] = [[]]
        filled = 0
        for p, there in zip(params, has.tolist(), strict=True):
            if not there:
                continue
            if filled and filled + p.numel() > BUCKET_ELEMENTS:
                buckets.append([])
                filled = 0
            buckets[-1].append(p)
            filled += p.numel()
        return buckets


def _set_timeout(limit: timedelta) -> None:
    """Set the timeout of later collective calls; the oldest supported torch has no public name for this."""
    change = getattr(dist, "set_timeout", None) or dist.distributed_c10d._set_pg_timeout
    change(limit)


def _gradient(p: nn.Parameter) -> Tensor:
    """The parameter's gradient; zero on a rank whose images do not depend on it."""
    if p.grad is None:
        p.grad = torch.zeros_like(p)
    return p.grad


@contextmanager
def _lost_ranks() -> Iterator[None]:
    """Turn the ``RuntimeError`` of a collective call, whose wording varies, into :class:`RankLost`."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise RankLost(f"another device of this stage is gone or silent ({str(error).splitlines()[0]})") from error
