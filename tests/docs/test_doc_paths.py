"""Every path, module and ``file.py::name`` in the documentation exists, and every link leads to a file."""

from __future__ import annotations

import ast
import importlib.util
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "umd_bench"
PAGES = [*sorted(ROOT.glob("*.md")), ROOT / "results" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Written by docs/hooks/reference.py when the site is built; `make docs` checks the links to them.
GENERATED = ROOT / "docs" / "reference"
_CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)\s]*)?\)")
_PATH = re.compile(r"[\w.-]+(/[\w.-]+)*/?")
_NAME_IN_FILE = re.compile(r"([\w./-]+\.py)::(\w+)")
_MODULE = re.compile(r"umd_bench(\.[a-z_0-9]+)+")
# Folders of the repository and of the package. A path that begins with one of them can only mean this repository.
_OURS = {path.name for folder in (ROOT, PACKAGE) for path in folder.iterdir() if path.is_dir()} - {
    "results",
    "data",
    "store",
    "site",
}


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def named_paths(page: Path) -> Iterator[str]:
    """Code spans of a page that are paths of this repository. Spans with ``NAME`` are left out, since it is a placeholder."""
    for span in _CODE.findall(page.read_text(encoding="utf-8")):
        if _PATH.fullmatch(span) and "/" in span and "NAME" not in span:
            first = span.split("/")[0]
            if span.endswith(".py") or first in _OURS:
                yield span


def exists(path: str) -> bool:
    """Whether a path is there, below the repository or below the package."""
    return any((folder / path).exists() for folder in (ROOT, PACKAGE))


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_path_that_a_page_names_exists(page: Path) -> None:
    assert [path for path in named_paths(page) if not exists(path)] == []


def defines(path: str, name: str) -> bool:
    """Whether a file of the repository or of the package has a function, class or variable of this name at its top level."""
    file = next((folder / path for folder in (ROOT, PACKAGE) if (folder / path).exists()), None)
    if file is None:
        return False
    nodes = ast.parse(file.read_text(encoding="utf-8")).body
    names = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    for node in nodes:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return name in names


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_name_in_a_file_that_a_page_names_is_defined_there(page: Path) -> None:
    spans = [match for span in _CODE.findall(page.read_text(encoding="utf-8")) if (match := _NAME_IN_FILE.fullmatch(span))]
    assert [match[0] for match in spans if match[1] != "file.py" and not defines(match[1], match[2])] == []


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_module_that_a_page_names_exists(page: Path) -> None:
    spans = _CODE.findall(page.read_text(encoding="utf-8"))
    modules = [span for span in spans if _MODULE.fullmatch(span)]
    assert [module for module in modules if importlib.util.find_spec(module) is None] == []


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_local_link_of_a_page_leads_somewhere(page: Path) -> None:
    targets = [page.parent / link for link in _LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    dead = [target for target in targets if not target.exists() and GENERATED not in target.resolve().parents]
    assert [str(target) for target in dead] == []


def test_the_architecture_page_orders_the_packages_as_the_import_contract_does() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    [layers] = [contract["layers"] for contract in contracts if contract["name"] == "Packages import downwards only"]
    order = " -> ".join(layer.replace("umd_bench.", "") for layer in layers)
    assert f"\n    {order}\n" in (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")


def test_paths_are_found_in_the_pages() -> None:
    found = {path for page in PAGES for path in named_paths(page)}
    assert len(found) > 40
    assert not exists("umd_bench/engine/no_such_file.py")
    assert defines("engine/diffusion/schedules.py", "SCHEDULES")
    assert not defines("engine/diffusion/schedules.py", "no_such_schedule")
