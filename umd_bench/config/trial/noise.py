"""The noise process that all stages of a trial share: the schedule, its parameters, and the prediction target."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from umd_bench.config.documents.fields import Frozen
from umd_bench.config.errors import FieldRuleError, one_of

# Schedule -> its parameters, with the values of its paper (cited in engine/diffusion/schedules.py). The values are here so that
# a parameter that is given with its default value leads to the same key as one that is left out.
SCHEDULE_PARAMETERS: dict[str, dict[str, float]] = {
    "linear": {},
    "cosine": {},
    "sigmoid": {"start": -3.0, "end": 3.0, "tau": 1.0},
    "laplace": {"mu": 0.0, "b": 0.5},
    "edm": {"p_mean": -1.2, "p_std": 1.2, "sigma_min": 0.002, "sigma_max": 80.0, "rho": 7.0},
    "flow-uniform": {},
    "flow-logit-normal": {"mean": 0.0, "std": 1.0},
    "flow-shifted": {"shift": 3.0},
}
_DISCRETE = ("linear", "cosine")  # tables of T whole times; the other schedules are defined for any time in [1, T]
_ABOVE_ZERO = ("tau", "b", "p_std", "sigma_min", "sigma_max", "rho", "std", "shift")
_ORDERED = (("start", "end"), ("sigma_min", "sigma_max"))


class NoiseConfig(Frozen):
    """The noise process of a trial (UMD paper, section 3)."""

    schedule: str = Field(default="cosine", description=f"noise schedule: one of {', '.join(SCHEDULE_PARAMETERS)}")
    parameters: dict[str, float] = Field(
        default_factory=dict, description="parameters of the schedule, name -> value; those left out have the paper's values"
    )
    timesteps: int = Field(default=1000, ge=2, description="T: a noised image has a time t in 1..T; 0 is a clean image")
    prediction: Literal["eps", "x_0", "v"] = Field(
        default="eps", description="prediction target for visible patches: the noise, the clean image, or the velocity"
    )

    @property
    def discrete(self) -> bool:
        """Whether the schedule is defined for whole times only."""
        return self.schedule in _DISCRETE

    @model_validator(mode="before")
    @classmethod
    def _every_parameter(cls, given: Any) -> Any:
        """Fill in the parameters that are left out; refuse an unknown schedule or parameter."""
        if not isinstance(given, dict) or not isinstance(given.get("parameters", {}), dict):
            return given
        schedule, parameters = given.get("schedule", "cosine"), given.get("parameters", {})
        if not isinstance(schedule, str) or schedule not in SCHEDULE_PARAMETERS:
            raise FieldRuleError("schedule", f"{schedule!r} is not accepted: {one_of(SCHEDULE_PARAMETERS)}")
        defaults = SCHEDULE_PARAMETERS[schedule]
        for name in parameters:
            if name not in defaults:
                accepted = one_of(defaults) if defaults else "expected no parameters"
                raise FieldRuleError(f"parameters.{name}", f"is not a parameter of the schedule {schedule}: {accepted}")
        return {**given, "parameters": {**defaults, **parameters}}

    @model_validator(mode="after")
    def _ranges(self) -> NoiseConfig:
        for name, value in self.parameters.items():
            if name in _ABOVE_ZERO and value <= 0:
                raise FieldRuleError(f"parameters.{name}", f"{value} is not accepted: expected a number above 0")
        for low, high in _ORDERED:
            if low in self.parameters and self.parameters[low] >= self.parameters[high]:
                reason = f"{self.parameters[high]} is not accepted: expected a number above {low} = {self.parameters[low]}"
                raise FieldRuleError(f"parameters.{high}", reason)
        return self
