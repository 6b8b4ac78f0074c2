"""What a trial is: one fully specified experiment, as frozen models that refuse unknown fields.

Units: ``nimg`` counts images seen; ratios and probabilities lie in [0, 1]; ``t`` is 0 for a clean image and 1..timesteps
for a noised one. The presets of ``config/presets`` fill these fields with the paper's values (UMD paper, appendix).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from umd_bench.config.documents.fields import Name
from umd_bench.config.documents.frozen import Frozen
from umd_bench.config.errors import FieldRuleError
from umd_bench.config.trial.data import DataConfig
from umd_bench.config.trial.generate_stage import GenerateStage
from umd_bench.config.trial.model import ModelConfig
from umd_bench.config.trial.noise import NoiseConfig
from umd_bench.config.trial.probe_stage import ProbeStage
from umd_bench.config.trial.train_stage import ImportStage, TrainStage, WeightsStage

Stage = Annotated[TrainStage | ImportStage | ProbeStage | GenerateStage, Field(discriminator="kind")]


class Resources(Frozen):
    """What one stage occupies. Threads and devices change the order of sums and so the bits: the same on every executor."""

    threads: int = Field(default=1, ge=1, description="of each device")
    devices: int = Field(default=1, ge=1, description="that a training stage is spread over; other stages take one")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compile: bool = Field(
        default=False,
        description="train and sample through torch.compile: minutes of compiling, kept in the user's cache (docs/compile.md)",
    )


class TrialConfig(Frozen):
    """One experiment: method, model, data, noise, stages, seed."""

    method: Name = Field(description="the preset the fields came from; a label, not part of any key")
    model: ModelConfig
    data: DataConfig
    noise: NoiseConfig = NoiseConfig()
    stages: dict[Name, Stage] = Field(min_length=1)
    seed: int = Field(default=0, ge=0, lt=2**31)
    resources: Resources = Resources()

    @model_validator(mode="after")
    def _every_device_has_an_image(self) -> TrialConfig:
        for name, stage in self.stages.items():
            if isinstance(stage, TrainStage) and self.resources.devices > stage.batch:
                raise FieldRuleError(
                    "resources.devices",
                    f"{self.resources.devices} is not accepted: stages.{name} has batches of {stage.batch}, "
                    "and each device takes an image at least",
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
                    f"{stage.parent!r} {why}: expected one of {', '.join(trained)}, or stages.{name}=null to leave this out",
                )
            if not parent.can_keep(parent.nimg_at(stage.snapshot)):
                raise FieldRuleError(
                    f"stages.{name}.snapshot",
                    f"{stage.snapshot} is none of {stage.parent}'s: expected {parent.kept_at}",
                )
        for name in self.stages:
            self.lineage(name)
        return self

    def lineage(self, name: str) -> tuple[str, ...]:
        """The stage's ancestors and itself, oldest first; a cycle raises :class:`FieldRuleError`."""
        line = [name]
        while (parent := self.stages[line[0]].parent) is not None:
            if parent in line:
                raise FieldRuleError(f"stages.{name}.parent", f"the stage descends from itself: {' -> '.join([parent, *line])}")
            line.insert(0, parent)
        return tuple(line)
