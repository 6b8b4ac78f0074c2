"""YAML files: reading them field by field gives the same values as reading them as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from umd_bench.store import files
from umd_bench.store.files import read_yaml, read_yaml_fields, write_yaml

VALUES = {
    "stage": {"kind": "probe", "shots": [1, 10], "data": None},
    "text": "a: b\nseed: 3\n\n# c",
    "seed": 3,
    "list": [[], {}],
}

LAYOUTS = {
    "flow over lines": "a: {b: 1,\nc: 2}\nd: 3\n",
    "quotes over lines": 'a: "x\n\n  b: 2"\nc: 3\n',
    "quotes to the margin": 'a: "x\nb: 2"\n',
    "a literal": "a: |\n  b: 1\n  c: 2\nd: [1,\n  2]\n",
    "anchors": "a: &x {b: 1}\nc: *x\n",
    "merge": "a: &x {b: 1}\nc:\n  <<: *x\n  d: 2\n",
    "another spelling": '"a": 1\nB: 2\nc: 3\nd : 4\n',
    "a comment first": "# of a stage\na: 1\n# b: 2\nc: 3 # d\n",
    "a marker": "---\na: 1\nb: 2\n...\n",
    "tags": "a: !!str 1\nb: 2020-01-01\nc: 0x1f\n",
    "twice": "a: 1\na: 2\n",
    "no end": "a: 1\nb:",
    "a list": "- a: 1\n- b\n",
    "a scalar": "a",
    "nothing": "",
}
BROKEN = {
    "two documents": "a: 1\n---\nb: 2\n",
    "two documents, the first with an end": "a: 1\n...\nb: 2\n",
    "an anchor twice": "a: &x 1\nb: &x 2\n",
    "a bracket": "a: 1\nb: [1\nc: 2\n",
    "no colon": "a: 1\nb\n",
    "an unknown tag": "a: !x 1\n",
}


@pytest.mark.parametrize("text", LAYOUTS.values(), ids=LAYOUTS)
def test_reading_by_fields_gives_the_same_values(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    fields, whole = read_yaml_fields(path), read_yaml(path)
    assert fields == whole
    assert not isinstance(whole, dict) or list(fields) == list(whole)


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_reading_a_broken_file_by_fields_raises_the_same_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(yaml.YAMLError) as whole:
        read_yaml(path)
    with pytest.raises(yaml.YAMLError) as fields:
        read_yaml_fields(path)
    assert str(fields.value) == str(whole.value)


def test_equal_fields_of_several_files_are_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    load = yaml.load

    def counted(text: str, loader: Any) -> Any:
        parsed.append(text)
        return load(text, loader)

    monkeypatch.setattr(files.yaml, "load", counted)
    files._parsed.cache_clear()
    for seed in range(100, 110):
        path = tmp_path / f"{seed}.yaml"
        write_yaml(path, VALUES | {"seed": seed})
        assert read_yaml_fields(path) == VALUES | {"seed": seed}
    assert len(parsed) == len(VALUES) - 1 + 10
