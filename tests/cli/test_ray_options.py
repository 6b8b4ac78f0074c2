"""Ray's options: the values that they accept, and the errors for other executors."""

from __future__ import annotations

import pytest

from umd_bench.cli.options import ray_settings
from umd_bench.config.errors import UserError
from umd_bench.orchestration.executors.ray.running_ray import reachable


@pytest.mark.parametrize("address", ["auto", "head:6379", "10.0.0.1:6379", "[fd00::2]:6379"])
def test_an_address_is_a_host_and_a_port_or_auto(address: str) -> None:
    assert ray_settings("ray", address, None).address == address


@pytest.mark.parametrize("address", ["head", "ray://head:10001", "local", "", "head:port"])
def test_the_error_for_any_other_address_lists_the_accepted_ones(address: str) -> None:
    with pytest.raises(UserError, match=r"--ray-address.*expected HOST:PORT"):
        ray_settings("ray", address, None)


@pytest.mark.parametrize("address", ["a..b:6379", f"{'a' * 64}:6379", "127.0.0.1:99999"])
def test_an_unreachable_address_is_refused_in_one_sentence(address: str) -> None:
    with pytest.raises(UserError, match="nothing answers there"):
        reachable(address)


def test_gpus_per_stage_is_a_share_of_one_gpu_or_a_whole_number() -> None:
    assert [ray_settings("ray", None, gpus).gpus for gpus in (0, 0.25, 1, 4)] == [0, 0.25, 1, 4]
    for gpus in (-1, 1.5):
        with pytest.raises(UserError, match=r"--gpus-per-stage.*a share of one GPU between 0 and 1, or a whole number"):
            ray_settings("ray", None, gpus)


@pytest.mark.parametrize(("address", "gpus", "option"), [("auto", None, "--ray-address"), (None, 0.5, "--gpus-per-stage")])
def test_ray_options_are_refused_without_ray(address: str | None, gpus: float | None, option: str) -> None:
    with pytest.raises(UserError, match=f"{option} is for Ray: expected --on ray, found --on inline"):
        ray_settings("inline", address, gpus)
    assert ray_settings("inline", None, None).address is None
