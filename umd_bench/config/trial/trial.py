"""A trial: one fully specified experiment, as frozen models that refuse unknown fields.

Units: ``nimg`` counts images seen; ratios and probabilities lie in [0, 1]; a time ``t`` is 0 for a clean image and 1..timesteps
for a noised one. The presets of ``config/presets`` fill these fields with the paper's values (UMD paper, appendix).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from umd_bench.config.documents.fields import Frozen, Name
from umd_bench.config.errors import FieldRuleError
from umd_bench.config.trial.data import DataConfig, ScoredSplit
from umd_bench.config.trial.generate_stage import GenerateStage
from umd_bench.config.trial.model import ModelConfig
from umd_bench.config.trial.noise import NoiseConfig
from umd_bench.config.trial.probe_stage import ProbeStage
from umd_bench.config.trial.train_stage import ImportStage, TrainStage, WeightsStage

Stage = Annotated[TrainStage | ImportStage | ProbeStage | GenerateStage, Field(discriminator="kind")]


class Resources(Frozen):
    """The threads and devices of one stage, the same on every executor.

    Threads and devices change the order of sums, and so the last bits of a result; they are not part of a key.
    """

    threads: int = Field(default=1, ge=1, description="CPU threads per device")
    devices: int = Field(default=1, ge=1, description="devices that a training stage is spread over; other stages use one")
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="kind of device; auto: a GPU if there is one")
    compile: bool = Field(
        default=False,
        description="train and sample through torch.compile, which takes minutes once per machine and model (docs/compile.md)",
    )


class TrialConfig(Frozen):
    """One experiment: method, model, data, noise, stages, seed."""

    method: Name = Field(description="name of the method's preset: umd, mae, dit, dit_scratch or maskdit; not part of any key")
    model: ModelConfig = Field(description="shape of the model, or in a file its name, such as B/4")
    data: DataConfig = Field(description="data set, its image size, and whether it is used in pixels or in latents")
    noise: NoiseConfig = Field(default=NoiseConfig(), description="noise schedule and prediction target")
    stages: dict[Name, Stage] = Field(
        min_length=1, description="stages by name; a stage starts from the weights of its parent; null leaves one out"
    )
    seed: int = Field(
        default=0, ge=0, lt=2**31, description="seed of all randomness: weights, order, noise, masks, shots and samples"
    )
    resources: Resources = Field(default=Resources(), description="threads and devices of a stage; not part of any key")

    @model_validator(mode="after")
    def _every_device_has_an_image(self) -> TrialConfig:
        for name, stage in self.stages.items():
            if isinstance(stage, TrainStage) and self.resources.devices > stage.batch:
                raise FieldRuleError(
                    "resources.devices",
                    f"{self.resources.devices} is not accepted: expected at most {stage.batch}, the batch of stages.{name}, "
                    "since each device needs an image",
                )
        return self

    @model_validator(mode="after")
    def _stages_form_a_forest(self) -> TrialConfig:
        for name, stage in self.stages.items():
            if stage.parent is None:
                continue
            parent = self.stages.get(stage.parent)
            if not isinstance(parent, WeightsStage):
                trained = sorted(k for k, v in self.stages.items() if isinstance(v, WeightsStage) and k != name)
                why = "is left out" if parent is None else "gives no weights"
                raise FieldRuleError(
                    f"stages.{name}.parent",
                    f"{stage.parent!r} {why}: expected one of {', '.join(trained)}, or stages.{name}=null to leave {name} out",
                )
            if not parent.has_weights_at(parent.nimg_at(stage.snapshot)):
                raise FieldRuleError(
                    f"stages.{name}.snapshot",
                    f"{stage.snapshot} is not a snapshot of {stage.parent}: expected {parent.accepted_snapshots}",
                )
        for name in self.stages:
            self.lineage(name)
        return self

    def scored_on(self, split: ScoredSplit) -> TrialConfig:
        """The same trial, whose probes and scores read ``split`` wherever they read images that nothing is trained on."""
        stages = {
            name: stage.scored_on(split) if isinstance(stage, ProbeStage | GenerateStage) else stage
            for name, stage in self.stages.items()
        }
        return self.model_copy(update={"stages": stages})

    def lineage(self, name: str) -> tuple[str, ...]:
        """The stage's ancestors and itself, oldest first. Raises :class:`FieldRuleError` for a cycle."""
        line = [name]
        while (parent := self.stages[line[0]].parent) is not None:
            if parent in line:
                raise FieldRuleError(f"stages.{name}.parent", f"the stage descends from itself: {' -> '.join([parent, *line])}")
            line.insert(0, parent)
        return tuple(line)
