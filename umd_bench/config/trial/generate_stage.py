"""The stage that draws samples and scores them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Protocol, get_args

from pydantic import Field, model_validator

from umd_bench.config.documents.fields import Name, Snapshot
from umd_bench.config.documents.frozen import Frozen
from umd_bench.config.errors import FieldError, FieldRuleError, one_of

ScoreName = Literal["fd", "fd_inf", "kid", "is", "accuracy", "precision_recall", "sfid", "memorised"]
SCORES: tuple[ScoreName, ...] = get_args(ScoreName)
SPLITS = ("train", "test")
SAMPLERS = ("ddim", "ddim-official", "ddim-x0", "dpmpp-2m", "euler", "heun")  # what engine/samplers.py draws with
# What a stage without the field scores; left out of its key, so that results from before there was a choice stay its own.
DEFAULT_SCORES: tuple[ScoreName, ...] = ("fd", "is", "accuracy")


class GenerateStage(Frozen):
    """Sampling of a parent and the scores of its samples."""

    kind: Literal["generate"] = "generate"
    parent: Name
    snapshot: Snapshot | None = None
    n: int = Field(ge=2, description="samples a sampling seed")
    sampling_seeds: int = Field(default=1, ge=1, description="independent sample sets; scores are their mean")
    sampler: Name = Field(default="ddim", description=f"one of {', '.join(SAMPLERS)}")
    steps: int = Field(default=125, ge=1)
    eta: float | None = Field(
        default=None, ge=0, le=1, description="of ddim: 0 is deterministic, 1 (its default) ancestral; others take none"
    )
    cfg_scale: float = Field(default=1.0, ge=0, description="guidance; 1 is none")
    cfg_interval: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]] | None = Field(
        default=None, description="guide only at times t within these two, both included; None: at all"
    )
    clip: bool = Field(default=True, description="clip x_0 to [-1, 1] at every step (pixel space)")
    labels: Literal["balanced", "drawn"] = "balanced"
    ema: bool = Field(default=True, description="sample from the average where the parent keeps one")
    extractor: Name = Field(description="a name of evaluation/extractors/registry.py, or timm:NAME")
    more_extractors: tuple[Name, ...] = Field(default=(), description="further ones that the same samples are scored with")
    scores: tuple[ScoreName, ...] = Field(
        default=DEFAULT_SCORES,
        min_length=1,
        description="is and accuracy where the extractor reads classes, sfid with Inception's",
    )
    reference: str = Field(default="test", description="train, test, or the path of a published .npz with statistics")
    reference_sha256: str | None = Field(
        default=None, pattern="^[0-9a-f]{64}$", description="SHA-256 of that file, in hex; read from it when left out"
    )
    save: bool = Field(default=False, description="keep the first sampling seed's samples, as samples.npz")
    precision: Literal["fp32", "bf16"] = Field(
        default="fp32", description="bf16 is autocast in the model; the sampler's own arithmetic stays fp32"
    )
    batch: int = Field(default=250, ge=1, description="samples at once; changes no sample")

    @model_validator(mode="after")
    def _fields_that_act(self) -> GenerateStage:
        if self.eta is not None and not self.is_ddim:
            raise FieldRuleError("eta", f"{self.eta} is not accepted: the sampler {self.sampler} takes no eta, only ddim does")
        if self.cfg_interval is not None and self.cfg_interval[0] > self.cfg_interval[1]:
            raise FieldRuleError("cfg_interval", f"{list(self.cfg_interval)} is empty: expected [lowest t, highest t]")
        if not self.is_split and not self.reference.endswith(".npz"):
            raise FieldRuleError(
                "reference", f"{self.reference!r} is not accepted: expected train, test, or the path of an .npz"
            )
        if self.is_split and self.reference_sha256 is not None:
            raise FieldRuleError("reference_sha256", f"only a file has one, and reference is the {self.reference} split")
        extractors = self.all_extractors
        if len(set(extractors)) < len(extractors):
            raise FieldRuleError("more_extractors", f"{list(self.more_extractors)} names one twice, or the extractor itself")
        if len(extractors) > 1 and not self.is_split:
            raise FieldRuleError("more_extractors", "a reference file holds the statistics of one extractor: expected none")
        if len(set(self.scores)) < len(self.scores):
            raise FieldRuleError("scores", f"{list(self.scores)} names one twice")
        return self

    @property
    def is_split(self) -> bool:
        """Whether the reference is a split of the data set, not a file."""
        return self.reference in SPLITS

    @property
    def all_extractors(self) -> tuple[str, ...]:
        """The extractor, and the further ones."""
        return (self.extractor, *self.more_extractors)

    def identity(self) -> dict[str, Any]:
        """The fields that change what the stage gives, but the parent: those added later are left out where they are idle."""
        fields = self.model_dump(mode="json", exclude={"parent", "snapshot", "batch"})
        fields.pop("reference_sha256" if self.is_split else "reference")
        fields["scores"] = sorted(self.scores)
        idle = {"scores": sorted(DEFAULT_SCORES), "more_extractors": [], "save": False, "precision": "fp32"}
        return {name: value for name, value in fields.items() if name not in idle or value != idle[name]}

    @property
    def is_ddim(self) -> bool:
        """Whether the sampler is of the family that ``eta`` belongs to."""
        return self.sampler.split("-")[0] == "ddim"


class Times(Protocol):
    """What of a noise process matters to a sampler's settings: T, and whether there are whole times only."""

    @property
    def timesteps(self) -> int: ...

    @property
    def discrete(self) -> bool: ...


def check_sampler(config: GenerateStage, times: Times, *, guidable: bool, path: str = "stages.generate") -> None:
    """Raise :class:`FieldError` below ``path`` for what cannot be sampled.

    That is an unknown sampler, more steps than there are times, guidance without classes (not ``guidable``), and an interval of
    guidance outside of the times.
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
