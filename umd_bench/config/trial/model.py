"""The auto-encoder's shape, and what published architectures fix of it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from umd_bench.config.documents.frozen import Frozen
from umd_bench.config.errors import FieldError, FieldRuleError, one_of

# What the architecture of a published family fixes.
_FIXED: dict[str, dict[str, int | bool]] = {
    "mae": {"decoder_depth": 0, "class_tokens": 1, "adaln": False},
    "dit": {"decoder_depth": 0, "class_tokens": 0, "adaln": True},
}

# Which tokens of a family can be pooled into a representation; the first is its own unless an import says otherwise.
POOLS: dict[str, tuple[str, ...]] = {
    "umd": ("class", "first_class", "patches"),
    "mae": ("class", "patches"),
    "dit": ("patches",),
}


class ModelConfig(Frozen):
    """The auto-encoder's shape (UMD paper, section 4); the decoder has the encoder's width.

    ``family`` is ``umd`` for everything that is trained here. ``mae`` and ``dit`` are published encoders without a decoder,
    which come in through an import stage (engine/published) and are evaluated, not trained.
    """

    family: Literal["umd", "mae", "dit"] = Field(default="umd", description="umd, or a published model's own architecture")
    patch: int = Field(ge=1, description="patch side in pixels")
    width: int = Field(ge=8, description="token width of encoder and decoder")
    depth: int = Field(ge=1, description="encoder blocks")
    decoder_depth: int = Field(ge=0, description="decoder blocks; 0 in the families without a decoder")
    heads: int = Field(ge=1, description="attention heads")
    class_tokens: int = Field(default=4, ge=0)
    adaln: bool = Field(default=True, description="condition by adaptive LayerNorm; otherwise by one extra token a block")

    @model_validator(mode="after")
    def _shape(self) -> ModelConfig:
        if self.width % self.heads:
            raise FieldRuleError("width", f"{self.width} must be a multiple of heads = {self.heads}")
        if self.width % 2:
            raise FieldRuleError("width", f"{self.width} must be even (sine and cosine halves of the time embedding)")
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
                raise FieldRuleError(field, f"{getattr(self, field)} is not accepted: the family {self.family} has {only}")
        return self

    @property
    def can_sample(self) -> bool:
        """Whether the family predicts anything that a sampler could use."""
        return self.family != "mae"

    def require_own(self, what: str) -> None:
        """Raise :class:`FieldError` unless the family is our own; ``what`` is what only that one can do."""
        if self.family != "umd":
            raise FieldError("model.family", self.family, f"only the family umd can be {what}; {self.family} is evaluated only")

    def check_representation(self, block: int | None, pool: str | None, path: str) -> None:
        """Raise :class:`FieldError` below ``path`` unless the model has such an encoder block and such tokens."""
        if block is not None and not 1 <= block <= self.depth:
            raise FieldError(f"{path}.block", block, f"expected 1..{self.depth}, the encoder's blocks")
        if pool is not None and pool not in POOLS[self.family]:
            raise FieldError(f"{path}.pool", pool, f"the family {self.family} has other tokens; {one_of(POOLS[self.family])}")
