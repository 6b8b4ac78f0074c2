"""The benchmark of training times every variant, gives ratios within one run, and refuses stages that it cannot measure."""

from __future__ import annotations

import json
import os
from functools import partial

import pytest
import torch

from umd_bench.bench.measurements.train import bench_train, train_spec
from umd_bench.bench.timing.machine import machine_facts
from umd_bench.bench.timing.matmul_peak import SIDES, precisions_of
from umd_bench.config.errors import FieldError, UserError
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.config.trial.train_stage import TrainStage

CPU = torch.device("cpu")


def spec_of(**fields: object) -> StageSpec:
    given = {"method": "umd", "tier": "digits", "model": None, "size": None, "stage": "pretrain", "batch": 4, "device": CPU}
    return train_spec(**{**given, **fields})  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_result_has_every_variant_and_the_ratios_between_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("umd_bench.bench.timing.throughput.REPEAT_SECONDS", 0.01)
    monkeypatch.setitem(SIDES, "cpu", 64)
    machine = machine_facts(CPU, None, "a processor")
    result = bench_train(spec_of(sets=["model.depth=1"]), machine=machine, baseline=True, profile=True, repeats=1, device=CPU)
    plain = json.loads(json.dumps(result.as_json()))
    assert set(plain["steps"]) == {"engine fp32", "engine bf16", "plain eager fp32"} == set(plain["utilisation"])
    assert set(plain["times_plain"]) == {"engine fp32", "engine bf16"}
    assert set(plain["peaks"]) == {"fp32", "bf16"}
    for name, step in plain["steps"].items():
        peak = plain["peaks"][result.precisions[name]]
        expected = step["median"] * result.flops_per_image / peak["median"]
        assert plain["utilisation"][name]["median"] == pytest.approx(expected)
    shares = {part.name: part.share for part in result.profiles["engine fp32"]}
    assert sum(shares.values()) == pytest.approx(1)
    assert {"matrix products", "attention", "optimiser"} <= set(shares)
    assert len(result.tables()) == 5
    assert "as fast as the plain eager fp32 step" in result.remarks()[0]


@pytest.mark.slow
def test_a_compiled_step_and_its_compiling_are_timed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))  # everything but the minutes of compiling
    monkeypatch.setattr("umd_bench.bench.timing.throughput.REPEAT_SECONDS", 0.01)
    monkeypatch.setitem(SIDES, "cpu", 64)
    before = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    machine = machine_facts(CPU, None, "a processor")
    spec = spec_of(sets=["model.depth=1"])
    options = {"machine": machine, "baseline": False, "profile": False, "repeats": 1, "device": CPU}
    result = bench_train(spec, precisions=("fp32",), compiled=True, **options)  # type: ignore[arg-type]
    plain = json.loads(json.dumps(result.as_json()))
    assert set(plain["steps"]) == {"engine fp32", "engine fp32, compiled"}
    compiling = plain["compiling"]["engine fp32, compiled"]
    assert compiling["of"] == "engine fp32"
    assert compiling["cold"] > 0 < compiling["kept"]
    table = next(table for table in result.tables() if table.title == "Compiling")
    assert [row[0] for row in table.rows] == list(plain["compiling"])
    assert len(result.remarks()) == 2
    assert os.environ.get("TORCHINDUCTOR_CACHE_DIR") == before


def test_a_model_given_by_name_is_measured_with_imagenets_recipe() -> None:
    spec = spec_of(tier=None, model="S/4", size=32, batch=None)
    assert isinstance(spec.stage, TrainStage)
    assert (spec.model.width, spec.data.size, spec.stage.batch) == (384, 32, 16)
    assert spec_of(stage="finetune", batch=20).parent_key is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stage": "probe"}, "--stage"),
        ({"tier": "nowhere"}, "nowhere"),
        ({"model": "Z/4"}, "Z/4"),
        ({"tier": None, "model": "S/4", "size": 30}, "multiple of the patch side 4"),
        ({"batch": 1}, "--batch 1"),
    ],
)
def test_a_spec_that_cannot_be_measured_is_refused_in_one_sentence(fields: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        spec_of(**fields)
    with pytest.raises(FieldError, match="fp32"):
        precisions_of(["fp8"])
