"""Which data set a trial uses: its name, its image size, and the VAE whose latents are used instead of pixels."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import Field, model_validator

from umd_bench.config.documents.fields import Frozen, Name
from umd_bench.config.errors import FieldRuleError

# Data sets whose images have a fixed size, in pixels a side; all others are packed at a size that the configuration chooses.
OWN_SIZES = {"digits": 8, "contrast16": 16, "fashion_mnist": 32, "emoji64": 64}

ScoredSplit = Literal["test", "validation"]  # a split of images that nothing is trained on
SPLITS = ("train", *reversed(get_args(ScoredSplit)))  # the splits of every pack


class DataConfig(Frozen):
    """A data set at a size; ``data/datasets.py`` states its channels and classes."""

    name: Name = Field(description="name of the data set; `umd-bench data list` shows all names, also of your own data sets")
    size: int | None = Field(
        default=None, ge=1, description="image side in pixels; null: the fixed size that a built-in data set has"
    )
    vae: Name | None = Field(
        default=None,
        description="train on latents of this VAE: sd-vae-ft-ema, sd-vae-ft-mse, sd_kl_f8, or a name that states its geometry "
        "(my-vae-f8c4: side divided by 8, 4 channels); null: train on pixels",
    )

    @model_validator(mode="after")
    def _own_size(self) -> DataConfig:
        own = OWN_SIZES.get(self.name)
        if own is not None and self.size not in (None, own):
            raise FieldRuleError(
                "size",
                f"{self.size} is not accepted: images of {self.name} have {own} pixels a side; expected {own} or no size",
            )
        return self

    @property
    def side(self) -> int | None:
        """Image side in pixels; None if neither the configuration nor the data set has one."""
        return self.size or OWN_SIZES.get(self.name)

    def like(self, other: DataConfig) -> DataConfig:
        """This data set at the size of ``other``, with the VAE of ``other`` if it has none; unchanged if this has a size."""
        if self.side is not None:
            return self
        return self.model_copy(update={"size": other.side, "vae": self.vae or other.vae})

    def identity(self) -> dict[str, Any]:
        """The fields that a key hashes: all that are set, without the size if the data set has only one."""
        own = {"size"} if self.size == OWN_SIZES.get(self.name) else set()
        return self.model_dump(mode="json", exclude=own, exclude_none=True)
