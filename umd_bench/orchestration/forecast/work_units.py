"""The amount of work of a stage, in units that make stages of one kind comparable.

The work is FLOPs per image x images for training, and size of the network x model calls x images for sampling. For a probe it
is the size of the network.
"""

from __future__ import annotations

from pathlib import Path

from umd_bench.config.trial.generate_stage import GenerateStage
from umd_bench.config.trial.probe_stage import ProbeStage
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.config.trial.train_stage import TrainStage
from umd_bench.data.datasets import data_facts
from umd_bench.engine.networks.flops import flops_per_image

Kind = tuple[str, str]
Shape = tuple[object, ...]


def kind_of(spec: StageSpec) -> Kind:
    """Stages of one kind cost about the same per unit of work: the stage's kind, and for a probe also its data set."""
    return spec.kind, spec.input_data.name if spec.kind == "probe" else ""


def shape_of(spec: StageSpec, data_root: Path | None) -> Shape:
    """Stages of one shape need only one measurement, since they cost about the same per unit of work."""
    common = (*kind_of(spec), spec.resources.threads, spec.resources.device, network_size(spec))
    match spec.stage:
        case TrainStage() as train:
            return (*common, work_of(spec, data_root) / train.nimg, train.batch, train.precision)
        case GenerateStage() as generate:
            return (*common, generate.sampler, generate.steps, generate.batch, generate.all_extractors, generate.precision)
        case ProbeStage() as probe:
            return (*common, probe.shots, probe.draws, probe.knn, repr(probe.linear), repr(probe.ridge))
    return common


def work_of(spec: StageSpec, data_root: Path | None) -> float:
    """The stage's whole work in units of its kind. Raises :class:`UserError` for an unknown data set."""
    match spec.stage:
        case TrainStage() as train:
            facts = data_facts(spec.data, root=data_root)
            classes = facts.classes if train.labels else 0
            return flops_per_image(spec.model, train, size=facts.size, channels=facts.channels, classes=classes) * train.nimg
        case GenerateStage() as generate:
            guided = 1 if generate.cfg_scale == 1 else 2
            return network_size(spec) * generate.n * generate.sampling_seeds * (generate.steps + 1) * guided
    return network_size(spec)


def work_per_image(spec: StageSpec, data_root: Path | None) -> float:
    """FLOPs per image for training, otherwise the size of the network. Raises :class:`UserError` for an unknown data set."""
    return work_of(spec, data_root) / spec.stage.nimg if isinstance(spec.stage, TrainStage) else network_size(spec)


def network_size(spec: StageSpec) -> float:
    """A number proportional to the network's parameters: width^2 x blocks."""
    model = spec.model
    return float(model.width) ** 2 * (model.depth + model.decoder_depth)
