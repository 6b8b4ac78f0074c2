"""Pages that every build of the site generates from the program itself, so that they are always up to date.

Out: ``reference/cli.md`` from the typer application; ``reference/sweep-file.md``, ``trial.md`` and ``cluster.md`` from the
pydantic models' JSON Schemas; ``reference/presets.md`` and ``reference/questions.md`` from the YAML files. Pages and figures
outside of ``docs/`` (:data:`INCLUDED`) become part of the site too, and links to them are rewritten. All are virtual
files of MkDocs (``File.generated``): nothing is written into ``docs/``.
"""

from __future__ import annotations

import inspect
import json
import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import typer
import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from typer.models import OptionInfo

ROOT = Path(__file__).parents[2]
_CODE = re.compile(r"``([^`]+)``")
_ROLE = re.compile(r":(?:class|func|meth|mod|data):`([^`]+)`")


# Files outside of docs/ that are part of the site: path in the repository -> path in the site.
INCLUDED = {"ARCHITECTURE.md": "architecture.md", "CHANGELOG.md": "changelog.md"} | {
    str(path.relative_to(ROOT)): f"tables/{path.parent.name}{path.suffix}"
    for path in sorted((ROOT / "results" / "reference").glob("*/*"))
    if path.name in ("table.md", "figure.png")
}
_LINK = re.compile(r"(?<=\]\()([^)\s#]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated and the included pages to the site (an event of MkDocs)."""
    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    for origin, path in INCLUDED.items():
        files.append(File.generated(config, path, abs_src_path=str(ROOT / origin)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite links between ``docs/`` and the rest of the repository to the site's paths (an event of MkDocs)."""
    path = page.file.src_uri
    origin = next((origin for origin, included in INCLUDED.items() if included == path), f"docs/{path}")
    return _LINK.sub(lambda match: site_link(match[1], origin, path), markdown)


def site_link(target: str, origin: str, page: str) -> str:
    """The link ``target`` of the repository's file ``origin``, as the site's ``page`` has to write it.

    A target that the site does not have stays as it is, and MkDocs reports it.
    """
    if "://" in target or target.startswith(("mailto:", "/")):
        return target
    inside = posixpath.normpath(posixpath.join(posixpath.dirname(origin), target))
    here = INCLUDED.get(inside, inside.removeprefix("docs/") if inside.startswith("docs/") else None)
    return target if here is None else posixpath.relpath(here, posixpath.dirname(page) or ".")


def pages() -> dict[str, str]:
    """Path below ``docs/`` -> Markdown, for every generated page."""
    return {
        "reference/cli.md": cli_page(),
        "reference/sweep-file.md": schema_page(
            "Sweep files",
            "A sweep file holds a question: what varies, over which seeds, at which scale, and what is reported. "
            "[Trials](trial.md) lists the fields below `trial`. `umd-bench schema` prints this page as a JSON Schema.",
            _schema("sweep"),
        ),
        "reference/trial.md": schema_page(
            "Trials and stages",
            "A trial is one fully specified experiment. Its fields come from presets, the tier, the sweep file, `--set` and "
            "the axes, later ones winning. `umd-bench schema trial` prints this page as a JSON Schema. Units: `nimg` counts "
            "images seen; ratios and shares lie in [0, 1]; `t` is 0 for a clean image and 1..`timesteps` for a noised one.",
            _schema("trial"),
        ),
        "reference/cluster.md": cluster_page(),
        "reference/presets.md": presets_page(),
        "reference/questions.md": questions_page(),
    }


# --- the command line


def cli_page() -> str:
    """Every verb with its arguments and options."""
    from umd_bench.cli import app

    lines = [
        "# Command line",
        "",
        "Every verb, as `umd-bench VERB --help` prints it. Exit codes: 0 done; 1 a stage failed or is missing, or a check of "
        "`doctor` failed; 2 a mistake in the command or a file (one line names it); 130 interrupted.",
        "",
    ]
    for name, callback in _verbs(app, "umd-bench"):
        parameters = [_Parameter(parameter) for parameter in inspect.signature(callback, eval_str=True).parameters.values()]
        arguments = "".join(f" {p.name}" if p.required else f" [{p.name}]" for p in parameters if not p.is_option)
        options = " [OPTIONS]" if any(p.is_option for p in parameters) else ""
        lines += [f"## {name}", "", _text(callback.__doc__ or ""), "", "```text", f"{name}{options}{arguments}", "```", ""]
        lines += _table(("name", "value", "default", "meaning"), [parameter.row() for parameter in parameters])
    return "\n".join(lines) + "\n"


def _verbs(app: typer.Typer, prefix: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Name and function of each verb; verbs of unnamed groups are the parent's own, and come before named groups."""
    for command in app.registered_commands:
        assert command.callback is not None
        yield f"{prefix} {command.name or command.callback.__name__.replace('_', '-')}", command.callback
    for group in sorted(app.registered_groups, key=lambda group: isinstance(group.name, str)):
        assert group.typer_instance is not None
        yield from _verbs(group.typer_instance, f"{prefix} {group.name}" if isinstance(group.name, str) else prefix)


class _Parameter:
    """One argument or option of a verb's function: ``name: Annotated[type, typer.Option(...)] = default``."""

    def __init__(self, parameter: inspect.Parameter) -> None:
        self.kind, self.info = get_args(parameter.annotation)[:2]
        self.is_option = isinstance(self.info, OptionInfo)
        self.required = parameter.default is inspect.Parameter.empty
        self.default = parameter.default
        declared = [self.info.default, *(self.info.param_decls or ())]  # typer has the first flag as the "default"
        flags = ", ".join(flag for flag in declared if isinstance(flag, str))
        self.name = flags if self.is_option else self.info.metavar or parameter.name.upper()
        self.name = self.name.strip("[]")

    def row(self) -> tuple[str, str, str, str]:
        """A row of the verb's table."""
        shown = "" if self.default in (None, False) else f"`{self.default}`"
        environment = f" Also `${self.info.envvar}`." if self.info.envvar else ""
        name = ", ".join(f"`{part}`" for part in self.name.split(", "))
        return _cell(name), self._value(), "required" if self.required else shown, _text(self.info.help or "") + environment

    def _value(self) -> str:
        parts = [part for part in get_args(self.kind) or (self.kind,) if part is not type(None)]
        kind = parts[0]
        many = get_origin(kind) is list or get_origin(self.kind) is list
        if get_origin(kind) is not None:
            kind = get_args(kind)[0]
        names = {bool: "flag", str: "text", int: "whole number", float: "number", Path: "path"}
        value = (self.is_option and self.info.metavar and f"`{self.info.metavar}`") or names.get(kind, str(kind))
        low, high = self.info.min, self.info.max
        value += f", ≥ {low:g}" if low is not None else ""
        value += f", ≤ {high:g}" if high is not None else ""
        return _cell(value) + (", repeatable" if many else "")


# --- fields of YAML files


def _schema(kind: str) -> dict[str, Any]:
    from umd_bench.config.sweep.resolve import json_schema

    return dict(json.loads(json_schema(kind)))


def schema_page(title: str, intro: str, schema: dict[str, Any]) -> str:
    """A page with one table of fields for each model, the root model first."""
    models = {schema["title"]: schema, **schema.get("$defs", {})}
    lines = [f"# {title}", "", intro, ""]
    for name, model in models.items():
        if "properties" not in model:
            continue
        lines += [f"## {name}", "", _text(model.get("description", "")), ""]
        required = set(model.get("required", ()))
        rows = [
            (f"`{field}`", _type(facts), _default(facts, field in required), _text(facts.get("description", "")))
            for field, facts in model["properties"].items()
        ]
        lines += _table(("field", "type", "default", "meaning"), rows)
    return "\n".join(lines) + "\n"


def cluster_page() -> str:
    """The settings of jobs on a cluster."""
    from umd_bench.config.launch.cluster import ClusterConfig

    schema = ClusterConfig.model_json_schema()
    return schema_page(
        "Cluster settings",
        "`clusters/NAME.yaml` holds these settings; `--slurm KEY=VALUE` sets a single one. No setting changes a result, so no "
        "setting is part of a key. [Run on a cluster](../clusters.md) explains them.",
        schema,
    )


def _type(facts: dict[str, Any]) -> str:
    """The type in a JSON Schema, in words: ``number (> 0)``, ``list of integer``, ``fp32 or bf16``."""
    if "$ref" in facts:
        name = facts["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{name.lower()})"
    for union in ("anyOf", "oneOf"):
        if union in facts:
            return " or ".join(dict.fromkeys(_type(part) for part in facts[union]))
    if "const" in facts:
        return f"`{facts['const']}`"
    if "enum" in facts:
        return ", ".join(f"`{value}`" for value in facts["enum"])
    kind = facts.get("type", "any")
    if kind == "array":
        if "prefixItems" in facts:
            return "[" + ", ".join(_type(part) for part in facts["prefixItems"]) + "]"
        return f"list of {_type(facts.get('items', {}))}"
    if kind == "object":
        inner = facts.get("additionalProperties")
        return f"mapping of {_type(inner)}" if isinstance(inner, dict) and inner else "mapping"
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = ", ".join(f"{sign} {facts[key]}" for key, sign in signs.items() if key in facts)
    return f"{kind} ({bounds})" if bounds else str(kind)


def _default(facts: dict[str, Any], required: bool) -> str:
    if required:
        return "required"
    value = facts.get("default")
    if isinstance(value, dict) and value:
        return "its defaults"
    return "" if "default" not in facts else f"`{json.dumps(value, ensure_ascii=False)}`"


# --- YAML files that ship


def presets_page() -> str:
    """Tiers, methods, protocols and profiles: each file's opening comment and its fields."""
    folder = next(path for path in (ROOT / "umd_bench").rglob("presets") if path.is_dir())
    lines = [
        "# Presets",
        "",
        "A trial is filled from these files: the base preset, then the method's, then the tier's, then the sweep file. "
        "Probe protocols and score profiles are presets of one stage.",
        "",
        "## Base",
        "",
        *_yaml_file(folder / "base.yaml"),
    ]
    titles = {"methods": "Methods", "tiers": "Tiers", "probes": "Probe protocols", "profiles": "Score profiles"}
    for kind, title in titles.items():
        lines += [f"## {title}", ""]
        for path in sorted((folder / kind).glob("*.yaml")):
            lines += [f"### {path.stem}", "", *_yaml_file(path)]
    return "\n".join(lines) + "\n"


def questions_page() -> str:
    """The sweeps that ship, with the opening comment of each."""
    from umd_bench.cli.shipped_sweeps import folder

    files = sorted(folder().glob("*.yaml"))
    documents = {path: yaml.safe_load(path.read_text(encoding="utf-8")) for path in files}
    rows = [
        (f"[{path.stem}](#{path.stem})", _text(document["question"]), f"`{document['tier']}`", _varies(document))
        for path, document in documents.items()
    ]
    lines = ["# Questions that ship", "", "Each is a sweep file; `umd-bench sweep NAME` runs it.", ""]
    lines += _table(("name", "question", "tier", "what varies"), rows)
    for path in files:
        lines += [f"## {path.stem}", "", *_yaml_file(path)]
    return "\n".join(lines) + "\n"


def _varies(document: dict[str, Any]) -> str:
    paths = [*document.get("axes", {}), *document.get("search", {}).get("space", {})]
    return ", ".join(f"`{path.split(',')[0].strip().split('.')[-1]}`" for path in paths)


def _yaml_file(path: Path) -> list[str]:
    """The file's opening comment as prose, then its fields as code."""
    text = path.read_text(encoding="utf-8").splitlines()
    head = 0
    while head < len(text) and text[head].startswith("#"):
        head += 1
    comment = "\n".join(line.removeprefix("#").strip() for line in text[:head])
    prose = re.sub(r"\n(?=(From|Costs|Cost|Run|Source):)", "\n\n", comment)
    prose = re.sub(r"(?m)^Run:\s+(.*)$", r"Run: `\1`", prose)
    return [_escaped(prose), "", "```yaml", *text[head:], "```", ""]


# --- Markdown


def _text(text: str) -> str:
    """One paragraph of plain English: a docstring's double backticks and roles become Markdown's code."""
    text = _ROLE.sub(lambda match: f"`{match[1].rsplit('.', 1)[-1]}`", text)
    return _cell(_CODE.sub(r"`\1`", " ".join(text.split())))


def _cell(text: str) -> str:
    """Text of a table's cell: a ``|`` would end the cell, in code too."""
    text = re.sub(r"`([^`]*\|[^`]*)`", lambda match: f"<code>{match[1].replace('|', '&#124;')}</code>", _escaped(text))
    return text.replace("|", "&#124;")


def _escaped(text: str) -> str:
    """Escape ``<``, ``*``, ``_`` and ``[`` outside of code, which Markdown would read as markup."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([<*_\[])", r"\\\1", part) for part in parts)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    if not rows:
        return []
    lines = [head, ("---",) * len(head), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines] + [""]
