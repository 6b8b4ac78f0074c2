"""YAML documents that remember where every value came from, so that an error can name the file and the line.

A :class:`Document` is a tree of plain values with the :class:`Location` of each path in it. Documents can be merged, cut into
parts and patched by ``--set``. In a merge the fields of the later mapping win over those of the earlier one. A list replaces
the earlier list, and a mapping replaces the earlier mapping if the two have different values of ``kind``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from umd_bench.config.errors import UserError

Path_ = tuple[str | int, ...]


@dataclass(frozen=True)
class Location:
    """Where a value was given: a file and a line (from 1), or a command-line option (no line)."""

    source: str
    line: int | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


@dataclass(frozen=True)
class Document:
    """Plain values (mappings, lists, scalars) and the locations they were read from."""

    value: dict[str, Any]
    locations: dict[Path_, Location] = field(default_factory=dict)

    def location(self, path: Path_) -> Location | None:
        """The location of the value at ``path``; None if nothing is known.

        A value without a location of its own has the location of a value below it (``--set`` gives single leaves), or else of
        the nearest enclosing mapping.
        """
        for end in range(len(path), 0, -1):
            at = path[:end]
            given = self.locations.get(at) or next((known for p, known in self.locations.items() if p[:end] == at), None)
            if given is not None:
                return given
        return self.locations.get(())

    def part(self, *path: str) -> Document:
        """The mapping at ``path`` as a document of its own; empty if the path is missing.

        Raises :class:`UserError` if the value there is not a mapping.
        """
        value: Any = self.value
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        if value is None:
            return Document({})
        if not isinstance(value, dict):
            raise UserError(
                f"{self.location(path)}: {'.'.join(path)} = {value!r} is not accepted: expected a mapping of fields"
            )
        return Document(value, {p[len(path) :]: at for p, at in self.locations.items() if p[: len(path)] == path})

    def below(self, *path: str) -> Document:
        """A document in which all values of this one stand below ``path``, and nothing else."""
        value = self.value
        for name in reversed(path):
            value = {name: value}
        return Document(value, {(*path, *p): at for p, at in self.locations.items()})

    def without(self, name: str) -> Document:
        """The document without the top-level field ``name``."""
        rest = {k: v for k, v in self.value.items() if k != name}
        return Document(rest, {p: at for p, at in self.locations.items() if p[:1] != (name,)})

    def over(self, base: Document) -> Document:
        """``base`` with this document's values on top."""
        locations = dict(base.locations)
        value = _merge(base.value, self.value, (), locations)
        return Document(value, locations | self.locations)

    def patched(self, path: Path_, value: Any, location: Location) -> Document:
        """The document with ``value`` set at ``path``."""
        tree: Any = value
        for name in reversed(path):
            tree = {name: tree}
        return Document(tree, dict.fromkeys(_paths_below(value, path), location)).over(self)


def _merge(base: dict[str, Any], over: dict[str, Any], path: Path_, locations: dict[Path_, Location]) -> dict[str, Any]:
    """``over`` on top of ``base``; removes the locations of replaced values from ``locations``."""
    merged = dict(base)
    for name, value in over.items():
        here = (*path, name)
        previous = merged.get(name)
        if isinstance(value, dict) and isinstance(previous, dict) and not _differ_in_kind(previous, value):
            merged[name] = _merge(previous, value, here, locations)
        else:
            for stale in _paths_below(previous, here):
                locations.pop(stale, None)
            merged[name] = value
    return merged


def _differ_in_kind(base: dict[str, Any], over: dict[str, Any]) -> bool:
    """Whether the two state different values of ``kind``. Fields of one kind of stage mean nothing in another."""
    return "kind" in base and "kind" in over and base["kind"] != over["kind"]


def _paths_below(value: Any, path: Path_) -> Iterator[Path_]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, child in items:
        yield from _paths_below(child, (*path, name))


def read_document(
    path: Path, *, name: str | None = None, expected: str = "a YAML file", _seen: tuple[Path, ...] = ()
) -> Document:
    """Read a YAML mapping. If it says ``extends: OTHER.yaml`` (relative to itself), merge it on top of that file.

    Errors call the file ``name`` (default: its path). The error for a file that cannot be read says that ``expected`` was
    expected. Raises :class:`UserError` for a missing file, broken YAML, a repeated field, and a file that extends itself.
    """
    resolved = path.resolve()
    if resolved in _seen:
        raise UserError(f"{path}: the file extends itself through {' -> '.join(p.name for p in (*_seen, resolved))}")
    try:
        text = path.read_text()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {_suggestion(path)}expected {expected}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not a text file; expected {expected}") from None
    document = parse_document(text, name or str(path))
    if "extends" not in document.value:
        return document
    parent = document.value["extends"]
    location = document.location(("extends",))
    if not isinstance(parent, str):
        raise UserError(f"{location}: extends = {parent!r} is not accepted: expected the path of a YAML file")
    base = read_document(path.parent / parent, expected=f"a YAML file, because {location} extends it", _seen=(*_seen, resolved))
    return document.without("extends").over(base)


def _suggestion(path: Path) -> str:
    """``did you mean sweeps/mask_ratio.yaml?`` if a file with a similar name is in the same folder or in ``sweeps``."""
    names = {file.name: file for folder in (Path("sweeps"), path.parent) for file in folder.glob("*.yaml")}
    close = difflib.get_close_matches(f"{path.stem}.yaml", names, n=1, cutoff=0.8)
    return f"did you mean {names[close[0]]}? " if close else ""


def parse_document(text: str, source: str) -> Document:
    """Parse a text that is one YAML mapping; errors call it ``source``. Raises :class:`UserError` for any other text."""
    locations: dict[Path_, Location] = {(): Location(source)}  # also for an empty file
    try:
        # Not libyaml's loader: on a file that is nested very deeply, that one crashes the process.
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is not None:
            _collect_locations(node, (), source, locations)
        value = None if node is None else loader.construct_document(node)
    except RecursionError:
        raise UserError(f"{source}: nested too deeply: expected fields of a few levels") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise UserError(f"{source}:{line}: broken YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{source}: broken YAML: {error}") from None
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise UserError(f"{source}: expected a mapping of fields, found {type(value).__name__}")
    return Document(value, locations)


def _collect_locations(node: yaml.Node, path: Path_, source: str, locations: dict[Path_, Location]) -> None:
    locations[path] = Location(source, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, child in node.value:
            name = str(key.value)
            if name in seen:
                raise UserError(f"{source}:{key.start_mark.line + 1}: field {name!r} is given twice")
            seen.add(name)
            _collect_locations(child, (*path, name), source, locations)
            locations[(*path, name)] = Location(source, key.start_mark.line + 1)
    elif isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            _collect_locations(child, (*path, index), source, locations)


def parse_set(option: str) -> tuple[Path_, Any, Location]:
    """Split ``key.path=value`` of ``--set`` into path, value (read as YAML) and location.

    Raises :class:`UserError` if the option has another form or its value is not YAML.
    """
    name, equals, text = option.partition("=")
    if not equals or not all(name.split(".")):
        raise UserError(f"--set {option!r} is not accepted: expected key.path=value, such as seed=1 or model.width=64")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError):
        raise UserError(f"--set {option!r} is not accepted: {text!r} is not a YAML value") from None
    return tuple(name.split(".")), value, Location(f"--set {name}")
