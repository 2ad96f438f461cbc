"""Estimates follow from bytes, products and launches, and are called estimates."""

from __future__ import annotations

import dataclasses

import pytest

from sr_deploy.core.host.gpu_rates import GPUS, GpuRates
from sr_deploy.engine.estimate import ESTIMATE, estimated_ms, giga_macs, products_of_layer
from sr_deploy.engine.listing import Layer, Listing, Tensor

GPU = GpuRates(
    "toy",
    "a toy",
    "8.6",
    "8.6",
    bandwidth=1.0,
    memory=1.0,
    tera_macs={"float16": 1e-3, "float32": 5e-4},
    launch_us=10.0,
)


def layer(kind: str, read, constants, made, dtype: str = "float16") -> Layer:
    def tensors(shapes):
        return tuple(Tensor(f"{kind}{number}", shape, dtype) for number, shape in enumerate(shapes))

    return Layer(kind, kind, (), tensors(read), tensors(constants), tensors(made))


CONV = layer("correlation", [(1, 8, 10, 10)], [(16, 8, 3, 3), (1, 16, 1, 1)], [(1, 16, 10, 10)])
STRIDED = layer("correlation", [(1, 8, 11, 11)], [(16, 8, 3, 3)], [(1, 16, 5, 5)])
TRANSPOSED = layer("runtime_fusion", [(1, 8, 10, 10)], [(8, 4, 6, 6)], [(1, 4, 20, 20)])
PRODUCT = layer("gemm", [(10, 12, 4)], [(1, 12, 12)], [(10, 12, 4)])
POINTWISE = layer("kgen", [(1, 8, 10, 10)], [(1, 8, 1, 1)], [(1, 8, 10, 10)])
SLOPES = layer("runtime_function", [(1, 3, 64, 64)], [(1, 1, 64, 64)], [(1, 4, 64, 64)])


@pytest.mark.parametrize(
    ("one", "macs"),
    [
        (CONV, 16 * 8 * 9 * 100),
        (STRIDED, 16 * 8 * 9 * 25),
        (TRANSPOSED, 8 * 4 * 36 * 100),
        (PRODUCT, 10 * 12 * 4 * 12),
        (POINTWISE, 0),
        (SLOPES, 0),
    ],
)
def test_products_are_those_of_taps_and_pixels(one, macs):
    assert products_of_layer(one)[0] == macs


def test_a_kernel_takes_the_larger_of_two_times_and_a_launch():
    assert POINTWISE.bytes_moved == 3200
    assert estimated_ms(Listing("", (POINTWISE,), ()), GPU) == pytest.approx(3.2e-3 + 10e-3)
    assert estimated_ms(Listing("", (CONV,), ()), GPU) == pytest.approx(115200 / 1e9 * 1e3 + 10e-3)
    wide = layer("correlation", [(1, 8, 10, 10)], [(16, 8, 3, 3)], [(1, 16, 10, 10)], "float32")
    assert estimated_ms(Listing("", (CONV, wide), ()), GPU) == pytest.approx(3 * 0.1152 + 2 * 10e-3)
    assert giga_macs(Listing("", (CONV, wide, POINTWISE), ())) == pytest.approx(2 * 115200 / 1e9)


def test_what_waits_costs_nothing_and_an_open_size_is_not_estimated():
    wait = dataclasses.replace(POINTWISE, kind="wait")
    assert estimated_ms(Listing("", (wait,), ()), GPU) == 0
    open_size = layer("kgen", [(1, 8, -1, -1)], [], [(1, 8, -1, -1)])
    assert estimated_ms(Listing("", (open_size,), ()), GPU) is None
    assert "estimate" in ESTIMATE


def test_every_gpu_has_the_rates_that_engines_need():
    assert len({gpu.name for gpu in GPUS}) == len(GPUS) >= 8
    for gpu in GPUS:
        assert gpu.tera_macs["int8"] > gpu.tera_macs["float16"] > gpu.tera_macs["float32"] > 0
