"""Several processes that train one stage as one: each takes its share of every batch, and their gradients are summed.

Every rank draws the randomness of the whole batch and reads its own rows only, so the sum of the ranks' gradients is the
gradient of one process but for the order of additions; so are the losses, which travel with it. From then on (clipping,
AdamW, average, running sums) all ranks do the same with the same numbers, and rank 0 alone writes.

The gradients are summed here and not by ``DistributedDataParallel``: that lays its buckets out anew after the first step of a
process, and with three ranks or more another layout adds in another order, so that a resumed run would differ from one that
was never interrupted. These buckets are a function of the model alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import Store  # type: ignore[attr-defined]

from umd_bench.config.errors import FieldError
from umd_bench.config.trial.train_stage import TrainStage
from umd_bench.engine.diffusion.corruption import Noise
from umd_bench.engine.diffusion.objective import Losses

JOINING_SECONDS = 60.0  # for ranks that are all there to reach each other; one may be killed just then
STEP_SECONDS = 600.0  # for which a rank waits for the others: longer than rank 0 takes to write a checkpoint
BUCKET_ELEMENTS = 8 * 2**20  # of gradient summed at once: 32 MiB
PIECE_BYTES = 256 * 2**20  # of state handed out at once


class RankLost(Exception):  # noqa: N818 - a state, not a fault
    """Another process of the group is gone, or does not answer."""


class Share(NamedTuple):
    """The rows of one rank: a contiguous part of the noised images and one of the clean ones, either may be empty."""

    noised: slice
    clean: slice

    @property
    def n_clean(self) -> int:
        """Clean images among them."""
        return int(self.clean.stop - self.clean.start)

    @property
    def n_noised(self) -> int:
        """Noised images among them."""
        return int(self.noised.stop - self.noised.start)

    def of(self, rows: Tensor) -> Tensor:
        """Its rows of a batch, noised ones first. [B, ...] -> [n, ...]."""
        return torch.cat([rows[self.noised], rows[self.clean]])


def share_of(stage: TrainStage, rank: int, size: int) -> Share:
    """The rows of ``rank`` among ``size``. What does not divide goes to the first ranks of the noised, the last of the clean.

    Raises :class:`FieldError` where there are fewer images than ranks.
    """
    if size > stage.batch:
        raise FieldError("resources.devices", size, f"expected at most the batch of {stage.batch}: each device takes an image")
    n_noised, n_clean = stage.batch - stage.n_clean, stage.n_clean
    noised = [r * (n_noised // size) + min(r, n_noised % size) for r in (rank, rank + 1)]
    after = [r * (n_clean // size) + min(r, n_clean % size) for r in (size - rank, size - rank - 1)]  # from the end
    return Share(slice(*noised), slice(*(stage.batch - n for n in after)))


class Group:
    """The ranks of one stage, joined: NCCL between GPUs, gloo between CPUs and for what the hosts tell each other.

    Every method but the properties is called by all ranks, in the same order, and raises :class:`RankLost` when one is gone. It
    is made once all have come, since it waits for JOINING_SECONDS only.
    """

    def __init__(self, store: Store, rank: int, size: int, device: torch.device) -> None:
        self.rank, self.size, self.device = rank, size, device
        self._buckets: list[list[nn.Parameter]] | None = None
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        with _all_there():
            limit = timedelta(seconds=JOINING_SECONDS)
            dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=limit)
            _set_timeout(timedelta(seconds=STEP_SECONDS))

    def close(self, *, lost: bool = False) -> None:
        """Leave; ``lost`` when some rank is gone, whose part in the work that the device still has will never come."""
        if lost and self.device.type == "cuda":
            dist.distributed_c10d._abort_process_group()
        with suppress(RuntimeError):
            dist.destroy_process_group()

    def any(self, flag: bool) -> bool:
        """Whether any rank says so. The hosts wait for each other, not for the devices."""
        said = torch.tensor([int(flag)])
        with _all_there():
            dist.all_reduce(said, op=dist.ReduceOp.MAX)
        return bool(said.item())

    def hand_out(self, data: bytes | None) -> bytes:
        """What rank 0 gives, on every rank; the others give None."""
        length = torch.tensor([len(data or b"")])
        with _all_there():
            dist.broadcast(length, src=0)
            buffer = torch.empty(int(length.item()), dtype=torch.uint8)
            if data:
                buffer.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
            for piece in torch.split(buffer, PIECE_BYTES):
                dist.broadcast(piece, src=0)
        return buffer.numpy().tobytes()

    def rows(self, x_0: Tensor, noise: Noise, label: Tensor, stage: TrainStage) -> tuple[Tensor, Noise, Tensor, int]:
        """This rank's share of a batch and of its draws, and how many of its images are clean (the last)."""
        share = share_of(stage, self.rank, self.size)
        return share.of(x_0), Noise(*map(share.of, noise)), share.of(label), share.n_clean

    def sum(self, model: nn.Module, losses: Losses, stage: TrainStage) -> Losses:
        """Make ``model``'s gradients those of the whole batch, and the share's ``losses`` the batch's.

        A share's gradients must be of its loss times its part of the batch. Parameters that no rank has a gradient for
        keep none. Nothing waits for the device, but for the first call.
        """
        share = share_of(stage, self.rank, self.size)
        parts = (
            (share.n_clean + share.n_noised) / stage.batch,
            share.n_clean / max(1, stage.n_clean),
            share.n_noised / max(1, stage.batch - stage.n_clean),
        )
        scalars = torch.stack([loss.detach() * part for loss, part in zip(losses, parts, strict=True)])
        if self._buckets is None:
            self._buckets = self._laid_out(model)
        sums = [torch.cat([_gradient(p).flatten() for p in bucket]) for bucket in self._buckets]
        sums.append(scalars)
        with _all_there():
            works = [dist.all_reduce(flat, async_op=True) for flat in sums]
            for work in works:
                work.wait()
        for bucket, flat in zip(self._buckets, sums[:-1], strict=True):
            whole = [g.view_as(p) for g, p in zip(torch.split(flat, [p.numel() for p in bucket]), bucket, strict=True)]
            torch._foreach_copy_([_gradient(p) for p in bucket], whole)
        return Losses(*scalars)

    def require_alike(self, model: nn.Module) -> None:
        """Raise ``RuntimeError`` unless all ranks have the same sums of the weights' bits: one that strayed would spoil all."""
        bits = torch.stack([p.detach().view(torch.int32).sum(dtype=torch.int64) for p in model.parameters()]).cpu()
        extremes = torch.stack([bits, -bits])
        with _all_there():
            dist.all_reduce(extremes, op=dist.ReduceOp.MAX)
        if not torch.equal(extremes[0], -extremes[1]):
            raise RuntimeError("the devices of this stage no longer hold the same weights: one of them computes wrongly")

    def _laid_out(self, model: nn.Module) -> list[list[nn.Parameter]]:
        """The parameters that some rank has a gradient for, which is the same at each step, in buckets."""
        params = list(model.parameters())
        has = torch.tensor([int(p.grad is not None) for p in params])
        with _all_there():
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
    """Of the group's calls from now on; torch gave this a public name later than the oldest that is supported."""
    change = getattr(dist, "set_timeout", None) or dist.distributed_c10d._set_pg_timeout
    change(limit)


def _gradient(p: nn.Parameter) -> Tensor:
    """The parameter's gradient; zero on a rank whose images do not reach it."""
    if p.grad is None:
        p.grad = torch.zeros_like(p)
    return p.grad


@contextmanager
def _all_there() -> Iterator[None]:
    """What a lost rank makes of a collective call is a ``RuntimeError`` of many wordings."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise RankLost(f"another device of this stage is gone or silent ({str(error).splitlines()[0]})") from error
