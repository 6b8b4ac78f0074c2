"""YAML documents that remember where every value came from, so that an error can name the file and the line.

A :class:`Document` is a tree of plain values and, for every path in it, its :class:`Place`. Documents are merged (a later
mapping's fields win over an earlier's, lists are replaced, and so is a mapping by one of another ``kind``), cut into parts, and
patched by ``--set``.
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
class Place:
    """A file and a line (from 1), or a command-line option."""

    source: str
    line: int | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


@dataclass(frozen=True)
class Document:
    """Plain values (mappings, lists, scalars) and the places they were read from."""

    value: dict[str, Any]
    places: dict[Path_, Place] = field(default_factory=dict)

    def place(self, path: Path_) -> Place | None:
        """Where the value at ``path`` came from, or (as with ``--set``) one below it, or else the nearest enclosing one."""
        for end in range(len(path), 0, -1):
            at = path[:end]
            given = self.places.get(at) or next((place for p, place in self.places.items() if p[:end] == at), None)
            if given is not None:
                return given
        return self.places.get(())

    def part(self, *path: str) -> Document:
        """The mapping below ``path`` as a document of its own; empty where there is none."""
        value: Any = self.value
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        if value is None:
            return Document({})
        if not isinstance(value, dict):
            raise UserError(f"{self.place(path)}: {'.'.join(path)} = {value!r} is not accepted: expected a mapping of fields")
        return Document(value, {p[len(path) :]: place for p, place in self.places.items() if p[: len(path)] == path})

    def below(self, *path: str) -> Document:
        """The document as the mapping at ``path`` of another."""
        value = self.value
        for name in reversed(path):
            value = {name: value}
        return Document(value, {(*path, *p): place for p, place in self.places.items()})

    def without(self, name: str) -> Document:
        """The document less one top-level field."""
        rest = {k: v for k, v in self.value.items() if k != name}
        return Document(rest, {p: place for p, place in self.places.items() if p[:1] != (name,)})

    def over(self, base: Document) -> Document:
        """This document's values on top of ``base``'s."""
        places = dict(base.places)
        value = _merge(base.value, self.value, (), places)
        return Document(value, places | self.places)

    def patched(self, path: Path_, value: Any, place: Place) -> Document:
        """The document with one value set."""
        tree: Any = value
        for name in reversed(path):
            tree = {name: tree}
        return Document(tree, dict.fromkeys(_paths_below(value, path), place)).over(self)


def _merge(base: dict[str, Any], over: dict[str, Any], path: Path_, places: dict[Path_, Place]) -> dict[str, Any]:
    merged = dict(base)
    for name, value in over.items():
        below = (*path, name)
        beneath = merged.get(name)
        if isinstance(value, dict) and isinstance(beneath, dict) and not _of_two_kinds(beneath, value):
            merged[name] = _merge(beneath, value, below, places)
        else:
            for stale in _paths_below(beneath, below):
                places.pop(stale, None)
            merged[name] = value
    return merged


def _of_two_kinds(base: dict[str, Any], over: dict[str, Any]) -> bool:
    """Fields of one kind of stage mean nothing in another."""
    return "kind" in base and "kind" in over and base["kind"] != over["kind"]


def _paths_below(value: Any, path: Path_) -> Iterator[Path_]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, child in items:
        yield from _paths_below(child, (*path, name))


def read_document(
    path: Path, *, name: str | None = None, expected: str = "a YAML file", _seen: tuple[Path, ...] = ()
) -> Document:
    """Read a YAML mapping and, where it says ``extends: OTHER.yaml`` (relative to itself), put it on top of that one.

    ``name`` is what errors call the file, its path when left out; ``expected`` what they say could have been given instead of a
    file that is not there. Raises :class:`UserError` for a missing file, broken YAML, a repeated field, a file that extends
    itself.
    """
    resolved = path.resolve()
    if resolved in _seen:
        raise UserError(f"{path}: extends itself through {' -> '.join(p.name for p in (*_seen, resolved))}")
    try:
        text = path.read_text()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {_meant(path)}expected {expected}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not text; expected {expected}") from None
    document = parse_document(text, name or str(path))
    if "extends" not in document.value:
        return document
    parent = document.value["extends"]
    if not isinstance(parent, str):
        raise UserError(
            f"{document.place(('extends',))}: extends = {parent!r} is not accepted: expected the path of a YAML file"
        )
    beneath = f"a YAML file, as {document.place(('extends',))} extends it"
    return document.without("extends").over(read_document(path.parent / parent, expected=beneath, _seen=(*_seen, resolved)))


def _meant(path: Path) -> str:
    """``did you mean sweeps/mask_ratio.yaml?`` where a file of nearly that name is there, or in ``sweeps``."""
    names = {file.name: file for folder in (Path("sweeps"), path.parent) for file in folder.glob("*.yaml")}
    close = difflib.get_close_matches(f"{path.stem}.yaml", names, n=1, cutoff=0.8)
    return f"did you mean {names[close[0]]}? " if close else ""


def parse_document(text: str, source: str) -> Document:
    """Parse one YAML mapping; ``source`` names it in errors."""
    places: dict[Path_, Place] = {(): Place(source)}  # of an empty file too
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is not None:
            _collect(node, (), source, places)
        value = None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise UserError(f"{source}:{line}: broken YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{source}: broken YAML: {error}") from None
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise UserError(f"{source}: expected a mapping of fields, found {type(value).__name__}")
    return Document(value, places)


def _collect(node: yaml.Node, path: Path_, source: str, places: dict[Path_, Place]) -> None:
    places[path] = Place(source, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, child in node.value:
            name = str(key.value)
            if name in seen:
                raise UserError(f"{source}:{key.start_mark.line + 1}: field {name!r} is given twice")
            seen.add(name)
            _collect(child, (*path, name), source, places)
            places[(*path, name)] = Place(source, key.start_mark.line + 1)
    elif isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            _collect(child, (*path, index), source, places)


def parse_set(option: str) -> tuple[Path_, Any, Place]:
    """``key.path=value`` of ``--set``, the value read as YAML."""
    name, equals, text = option.partition("=")
    if not equals or not all(name.split(".")):
        raise UserError(f"--set {option!r} is not accepted: expected key.path=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise UserError(f"--set {option!r} is not accepted: {text!r} is not a YAML value") from None
    return tuple(name.split(".")), value, Place(f"--set {name}")
