"""What is asked of a cluster for each job: ``clusters/NAME.yaml`` and, on top of it, ``--slurm key=value``.

Nothing here changes a stage's result, so nothing here is part of a key.
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
# Lines of a job that are this project's own: two of one name would leave it open which holds.
OURS = frozenset(
    {
        *("array", "chdir", "comment", "dependency", "error", "export", "job-name", "kill-on-invalid-dep", "no-requeue"),
        *("open-mode", "output", "parsable", "requeue", "signal", "wrap"),
    }
)
_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<hours>\d+):(?P<minutes>\d\d)(?::(?P<seconds>\d\d))?")
_UNITS = {"m": 1, "h": 60, "d": 24 * 60}


def _minutes(value: object) -> object:
    """A duration in minutes, rounded up. YAML reads a bare 1:30:00 as a number of seconds, so bare numbers are refused."""
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
        raise ValueError(f"{value!r} is not accepted: --{name} is set for every job already")
    return value


Text = Annotated[str, AfterValidator(_one_line)]


class ClusterConfig(Frozen):
    """What one job asks for, and how many there may be. Nothing set is the cluster's own default.

    ``time`` in minutes (written 30m, 4h, 2d, '1-12:00:00'); a stage that needs longer is warned ``signal_seconds`` before the
    end, saves its state and goes on in another life of the job. ``gpus`` and ``cpus`` are per job, ``mem`` per node, as Slurm
    writes it (8G); a stage on several devices has ``cpus`` for each, a GPU for each where there are any, and is spread over
    ``nodes``. ``max_running`` caps the tasks of an array side by side, ``max_submitted`` the stages queued and running.
    ``pack`` is how many stages that are ready together run in one job, ``side_by_side`` of them at a time, which share its GPU
    and memory; a stage on several devices has a job of its own.
    """

    partition: Text | None = None
    account: Text | None = None
    qos: Text | None = None
    time: Annotated[int, BeforeValidator(_minutes)] = 60
    gpus: int = Field(0, ge=0)
    nodes: int = Field(1, ge=1)
    cpus: int | None = Field(None, ge=1)
    mem: Annotated[str, AfterValidator(_size)] | None = None
    constraint: Text | None = None
    exclude: Text | None = None
    nodelist: Text | None = None
    max_running: int = Field(256, ge=1)
    max_submitted: int = Field(1000, ge=1)
    pack: int = Field(1, ge=1)
    side_by_side: int = Field(1, ge=1)
    signal_seconds: int = Field(90, ge=5)
    extra: tuple[Annotated[str, AfterValidator(_sbatch_line)], ...] = ()
    setup: tuple[Text, ...] = ()

    @model_validator(mode="after")
    def _no_more_side_by_side_than_there_are(self) -> ClusterConfig:
        if self.side_by_side > self.pack:
            raise FieldRuleError(
                "side_by_side", f"{self.side_by_side} is not accepted: expected at most pack = {self.pack}, the stages of a job"
            )
        return self


_LISTS = ("extra", "setup")


def load_cluster(name: str | None, options: Sequence[str]) -> ClusterConfig:
    """The settings of ``clusters/NAME.yaml`` (or of a file), with ``key=value`` options on top; the lists grow by each option.

    Raises :class:`UserError` with the file and line, or the option, and what would be accepted.
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
