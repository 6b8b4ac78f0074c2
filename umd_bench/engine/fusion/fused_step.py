"""The shared step of several training stages of one shape: one forward and one backward pass for all of them.

Each stage has its own seed, draws, batches, noise process, share of clean images, loss weight, learning rate, decay, clipping
and average. The memory is shared: the weights of all stages lie in one block [S, P], their gradients in another, and their
averages in a third. The moments lie in rows [P], two for each stage. Each stage's :class:`TrainingState` holds views of the
stage's rows. A stage has the same results as if it were trained alone, up to the order of additions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

import torch
from torch import Tensor

from umd_bench.config.seeds import derive_seed
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.config.trial.train_stage import TrainStage
from umd_bench.data.batches.batches import Batches
from umd_bench.engine.diffusion.corruption import Noise, corrupt, draw_noise
from umd_bench.engine.diffusion.noise_process import NoiseProcess
from umd_bench.engine.diffusion.objective import LOSS_WEIGHTS, Losses, clean_loss, noised_loss
from umd_bench.engine.fusion.stacked_weights import Rows, call_stacked
from umd_bench.engine.networks.auto_encoder import AutoEncoder, Output
from umd_bench.engine.training.optim import adamw, is_decayed, learning_rate
from umd_bench.engine.training.output import RunOutput
from umd_bench.engine.training.state import TrainingState
from umd_bench.store.run import Attempt

_ALIGNED = 16  # floats: each weight begins on a cache line


@dataclass(eq=False)
class Member:
    """One of the stages, with everything that its own loop would hold."""

    spec: StageSpec
    stage: TrainStage
    attempt: Attempt
    output: RunOutput
    missing: list[int]
    state: TrainingState
    resumed_from: int | None
    batches: Batches
    process: NoiseProcess
    generator: torch.Generator
    saved: int

    def draw(self) -> tuple[Tensor, Tensor, Noise]:
        """x_0 [B, C, H, W], label [B] and draws of the next step, the same as if the stage ran alone."""
        nimg = self.state.nimg
        x_0, label = self.batches.at(nimg)
        self.generator.manual_seed(derive_seed(self.spec.seed, f"{self.stage.kind}/noise", nimg))
        return x_0, label, draw_noise(x_0, self.state.model.n_patches, self.process, self.generator)


class FusedStages:
    """The shared memory of S stages that have seen equally many images, and their step."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = list(members)
        first, S = members[0].state, len(members)
        names = dict(first.model.named_parameters())
        order = sorted(names, key=lambda name: not is_decayed(name))  # decayed parameters first, so a row has two parts
        self._locations: dict[str, tuple[int, torch.Size]] = {}
        end = decayed = 0
        for name in order:
            self._locations[name] = (end, names[name].shape)
            end += -(-names[name].numel() // _ALIGNED) * _ALIGNED
            decayed = end if is_decayed(name) else decayed
        device = first.device
        self._weights, self._gradients = torch.zeros(S, end, device=device), torch.zeros(S, end, device=device)
        self._average = torch.zeros(S, end, device=device) if first.average is not None else None
        self._ema = torch.tensor([1 - m.stage.ema_decay for m in members], device=device).unsqueeze(1)
        self._clip = torch.tensor([m.stage.optim.clip_norm for m in members], device=device)
        self._leaves: dict[str, Tensor] = {}
        for name in order:
            self._leaves[name] = self._of_all(self._weights, name).detach().requires_grad_()
        self._optimizers = [self._take_over(s, decayed) for s in range(S)]

    def _of_all(self, block: Tensor, name: str) -> Tensor:
        start, shape = self._locations[name]
        return block[:, start : start + shape.numel()].view(len(block), *shape)

    def _of_one(self, row: Tensor, name: str) -> Tensor:
        start, shape = self._locations[name]
        return row[start : start + shape.numel()].view(shape)

    @torch.no_grad()
    def _take_over(self, s: int, decayed: int) -> torch.optim.Optimizer:
        """Move stage ``s``'s tensors into its rows, and give its state views of these rows.

        Returns an optimiser over the two parts of the row of weights: those with and those without weight decay.
        """
        member = self.members[s]
        state, row = member.state, self._weights[s]
        state.conditions["fused"] = f"{s + 1} of {len(self.members)}"
        moments = {
            "exp_avg": torch.zeros_like(row, dtype=torch.bfloat16 if member.stage.optim.first_moment == "bf16" else None),
            "exp_avg_sq": torch.zeros_like(row),
        }
        steps = torch.tensor(0.0)
        for name, p in state.model.named_parameters():
            own, place = state.optimizer.state.get(p, {}), self._of_one(row, name)
            place.copy_(p)
            p.data, p.grad = place, None
            for kind, block in moments.items():
                if kind in own:
                    self._of_one(block, name).copy_(own[kind])
            steps = torch.maximum(steps, own["step"].cpu()) if "step" in own else steps
            if state.average is not None and self._average is not None:
                average = self._of_one(self._average[s], name)
                state.average.weights[name] = average.copy_(state.average.weights[name])
            state.optimizer.state[p] = {kind: self._of_one(block, name) for kind, block in moments.items()}
        groups: list[tuple[dict[str, Any], slice]] = []
        for part, decay in ((slice(None, decayed), member.stage.optim.weight_decay), (slice(decayed, None), 0.0)):
            weights = row[part].detach().requires_grad_()
            weights.grad = self._gradients[s][part]
            groups.append(({"params": [weights], "weight_decay": decay}, part))
        optimizer = adamw([group for group, _ in groups], member.stage.optim)
        on_host = member.stage.optim.first_moment == "bf16"
        for group, part in groups:
            optimizer.state[group["params"][0]] = {
                "step": steps.clone() if on_host else steps.to(row.device, copy=True),
                **{kind: block[part] for kind, block in moments.items()},
            }
        return optimizer

    def write_step_count(self, member: Member) -> None:
        """Write the step count into the optimiser of a stage's state. Its moments are views, which need no copy."""
        optimizer = self._optimizers[self.members.index(member)]
        step = next(iter(optimizer.state.values()))["step"]
        for own in member.state.optimizer.state.values():
            own["step"] = step.clone()

    def step(self) -> list[float]:
        """One optimiser step of every stage; returns their learning rates. The host does not wait for the device."""
        first = self.members[0]
        drawn = [member.draw() for member in self.members]
        with torch.autocast(first.state.device.type, dtype=torch.bfloat16, enabled=first.stage.precision == "bf16"):
            losses = fused_losses(first.state.model, self._leaves, self.members, drawn)
        self._differentiate([loss.loss for loss in losses])
        norms = self._gradients.norm(dim=1)
        self._gradients.mul_((self._clip / norms).clamp(max=1).unsqueeze(1))
        rates = []
        for member, optimizer in zip(self.members, self._optimizers, strict=True):
            rates.append(learning_rate(member.state.nimg, member.stage))
            for group in optimizer.param_groups:
                group["lr"] = rates[-1]
            optimizer.step()
        if self._average is not None:
            self._average.lerp_(self._weights, self._ema)
        for member, loss, norm in zip(self.members, losses, norms, strict=True):
            member.state.count(loss, norm)
        return rates

    def _differentiate(self, losses: list[Tensor]) -> None:
        """Write the gradients of each stage's loss into its row; 0 for a weight that no loss depends on."""
        gradients = torch.autograd.grad(losses, list(self._leaves.values()), allow_unused=True)
        places = [self._of_all(self._gradients, name) for name in self._leaves]
        used = [value is not None for value in gradients]
        for place, is_used in zip(places, used, strict=True):
            if not is_used:
                place.zero_()
        torch._foreach_copy_(list(compress(places, used)), list(compress(gradients, used)))


def fused_losses(
    model: AutoEncoder, weights: Mapping[str, Tensor], members: Sequence[Member], drawn: Sequence[tuple[Tensor, Tensor, Noise]]
) -> list[Losses]:
    """:func:`~umd_bench.engine.diffusion.objective.umd_loss` of each stage on its own batch, by two passes for all stages.

    ``weights`` [S, ...] by name; ``drawn`` has x_0 [B, C, H, W], label [B] and draws of each stage, from :meth:`Member.draw`.
    """
    config, device = members[0].stage.corruption, drawn[0][0].device
    noisy, clean = [], []
    for member, (x_0, label, noise) in zip(members, drawn, strict=True):
        n_clean = member.stage.n_clean
        x_t, t = corrupt(x_0, noise, n_clean, member.process)
        dropped = label
        if member.stage.labels:
            assert model.label_embed is not None
            dropped = torch.where(noise.drop_label, model.label_embed.null, label)
        cut = len(x_0) - n_clean
        parts = (x_t, t, noise.mask_noise, dropped, x_0, noise.eps)
        noisy.append(tuple(part[:cut] for part in parts))
        clean.append(tuple(part[cut:] for part in parts))
    labels = members[0].stage.labels
    of_noisy = _passed(model, weights, noisy, config.mask_ratio, labels, device)
    of_clean = _passed(model, weights, clean, config.mask_ratio_t0, False, device)
    losses = []
    for member, a, b, out, out_0 in zip(members, noisy, clean, of_noisy, of_clean, strict=True):
        stage, (_, t, _, _, x_0, eps) = member.stage, a
        loss_t0 = loss_t = eps.new_zeros(())
        if len(x_0):
            target = member.process.target(x_0, t, eps)
            weight = LOSS_WEIGHTS[stage.loss_weight](member.process, stage, t).to(x_0.dtype)
            loss_t = noised_loss(out.x_0, x_0, out.target, target, out.mask, weight, masked=config.mask_ratio > 0)
        if stage.n_clean:
            loss_t0 = clean_loss(out_0.x_0, b[4], out_0.mask)
        share = stage.n_clean / stage.batch
        losses.append(Losses(loss_t * (1 - share) + loss_t0 * share, loss_t0, loss_t))
    return losses


def _passed(
    model: AutoEncoder,
    weights: Mapping[str, Tensor],
    parts: Sequence[tuple[Tensor, ...]],
    mask_ratio: float,
    labels: bool,
    device: torch.device,
) -> list[Output]:
    """One pass over all stages' clean or noised rows; returns each stage's output, empty for a stage without such rows."""
    rows = Rows([len(part[0]) for part in parts], device)
    x_t, t, mask_noise, label = (torch.cat(column) for column in list(zip(*parts, strict=True))[:4])
    if not rows.total:
        nothing = x_t, x_t, mask_noise, x_t
        return [Output(*nothing)] * len(parts)
    out = call_stacked(
        model, weights, rows, x_t, t, mask_noise=mask_noise, mask_ratio=mask_ratio, label=label if labels else None
    )
    return [Output(*of_one) for of_one in zip(*(rows.split(value) for value in out), strict=True)]
