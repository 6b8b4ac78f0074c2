"""Strings that name a module or function of this package name one that exists, so a rename is noticed before a job runs."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

import umd_bench

PACKAGE = Path(umd_bench.__file__).parent
# A name with one part after the package, such as "umd_bench.trial", is a tag in MLflow.
_NAME = re.compile(r"umd_bench((\.[a-z_]\w*){2,}|(\.[a-z_]\w*)+:\w+)")


def named() -> dict[str, str]:
    """Name -> the first file with a string constant that consists of this name alone (a docstring may be one)."""
    found: dict[str, str] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and _NAME.fullmatch(node.value):
                found.setdefault(node.value, str(path.relative_to(PACKAGE.parent)))
    return found


def resolve(name: str) -> object:
    """The object of ``module``, ``module:attribute`` or ``module.attribute``; raises ImportError or AttributeError."""
    module, _, attribute = name.partition(":")
    if attribute:
        return getattr(importlib.import_module(module), attribute)
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        return getattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize(("name", "file"), sorted(named().items()))
def test_a_name_in_a_string_imports(name: str, file: str) -> None:
    assert resolve(name) is not None, f"{file} names {name}"


def test_the_entry_points_of_other_processes_are_among_the_names() -> None:
    names = named()
    assert any(name.endswith(":run_stage") for name in names)
    assert len(names) >= 8


def test_a_name_that_is_gone_is_noticed() -> None:
    with pytest.raises(ModuleNotFoundError):
        resolve("umd_bench.no_such_room.run:stage")
    with pytest.raises(AttributeError):
        resolve("umd_bench.config.errors:no_such_function")
