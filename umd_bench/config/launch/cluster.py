"""The resources that each job requests from a cluster: ``clusters/NAME.yaml`` with ``--slurm key=value`` on top.

No setting changes a stage's result or is part of a key.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from umd_bench.config.documents.document import Document, Location, read_document
from umd_bench.config.documents.fields import Frozen
from umd_bench.config.documents.validation import validate
from umd_bench.config.errors import FieldRuleError, UserError

CLUSTERS = Path("clusters")
# Options of sbatch that this program sets for every job. Users may not set them, because sbatch uses only one of two values.
OURS = frozenset(
    {
        *("array", "chdir", "comment", "dependency", "error", "export", "job-name", "kill-on-invalid-dep", "no-requeue"),
        *("open-mode", "output", "parsable", "requeue", "signal", "wrap"),
    }
)
_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<hours>\d+):(?P<minutes>\d\d)(?::(?P<seconds>\d\d))?")
_UNITS = {"m": 1, "h": 60, "d": 24 * 60}


def _minutes(value: object) -> object:
    """A duration in minutes, rounded up. Numbers are refused, because YAML reads an unquoted 1:30:00 as 5400."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not accepted: expected a duration such as 30m, 4h, 2d or '1-12:00:00', in quotes")
    text = value.strip()
    if text.isdigit():
        minutes = int(text)
    elif text[:-1].isdigit() and text[-1:] in _UNITS:
        minutes = int(text[:-1]) * _UNITS[text[-1]]
    elif match := _TIME.fullmatch(text):
        days, hours, minute, seconds = (int(part or 0) for part in match.groups())
        minutes = days * 24 * 60 + hours * 60 + minute + (seconds > 0)
    else:
        raise ValueError(f"{value!r} is not accepted: expected a duration such as 30m, 4h, 2d or '1-12:00:00'")
    if minutes < 1:
        raise ValueError(f"{value!r} is not accepted: expected at least one minute")
    return minutes


def _one_line(value: str) -> str:
    if not value.strip() or "\n" in value:
        raise ValueError(f"{value!r} is not accepted: expected one line of text")
    return value


def _size(value: str) -> str:
    if not re.fullmatch(r"\d+[KMGT]?", value):
        raise ValueError(f"{value!r} is not accepted: expected a size such as 8G or 500M")
    return value


def _sbatch_line(value: str) -> str:
    name = value.removeprefix("--").partition("=")[0]
    if not re.fullmatch(r"--[a-z][a-z0-9-]*(=[^\n]+)?", value):
        raise ValueError(f"{value!r} is not accepted: expected an option of sbatch such as --reservation=NAME")
    if name in OURS:
        raise ValueError(f"{value!r} is not accepted: --{name} is set for every job already; leave it out")
    return value


Text = Annotated[str, AfterValidator(_one_line)]


class ClusterConfig(Frozen):
    """The resources of one job, and the number of jobs. For a field that is null, the cluster's default applies.

    A stage that needs longer than ``time`` is warned ``signal_seconds`` before the end, saves its state, and continues in a
    requeued job. A stage on several devices has a job of its own, with ``cpus`` and a GPU for each device.
    """

    partition: Text | None = Field(default=None, description="partition (queue) of the jobs")
    account: Text | None = Field(default=None, description="account that the jobs are charged to")
    qos: Text | None = Field(default=None, description="quality of service of the jobs")
    time: Annotated[int, BeforeValidator(_minutes)] = Field(
        default=60, description="time limit of a job, such as 30m, 4h, 2d or '1-12:00:00'; default: one hour"
    )
    gpus: int = Field(default=0, ge=0, description="GPUs per job")
    nodes: int = Field(default=1, ge=1, description="nodes that a stage on several devices is spread over")
    cpus: int | None = Field(default=None, ge=1, description="CPUs per job, or per device of a stage on several devices")
    mem: Annotated[str, AfterValidator(_size)] | None = Field(
        default=None, description="memory per node, as Slurm writes it: 8G, 500M"
    )
    constraint: Text | None = Field(default=None, description="features that the nodes must have")
    exclude: Text | None = Field(default=None, description="nodes that must not be used")
    nodelist: Text | None = Field(default=None, description="nodes that must be used")
    max_running: int = Field(default=256, ge=1, description="largest number of tasks of a job array that run at the same time")
    max_submitted: int = Field(default=1000, ge=1, description="largest number of stages that are queued or running")
    pack: int = Field(default=1, ge=1, description="stages that run in one job, if they are ready at the same time")
    side_by_side: int = Field(
        default=1, ge=1, description="stages of a job that run at the same time and share its GPU and memory; at most pack"
    )
    signal_seconds: int = Field(default=90, ge=5, description="seconds before the time limit at which a job is warned")
    extra: tuple[Annotated[str, AfterValidator(_sbatch_line)], ...] = Field(
        default=(), description="further options of sbatch, such as --reservation=NAME"
    )
    setup: tuple[Text, ...] = Field(default=(), description="shell lines that run in the job before the stage")

    @model_validator(mode="after")
    def _side_by_side_at_most_pack(self) -> ClusterConfig:
        if self.side_by_side > self.pack:
            raise FieldRuleError(
                "side_by_side", f"{self.side_by_side} is not accepted: expected at most pack = {self.pack}, the stages of a job"
            )
        return self


_LISTS = ("extra", "setup")


def load_cluster(name: str | None, options: Sequence[str]) -> ClusterConfig:
    """The settings of ``clusters/NAME.yaml`` (or of a YAML file), with ``key=value`` options on top.

    An option for a list appends to it. Raises :class:`UserError` that names the file and line, or the option, and the accepted
    values.
    """
    document = Document({}) if name is None else read_document(_file(name))
    for option in options:
        key, equals, text = option.partition("=")
        if not equals or not key:
            raise UserError(f"--slurm {option!r} is not accepted: expected key=value, such as partition=gpu or time=4h")
        value: Any = [*document.value.get(key, []), text] if key in _LISTS else text
        document = document.patched((key,), value, Location(f"--slurm {key}"))
    return validate(ClusterConfig, document)


def _file(name: str) -> Path:
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return path
    path = CLUSTERS / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in CLUSTERS.glob("*.yaml"))) or "none"
        raise UserError(f"--cluster {name!r} is not accepted: there is no {path}; expected a YAML file or one of: {known}")
    return path
