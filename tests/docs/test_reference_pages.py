"""The generated reference pages show the verbs, the fields, the shipped sweeps and presets of each kind."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from umd_bench.cli import shipped_sweeps
from umd_bench.config.sweep.sweep import SweepConfig
from umd_bench.config.trial.train_stage import TrainStage

pytest.importorskip("mkdocs")
HOOK = Path(__file__).parents[2] / "docs" / "hooks" / "reference.py"


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference_pages", HOOK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages(hook: ModuleType) -> dict[str, str]:
    return dict(hook.pages())


@pytest.mark.parametrize("verb", ["sweep", "plan", "data pack", "bench all", "mlflow ui", "extractor fetch", "export"])
def test_a_verb_has_a_section(pages: dict[str, str], verb: str) -> None:
    assert f"\n## umd-bench {verb}\n" in pages["reference/cli.md"]


def test_an_option_is_shown_with_its_flag_default_and_help(pages: dict[str, str]) -> None:
    [row] = {line for line in pages["reference/cli.md"].splitlines() if line.startswith("| `--results` | path | `results`")}
    assert "$UMD_BENCH_RESULTS" in row
    assert "| `` |" not in pages["reference/cli.md"]


@pytest.mark.parametrize(("page", "model"), [("sweep-file", SweepConfig), ("trial", TrainStage)])
def test_every_field_is_in_a_table(pages: dict[str, str], page: str, model: type[SweepConfig] | type[TrainStage]) -> None:
    text = pages[f"reference/{page}.md"]
    assert [name for name in model.model_fields if f"| `{name}` |" not in text] == []


def test_every_shipped_sweep_and_presets_of_each_kind_are_shown(pages: dict[str, str]) -> None:
    assert [name for name in shipped_sweeps.names() if f"\n## {name}\n" not in pages["reference/questions.md"]] == []
    for name in ("digits", "imagenet64", "umd", "dit_scratch", "full", "adm-50k"):
        assert f"\n### {name}\n" in pages["reference/presets.md"]


@pytest.mark.parametrize(
    ("target", "origin", "page", "link"),
    [
        ("../results/reference/precision/table.md", "docs/performance.md", "performance.md", "tables/precision.md"),
        ("docs/fusion.md", "ARCHITECTURE.md", "architecture.md", "fusion.md"),
        ("../clusters.md", "docs/tutorials/laptop.md", "tutorials/laptop.md", "../clusters.md"),
        ("../../ARCHITECTURE.md", "docs/how-to/extend.md", "how-to/extend.md", "../architecture.md"),
        ("../Makefile", "docs/index.md", "index.md", "../Makefile"),
    ],
)
def test_a_link_changes_only_if_its_target_has_another_path_in_the_site(
    hook: ModuleType, target: str, origin: str, page: str, link: str
) -> None:
    assert hook.site_link(target, origin, page) == link
