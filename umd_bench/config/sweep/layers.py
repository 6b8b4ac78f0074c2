"""The layers that the fields of a trial come from.

Later layers win: ``presets/base.yaml``, the method's preset, the tier's ``trial``, the tier's ``methods`` entry for the method,
the file's ``trial`` (or the trial file itself), ``--set``, the axis values. The last three are merged first and count as one
layer, in which a later value replaces a null: ``--set`` can bring back a stage that the file sets to null. If any layer sets a
stage to null, the trial does not have this stage, even if another layer sets its fields.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from typing import Any

from umd_bench.config.documents.document import Document, Location
from umd_bench.config.documents.presets import read_preset, read_tier, with_protocols
from umd_bench.config.trial.data import ScoredSplit
from umd_bench.config.trial.model_names import expand_model_name


@dataclass(frozen=True)
class Layers:
    """Documents merged in order (the last one wins), and the names of the stages that any of them sets to null."""

    merged: Document
    null: frozenset[str]

    def with_top(self, layer: Document) -> Layers:
        """One more layer on top, with its protocols expanded."""
        layer = with_protocols(layer)
        stages = layer.value.get("stages")
        null = {name for name, stage in stages.items() if stage is None} if isinstance(stages, dict) else set()
        return Layers(layer.over(self.merged), self.null | null)

    @property
    def document(self) -> Document:
        """The document of the trial: without the stages that any layer sets to null."""
        if not self.null:
            return self.merged
        stages = {name: stage for name, stage in self.merged.value["stages"].items() if name not in self.null}
        return replace(self.merged, value={**self.merged.value, "stages": stages})


@dataclass(frozen=True)
class TrialLayers:
    """The layers that all trials of a file share: the ``own`` fields of the file, and the presets and the tier below them.

    ``split``, if given, is the split that every stage of the trials is scored on; with None each stage keeps its own. The
    layers of each method are merged once.
    """

    own: Document
    tier: Any
    tier_location: Location | None
    split: ScoredSplit | None = None
    _merged: dict[str, Layers] = field(default_factory=dict)

    def of_method(self, method: str) -> Layers:
        """Presets and tier for a method, which must exist. Raises :class:`UserError` for an unknown tier."""
        if method not in self._merged:
            layers = [read_preset("base.yaml"), read_preset(f"methods/{method}.yaml")]
            if self.tier is not None:
                tier = read_tier(self.tier, self.tier_location)
                tier = expand_model_name(expand_model_name(tier, "trial"), "methods", method)
                layers += [tier.part("trial"), tier.part("methods", method)]
            self._merged[method] = functools.reduce(Layers.with_top, layers, Layers(Document({}), frozenset()))
        return self._merged[method]
