"""The shape of the auto-encoder, and the values that published architectures fix."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from umd_bench.config.documents.fields import Frozen
from umd_bench.config.errors import FieldError, FieldRuleError, one_of

# Values that the architecture of a published family fixes.
_FIXED: dict[str, dict[str, int | bool]] = {
    "mae": {"decoder_depth": 0, "class_tokens": 1, "adaln": False},
    "dit": {"decoder_depth": 0, "class_tokens": 0, "adaln": True},
}

# The tokens of each family that can be pooled into a representation. The first is the default, unless an import states another.
POOLS: dict[str, tuple[str, ...]] = {
    "umd": ("class", "first_class", "patches"),
    "mae": ("class", "patches"),
    "dit": ("patches",),
}


class ModelConfig(Frozen):
    """The auto-encoder's shape (UMD paper, section 4); the decoder is as wide as the encoder.

    Every model that is trained here has the family ``umd``. ``mae`` and ``dit`` are published encoders without a decoder: an
    import stage (engine/published) loads them, and they are evaluated, not trained.
    """

    family: Literal["umd", "mae", "dit"] = Field(
        default="umd", description="architecture: umd (all models trained here), or the published mae or dit (evaluated only)"
    )
    patch: int = Field(ge=1, description="side of a patch, in pixels or latent positions")
    width: int = Field(ge=8, description="token width of encoder and decoder; an even number, and a multiple of heads")
    depth: int = Field(ge=1, description="number of encoder blocks")
    decoder_depth: int = Field(ge=0, description="number of decoder blocks; at least 1 for umd, 0 for mae and dit")
    heads: int = Field(ge=1, description="number of attention heads; has to divide width")
    class_tokens: int = Field(default=4, ge=0, description="number of class tokens; at least 1 for umd, 1 for mae, 0 for dit")
    adaln: bool = Field(
        default=True, description="condition on time and class by adaptive LayerNorm; false: by one extra token per block"
    )

    @model_validator(mode="after")
    def _shape(self) -> ModelConfig:
        if self.width % self.heads:
            raise FieldRuleError("width", f"{self.width} is not accepted: expected a multiple of heads = {self.heads}")
        if self.width % 2:
            raise FieldRuleError(
                "width", f"{self.width} is not accepted: expected an even number (sine and cosine halves of the time embedding)"
            )
        return self

    @model_validator(mode="after")
    def _family(self) -> ModelConfig:
        if self.family == "umd":
            for field in ("decoder_depth", "class_tokens"):
                if getattr(self, field) < 1:
                    raise FieldRuleError(field, f"{getattr(self, field)} is not accepted: expected at least 1")
            return self
        for field, only in _FIXED[self.family].items():
            if getattr(self, field) != only:
                raise FieldRuleError(
                    field, f"{getattr(self, field)} is not accepted: expected {only}, which the family {self.family} has"
                )
        return self

    @property
    def can_sample(self) -> bool:
        """Whether the family predicts noise, images or velocities, which samplers need."""
        return self.family != "mae"

    def require_own(self, use: str) -> None:
        """Raise :class:`FieldError` unless the family is ``umd``; ``use`` completes "only the family umd can be ..."."""
        if self.family != "umd":
            raise FieldError("model.family", self.family, f"only the family umd can be {use}; {self.family} is evaluated only")

    def check_representation(self, block: int | None, pool: str | None, path: str) -> None:
        """Raise :class:`FieldError` below ``path`` if the model has no encoder block ``block`` or cannot pool ``pool``."""
        if block is not None and not 1 <= block <= self.depth:
            raise FieldError(f"{path}.block", block, f"expected 1..{self.depth}, the encoder's blocks")
        if pool is not None and pool not in POOLS[self.family]:
            raise FieldError(f"{path}.pool", pool, f"the family {self.family} has other tokens; {one_of(POOLS[self.family])}")
