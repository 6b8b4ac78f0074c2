"""The benchmark of training measures what was asked for, says ratios of one run, and refuses what it cannot measure."""

from __future__ import annotations

import json
import os
from functools import partial

import pytest
import torch

from umd_bench.bench.measurements.compile_time import Compiling, compile_remarks
from umd_bench.bench.measurements.train import bench_train, train_spec
from umd_bench.bench.tables import Table, number
from umd_bench.bench.timing.machine import machine_facts
from umd_bench.bench.timing.peak import SIDES, precisions_of
from umd_bench.bench.timing.profile import kind_of
from umd_bench.bench.timing.rates import Rate, ratio
from umd_bench.config.errors import FieldError, UserError
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.config.trial.train_stage import TrainStage

CPU = torch.device("cpu")


def spec_of(**fields: object) -> StageSpec:
    given = {"method": "umd", "tier": "digits", "model": None, "size": None, "stage": "pretrain", "batch": 4, "device": CPU}
    return train_spec(**{**given, **fields})  # type: ignore[arg-type]


def rate_of(*each: float) -> Rate:
    return Rate(sorted(each)[len(each) // 2], min(each), max(each), len(each), 1, each)


def test_a_ratio_is_of_each_repeat_so_that_a_slow_while_cancels() -> None:
    found = ratio(rate_of(20, 2, 30), rate_of(10, 1, 10))
    assert (found.median, found.smallest, found.largest) == (2, 2, 3)


def test_every_number_of_a_run_is_there_and_the_ratios_are_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("umd_bench.bench.timing.rates.REPEAT_SECONDS", 0.01)
    monkeypatch.setitem(SIDES, "cpu", 64)
    machine = machine_facts(CPU, None, "a processor")
    found = bench_train(spec_of(sets=["model.depth=1"]), machine=machine, baseline=True, profile=True, repeats=1, device=CPU)
    plain = json.loads(json.dumps(found.as_json()))
    assert set(plain["steps"]) == {"engine fp32", "engine bf16", "plain eager fp32"} == set(plain["utilisation"])
    assert set(plain["times_plain"]) == {"engine fp32", "engine bf16"}
    assert set(plain["peaks"]) == {"fp32", "bf16"}
    for name, step in plain["steps"].items():
        peak = plain["peaks"][found.precisions[name]]
        expected = step["median"] * found.flops_per_image / peak["median"]
        assert plain["utilisation"][name]["median"] == pytest.approx(expected)
    shares = {part.name: part.share for part in found.profiles["engine fp32"]}
    assert sum(shares.values()) == pytest.approx(1)
    assert {"matrix products", "attention", "optimiser"} <= set(shares)
    assert len(found.tables()) == 5
    assert "as fast as the plain eager fp32 step" in found.remarks()[0]


def test_a_compiled_step_is_measured_beside_the_plain_one_and_its_compiling_weighed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))  # the whole way, but for the minutes
    monkeypatch.setattr("umd_bench.bench.timing.rates.REPEAT_SECONDS", 0.01)
    monkeypatch.setitem(SIDES, "cpu", 64)
    before = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    machine = machine_facts(CPU, None, "a processor")
    spec = spec_of(sets=["model.depth=1"])
    options = {"machine": machine, "baseline": False, "profile": False, "repeats": 1, "device": CPU}
    found = bench_train(spec, precisions=("fp32",), compiled=True, **options)  # type: ignore[arg-type]
    plain = json.loads(json.dumps(found.as_json()))
    assert set(plain["steps"]) == {"engine fp32", "engine fp32, compiled"}
    compiling = plain["compiling"]["engine fp32, compiled"]
    assert compiling["of"] == "engine fp32"
    assert compiling["cold"] > 0 < compiling["kept"]
    table = next(table for table in found.tables() if table.title == "Compiling")
    assert [row[0] for row in table.rows] == list(plain["compiling"])
    assert len(found.remarks()) == 2
    assert os.environ.get("TORCHINDUCTOR_CACHE_DIR") == before


def test_compiling_is_earned_back_by_what_each_image_saves_or_never() -> None:
    spent = Compiling("plain", cold=30, kept=6)
    twice = spent.weighed(rate_of(20), rate_of(10))  # 0.05 s less an image
    assert (twice.images, twice.images_kept) == (600, 120)
    slower = {"compiled": spent.weighed(rate_of(9), rate_of(10))}
    assert slower["compiled"].images is None
    assert compile_remarks(slower) == ["compiled: not faster than plain, so that compiling never pays."]
    assert "600 images (120 with its work on disk)" in compile_remarks({"compiled": twice})[0]


def test_a_model_by_its_name_and_size_is_measured_with_its_recipe() -> None:
    spec = spec_of(tier=None, model="S/4", size=32, batch=None)
    assert isinstance(spec.stage, TrainStage)
    assert (spec.model.width, spec.data.size, spec.stage.batch) == (384, 32, 16)
    assert spec_of(stage="finetune", batch=20).parent_key is None


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"stage": "probe"}, "--stage"),
        ({"tier": "nowhere"}, "nowhere"),
        ({"model": "Z/4"}, "Z/4"),
        ({"tier": None, "model": "S/4", "size": 30}, "multiple of the patch side 4"),
        ({"batch": 1}, "--batch 1"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(fields: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        spec_of(**fields)
    with pytest.raises(FieldError, match="fp32"):
        precisions_of(["fp8"])


def test_operations_are_told_by_their_names_and_by_what_called_them() -> None:
    assert kind_of(iter(["aten::addmm", "aten::linear"])) == "matrix products"
    assert kind_of(iter(["aten::mm", "autograd::engine::evaluate_function: AddmmBackward0"])) == "matrix products"
    assert kind_of(iter(["aten::bmm", "aten::matmul"])) == "attention"
    assert kind_of(iter(["aten::mul_", "Optimizer.step#AdamW.step"])) == "optimiser"
    assert kind_of(iter(["aten::_foreach_lerp_"])) == "average of the weights"
    assert kind_of(iter(["aten::mul"])) == "pointwise and the rest"


def test_tables_are_markdown_too() -> None:
    assert Table("T", ("a", "b"), (("x", "1"),)).markdown() == "**T**\n\n| a | b |\n| :--- | ---: |\n| x | 1 |"
    assert [number(x) for x in (None, 1234.5, 12.34, 0.012345, 0)] == ["-", "1,230", "12.3", "0.0123", "0"]
