"""Which data a trial sees: the set, its size, the latents it is turned into."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from umd_bench.config.documents.fields import Name
from umd_bench.config.documents.frozen import Frozen
from umd_bench.config.errors import FieldRuleError

# Data sets whose images have one size, in pixels: what their files are rendered, padded or measured at. All others have none.
OWN_SIZES = {"digits": 8, "fashion_mnist": 32, "emoji64": 64}


class DataConfig(Frozen):
    """Which data set, and at which size; channels and classes are facts of the data source (``data/datasets.py``)."""

    name: Name
    size: int | None = Field(default=None, ge=1, description="image side in pixels; None: the data set's own")
    vae: Name | None = Field(
        default=None, description="train on its latents: a name of data/datasets.py or one ending in -f8c4"
    )

    @model_validator(mode="after")
    def _own_size(self) -> DataConfig:
        own = OWN_SIZES.get(self.name)
        if own is not None and self.size not in (None, own):
            raise FieldRuleError("size", f"{self.size} is not accepted: images of {self.name} have {own} pixels a side")
        return self

    @property
    def side(self) -> int | None:
        """Image side in pixels; None where neither the configuration nor the data set has one."""
        return self.size or OWN_SIZES.get(self.name)

    def like(self, other: DataConfig) -> DataConfig:
        """This data set at the size, and in the latents, of ``other`` where it states none and has none."""
        if self.side is not None:
            return self
        return self.model_copy(update={"size": other.side, "vae": self.vae or other.vae})

    def identity(self) -> dict[str, Any]:
        """What a key hashes: a size that the data set has anyway is left out, and so is what is not set."""
        own = {"size"} if self.size == OWN_SIZES.get(self.name) else set()
        return self.model_dump(mode="json", exclude=own, exclude_none=True)
