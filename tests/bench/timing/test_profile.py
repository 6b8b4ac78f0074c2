"""Operations are classified by their names and the names of their callers."""

from __future__ import annotations

from umd_bench.bench.timing.profile import kind_of


def test_the_kind_of_an_operation_comes_from_its_name_and_its_callers() -> None:
    assert kind_of(iter(["aten::addmm", "aten::linear"])) == "matrix products"
    assert kind_of(iter(["aten::mm", "autograd::engine::evaluate_function: AddmmBackward0"])) == "matrix products"
    assert kind_of(iter(["aten::bmm", "aten::matmul"])) == "attention"
    assert kind_of(iter(["aten::mul_", "Optimizer.step#AdamW.step"])) == "optimiser"
    assert kind_of(iter(["aten::_foreach_lerp_"])) == "average of the weights"
    assert kind_of(iter(["aten::mul"])) == "pointwise and the rest"
