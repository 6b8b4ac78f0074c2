"""In a training step and in a sampler's loop the host never waits for the device. The GPU here is fake: tensors have no values.

The host waits if it reads a value, or copies between host and device, unless it copies from pinned memory. Not every build of
torch has a backward pass on a fake GPU, so gradients are made up too. On a real GPU torch reports operations that wait.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine.small_runs import BATCH, SOURCE, made_up_pack, training
from torch import Tensor
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from umd_bench.config.trial.generate_stage import GenerateStage
from umd_bench.config.trial.model import ModelConfig
from umd_bench.config.trial.noise import NoiseConfig
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.config.trial.train_stage import AugmentConfig, OptimConfig
from umd_bench.data.batches.batches import Batches
from umd_bench.data.packs.pack import Pack
from umd_bench.engine.device import deterministic_kernels
from umd_bench.engine.diffusion.noise_process import NoiseProcess
from umd_bench.engine.diffusion.schedules import SCHEDULES
from umd_bench.engine.networks.auto_encoder import AutoEncoder
from umd_bench.engine.networks.initialise import build_model
from umd_bench.engine.samplers import SAMPLERS, generate
from umd_bench.engine.training.loop import training_step
from umd_bench.engine.training.state import TrainingState
from umd_bench.store.run import RunDir

GPU = torch.device("cuda", 0)
READS = {"_local_scalar_dense", "item", "is_nonzero", "nonzero", "equal", "masked_select", "_unique2"}
_COPIES = {"_to_copy", "copy_", "to"}  # torch splits `to` into the other two, except in inference mode


def _names_device(given: object) -> bool:
    return isinstance(given, str | torch.device)


class Waits(Exception):  # noqa: N818 - named after the event
    """The host would wait for the device."""


class Watch(TorchDispatchMode):
    """Raises at an operation in which the host would wait for a GPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        tensors = [arg for arg in args if isinstance(arg, Tensor)]
        on_gpu = any(tensor.is_cuda for tensor in tensors)
        if on_gpu and name in READS:
            raise Waits(f"{func} reads a value")
        if name in _COPIES:
            source, given = tensors[-1], [*args[1:], *kwargs.values()]
            target = (
                tensors[0].device if name == "copy_" else next(map(torch.device, filter(_names_device, given)), source.device)
            )
            blocking = not any(value is True for value in given) or not hasattr(source, "pinned")
            if source.device.type != target.type and (source.is_cuda or blocking):
                raise Waits(f"{func} from {source.device} to {target}")
        try:
            return func(*args, **kwargs)
        except DynamicOutputShapeException as error:
            raise Waits(f"{func} has a shape that depends on values") from error


class MadeUpGenerator(torch.Generator):
    """A generator that claims to be on the GPU."""

    def __new__(cls, device: object = None) -> MadeUpGenerator:
        return super().__new__(cls)

    @property
    def device(self) -> torch.device:
        return GPU


@contextmanager
def made_up_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def pin(tensor: Tensor) -> Tensor:
        copy = tensor.clone()
        copy.pinned = True  # type: ignore[attr-defined]
        return copy

    monkeypatch.setattr(Tensor, "pin_memory", pin)
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


def without_values(config: ModelConfig, *, device: torch.device, seed: int, **shape: int) -> AutoEncoder:
    """A model without initial weights."""
    with device:
        return AutoEncoder(config, **shape)


def made_up_gradients(loss: Tensor, model: torch.nn.Module) -> None:
    for p in model.parameters():
        p.grad = torch.zeros_like(p)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return made_up_pack(tmp_path_factory.mktemp("pack"))


def stepping(spec: StageSpec, pack: Pack, device: torch.device, *, resident: bool) -> tuple[Any, ...]:
    stage: Any = spec.stage
    state = TrainingState(spec, stage, pack.manifest, RunDir(Path(), spec.key), device)
    batches = Batches(
        pack.split("train"), batch=BATCH, seed=0, purpose="pretrain", augment=stage.augment, device=device, resident=resident
    )
    return state, batches, NoiseProcess(spec.noise, device)


