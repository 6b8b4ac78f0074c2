"""The table of crossings has the same cells in every format, and the report has it only for a sweep over snapshots."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from reporting.built_curves import VALUES, built

from umd_bench.reporting.pages import crossing_table
from umd_bench.reporting.report import report_json, write_report
from umd_bench.reporting.statistics.summary import summarize


def test_a_row_says_who_overtakes_whom_where_and_how_sure(tmp_path: Path) -> None:
    curves = built(tmp_path, VALUES)
    assert curves is not None
    (row,) = crossing_table.cells(curves).to_dict("records")
    (crossing,) = curves.crossings
    assert row == {
        "read-out": "probe 100-shot",
        "ahead before": "umd",
        "ahead after": "mae",
        "at images seen": f"{crossing.images:,.0f}",
        "95% interval": f"{crossing.low:,.0f} to {crossing.high:,.0f}",
        "seeds that cross": "3 of 3",
    }
    pages = (crossing_table.markdown(curves), crossing_table.latex(curves, "length"), crossing_table.html(curves, "length"))
    assert all(f"{crossing.images:,.0f}" in page and crossing_table.TITLE in page for page in pages)


def test_an_open_interval_and_no_interval_are_told_apart(tmp_path: Path) -> None:
    unsure = VALUES | {"mae": [[0.30, 0.42, 0.45], [0.29, 0.43, 0.42], [0.31, 0.44, 0.46]]}
    several = built(tmp_path / "several", unsure)
    one = built(tmp_path / "one", {method: values[:1] for method, values in VALUES.items()})
    assert several is not None
    assert one is not None
    assert crossing_table.cells(several)["95% interval"].item().endswith(" to open")
    assert crossing_table.cells(one)["95% interval"].item() == "–"


def test_curves_that_do_not_cross_give_one_sentence(tmp_path: Path) -> None:
    curves = built(tmp_path, {"umd": [[0.4, 0.4, 0.4]] * 2, "mae": [[0.3, 0.3, 0.3]] * 2})
    assert curves is not None
    assert crossing_table.NONE in crossing_table.markdown(curves)
    assert crossing_table.NONE in crossing_table.latex(curves, "length")
    assert crossing_table.NONE in crossing_table.html(curves, "length")


@pytest.mark.slow
def test_the_report_has_the_crossings_on_its_pages_as_csv_and_as_json(tmp_path: Path) -> None:
    curves = built(tmp_path, VALUES)
    assert curves is not None
    paths = write_report(summarize(tmp_path, "length"), tmp_path)
    assert crossing_table.TITLE in paths.table_md.read_text()
    assert crossing_table.TITLE in paths.table_html.read_text()
    assert paths.crossings_csv is not None
    written = pd.read_csv(paths.crossings_csv)
    assert written["images"].tolist() == [curves.crossings[0].images]
    assert report_json(tmp_path, "length")["crossings"][0]["after"] == "mae"
    # the same sweep drawn along another axis has no curves, and its old file goes
    other = write_report(summarize(tmp_path, "length", x="method"), tmp_path)
    assert other.crossings_csv is None
    assert not paths.crossings_csv.exists()
