"""The stage that draws samples and scores them."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Protocol, get_args

from pydantic import Field, model_validator

from umd_bench.config.documents.fields import Frozen, Name, Snapshot
from umd_bench.config.errors import FieldError, FieldRuleError, one_of
from umd_bench.config.trial.data import SPLITS, ScoredSplit
from umd_bench.config.trial.model import ModelConfig
from umd_bench.config.trial.noise import NoiseConfig

ScoreName = Literal["fd", "fd_inf", "kid", "is", "accuracy", "precision_recall", "sfid", "memorised"]
SCORES: tuple[ScoreName, ...] = get_args(ScoreName)
SAMPLERS = ("ddim", "ddim-official", "ddim-x0", "dpmpp-2m", "euler", "heun")  # implemented in engine/samplers.py
# The scores of a stage that states none. A key leaves out default scores, so results from before the field existed are reused.
DEFAULT_SCORES: tuple[ScoreName, ...] = ("fd", "is", "accuracy")


class GenerateStage(Frozen):
    """Samples drawn from a parent's weights, and their scores."""

    component: ClassVar[str] = "generate"

    kind: Literal["generate"] = Field(
        default="generate", description="generate: draw samples from a parent's weights, score them"
    )
    parent: Name = Field(description="the stage whose weights draw the samples")
    snapshot: Snapshot | None = Field(
        default=None,
        description="point in the parent's training: images seen, or a share of its length in (0, 1]; null: its end",
    )
    n: int = Field(ge=2, description="number of samples per sampling seed")
    sampling_seeds: int = Field(default=1, ge=1, description="number of independent sample sets; a score is the mean over them")
    sampler: Name = Field(default="ddim", description=f"sampler: one of {', '.join(SAMPLERS)}")
    steps: int = Field(
        default=125, ge=1, description="sampling steps; at most T with a schedule of whole times (linear, cosine)"
    )
    eta: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="ddim only: fresh noise per step, from 0 (deterministic) to 1 (ancestral); null: 1 for ddim",
    )
    cfg_scale: float = Field(default=1.0, ge=0, description="classifier-free guidance scale; 1 is no guidance")
    cfg_interval: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]] | None = Field(
        default=None, description="guide only at times t in [lowest, highest], both included; null: at all times"
    )
    clip: bool = Field(default=True, description="clip the predicted clean image to [-1, 1] at every step; for pixels only")
    labels: Literal["balanced", "drawn"] = Field(
        default="balanced",
        description="classes of the samples: sample i gets class i mod K, or the class of a training image drawn at random",
    )
    ema: bool = Field(default=True, description="sample from the average of the weights, if the parent keeps one")
    extractor: Name = Field(description="feature extractor of the scores: `umd-bench extractor list` shows them")
    more_extractors: tuple[Name, ...] = Field(
        default=(), description="further extractors to score the same samples with; [] for none"
    )
    scores: tuple[ScoreName, ...] = Field(
        default=DEFAULT_SCORES,
        min_length=1,
        description="scores to compute; is and accuracy need an extractor with classes, sfid needs an Inception extractor",
    )
    reference: str = Field(
        default="test",
        description="real images to compare with: the split train, validation or test, or the path of a published .npz",
    )
    reference_sha256: str | None = Field(
        default=None,
        pattern="^[0-9a-f]{64}$",
        description="SHA-256 of the reference file, in hex; null: computed from the file",
    )
    held_out: ScoredSplit | None = Field(
        default=None,
        description="split of real images that nothing is trained on; memorised reads it, and so does the floor (the score of "
        "real images) if the reference is train; null: the reference if it is test or validation, else test",
    )
    save: bool = Field(default=False, description="save the samples of the first sampling seed as samples.npz")
    precision: Literal["fp32", "bf16"] = Field(
        default="fp32", description="bf16 runs the model under autocast; the sampler's own arithmetic stays fp32"
    )
    batch: int = Field(default=250, ge=1, description="samples computed at once; does not change the samples")

    @model_validator(mode="after")
    def _consistent(self) -> GenerateStage:
        if self.eta is not None and not self.is_ddim:
            raise FieldRuleError("eta", f"{self.eta} is not accepted: the sampler {self.sampler} takes no eta, only ddim does")
        if self.cfg_interval is not None and self.cfg_interval[0] > self.cfg_interval[1]:
            raise FieldRuleError("cfg_interval", f"{list(self.cfg_interval)} is empty: expected [lowest t, highest t]")
        if not self.is_split and not self.reference.endswith(".npz"):
            raise FieldRuleError(
                "reference", f"{self.reference!r} is not accepted: expected {', '.join(SPLITS)}, or the path of an .npz"
            )
        if self.is_split and self.reference_sha256 is not None:
            raise FieldRuleError(
                "reference_sha256",
                f"is not accepted: only a file has a hash, and reference = {self.reference} is a split of the data set",
            )
        if self.held_out is not None and self.reference in get_args(ScoredSplit) and self.held_out != self.reference:
            raise FieldRuleError(
                "held_out",
                f"{self.held_out} is not accepted: the reference {self.reference} is held out itself; expected null",
            )
        extractors = self.all_extractors
        if len(set(extractors)) < len(extractors):
            raise FieldRuleError(
                "more_extractors",
                f"{list(self.more_extractors)} is not accepted: expected each extractor once, without {self.extractor}",
            )
        if len(extractors) > 1 and not self.is_split:
            raise FieldRuleError(
                "more_extractors",
                f"{list(self.more_extractors)} is not accepted: a reference file holds the statistics of one extractor; "
                "expected []",
            )
        if len(set(self.scores)) < len(self.scores):
            raise FieldRuleError("scores", f"{list(self.scores)} is not accepted: expected each score once")
        return self

    def scored_on(self, split: ScoredSplit) -> GenerateStage:
        """The same scores, which read ``split`` wherever they need real images that nothing is trained on.

        A reference that is the training split or a file stays. Then only the floor and the memorisation alarm read ``split``.
        """
        if self.reference in get_args(ScoredSplit):
            return self.model_copy(update={"reference": split, "held_out": None})
        return self.model_copy(update={"held_out": split})

    @property
    def is_split(self) -> bool:
        """Whether the reference is a split of the data set, not a file."""
        return self.reference in SPLITS

    @property
    def held_out_split(self) -> str:
        """The split that the memorisation alarm reads, and the floor if the reference is train: "test" or "validation"."""
        if self.held_out is not None:
            return self.held_out
        return self.reference if self.reference in get_args(ScoredSplit) else "test"

    @property
    def all_extractors(self) -> tuple[str, ...]:
        """The extractor, and the further ones."""
        return (self.extractor, *self.more_extractors)

    @property
    def is_ddim(self) -> bool:
        """Whether the sampler is of the DDIM family, which takes ``eta``."""
        return self.sampler.split("-")[0] == "ddim"

    def identity(self, model: ModelConfig, noise: NoiseConfig, *, seed: int, parent_ema: bool) -> dict[str, Any]:
        """The stage's part of its key: the noise process and the settings that change samples or scores."""
        fields = self.model_dump(mode="json", exclude={"parent", "snapshot", "batch", "held_out"})
        fields.pop("reference_sha256" if self.is_split else "reference")
        fields["scores"] = sorted(self.scores)
        # A key leaves out fields of later versions that have their defaults, so older results are reused.
        later = {"scores": sorted(DEFAULT_SCORES), "more_extractors": [], "save": False, "precision": "fp32"}
        fields = {name: value for name, value in fields.items() if name not in later or value != later[name]}
        if not self.is_split or self.reference == "train":
            fields |= {} if self.held_out_split == "test" else {"held_out": self.held_out_split}
        fields["ema"] = self.ema and parent_ema
        if self.cfg_scale == 1:
            fields.pop("cfg_interval")
        return {"stage": fields, "seed": seed, "noise": noise.model_dump(mode="json")}


class Times(Protocol):
    """The times of a noise process: ``timesteps`` is T, ``discrete`` says whether only whole times exist."""

    @property
    def timesteps(self) -> int: ...

    @property
    def discrete(self) -> bool: ...


def check_sampler(config: GenerateStage, times: Times, *, guidable: bool, path: str = "stages.generate") -> None:
    """Raise :class:`FieldError` below ``path`` for settings with which samples cannot be drawn.

    These are an unknown sampler, more steps than there are whole times, guidance of a model without classes (not ``guidable``),
    and a guidance interval that ends after the last time.
    """
    T = times.timesteps
    if config.sampler not in SAMPLERS:
        raise FieldError(f"{path}.sampler", config.sampler, one_of(SAMPLERS))
    if times.discrete and config.steps > T:
        raise FieldError(f"{path}.steps", config.steps, f"expected 1..{T}")
    if config.cfg_scale != 1 and not guidable:
        raise FieldError(f"{path}.cfg_scale", config.cfg_scale, "expected 1, since there are no classes to guide by")
    if config.cfg_interval is not None and config.cfg_interval[1] > T:
        raise FieldError(f"{path}.cfg_interval", list(config.cfg_interval), f"expected two times within 0..{T}")