@pytest.mark.slow
@pytest.mark.parametrize("first_moment", ["fp32", "bf16"])
def test_a_training_step_and_its_batch_never_wait(first_moment: str, pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    optim = OptimConfig(ema=True, first_moment=first_moment)  # type: ignore[arg-type]
    spec = training(optim=optim, augment=AugmentConfig(crop_area_min=0.5, flip=True), loss_weight="min_snr")
    with made_up_gpu(monkeypatch):
        monkeypatch.setattr("umd_bench.engine.networks.initialise.build_model", without_values)
        state, batches, process = stepping(spec, pack, GPU, resident=True)
        monkeypatch.setattr(torch.autograd, "backward", lambda loss: made_up_gradients(loss, state.model))
        with Watch():
            for _ in range(4):  # over the end of an epoch
                training_step(state, spec, process, MadeUpGenerator(), *batches.at(state.nimg))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_no_schedule_waits(schedule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with made_up_gpu(monkeypatch):
        process = NoiseProcess(NoiseConfig(schedule=schedule), GPU)  # type: ignore[arg-type]
        x_0, q = torch.zeros(4, 1, 8, 8, device=GPU), torch.zeros(4, device=GPU, dtype=torch.float64)
        with Watch():
            t = process.trained_times(q)
            process.target(process.q_sample(x_0, t, x_0), t, x_0)
            process.min_snr(t, 5)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_sampler_waits_between_its_steps(sampler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = training()
    config = GenerateStage(
        kind="generate",
        parent="pretrain",
        extractor="digits",
        n=4,
        batch=4,
        sampler=sampler,
        steps=3,
        cfg_scale=2,
        cfg_interval=(5, 40),
    )
    process, shape = NoiseProcess(spec.noise), {"size": SOURCE.size, "channels": 1, "classes": 3, "seed": 0}
    real = build_model(spec.model, **shape)
    # This run caches the coefficients of its times in `process`, on the host.
    generate(real, process, config, label=torch.zeros(4, dtype=torch.int64), indices=range(4), seed=0)
    with made_up_gpu(monkeypatch):
        model = without_values(spec.model, **shape, device=GPU)
        label = torch.zeros(4, dtype=torch.int64, device=GPU)
        with Watch():
            generate(model, process, config, label=label, indices=range(4), seed=0)


def test_operations_that_wait_are_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    with made_up_gpu(monkeypatch):
        there, here = torch.zeros(3, device=GPU), torch.zeros(3)
        for wait in (
            lambda: there.sum().item(),
            lambda: bool(there.sum() > 0),
            lambda: there.cpu(),
            lambda: here.to(GPU),
            lambda: here.to(GPU, non_blocking=True),  # not pinned
            lambda: there.copy_(here),
            lambda: torch.from_numpy(np.zeros(3)).to(GPU),
            lambda: torch.tensor([1, 2], device=GPU),
            lambda: there.nonzero(),
            lambda: there[there > 0],
        ):
            with pytest.raises(Waits), Watch():
                wait()
        with Watch():
            here.pin_memory().to(GPU, non_blocking=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("resident", [True, False])
def test_on_a_gpu_torch_reports_no_synchronisation_in_a_step(resident: bool, pack: Pack) -> None:
    spec = training(optim=OptimConfig(ema=True), augment=AugmentConfig(crop_area_min=0.5, flip=True), precision="bf16")
    with ExitStack() as stack:
        stack.enter_context(deterministic_kernels(GPU))
        state, batches, process = stepping(spec, pack, GPU, resident=resident)
        generator = torch.Generator(GPU)
        # The first step may wait, since it loads libraries and allocates the moments.
        training_step(state, spec, process, generator, *batches.at(0))
        stack.callback(torch.cuda.set_sync_debug_mode, "default")
        torch.cuda.set_sync_debug_mode("error")
        for _ in range(4):
            training_step(state, spec, process, generator, *batches.at(state.nimg))
