from __future__ import annotations

import numpy as np
import pytest

from sr_deploy.core.contract import IOContract
from sr_deploy.core.errors import CheckFailed
from sr_deploy.core.media.sample import sample_input
from sr_deploy.core.tolerance import GRAPH_FP32
from sr_deploy.run.fake import FakeClock, FakeRunner
from sr_deploy.run.onnxruntime import runner_from_graph
from sr_deploy.run.parity import check_parity, compare
from sr_deploy.run.torch import TorchRunner
from tests.small_network import CONTRACT, SCALE, small_network

SIZES = ((8, 10), (9, 11))


def fake(scale=2):
    return FakeRunner(scale, lambda size, n: 0.0, FakeClock().sleep)


def enlarged(size, value_range):
    return sample_input(size, value_range).repeat(2, axis=2).repeat(2, axis=3)


def test_two_runtimes(graphs):
    differences = compare(
        runner_from_graph(graphs.dynamic, CONTRACT, SCALE), TorchRunner(small_network()), SIZES, CONTRACT
    )
    assert tuple(differences) == SIZES
    assert check_parity(differences, GRAPH_FP32, "model.onnx") <= GRAPH_FP32.steps


@pytest.mark.parametrize("value_range", [1.0, 255.0])
def test_differences_are_in_8_bit_steps_and_the_worst_size_is_named(value_range):
    contract = IOContract(value_range=value_range, clamped=False)
    reference = {size: enlarged(size, value_range) for size in SIZES}
    reference[(9, 11)][0, 1, 5, 6] += value_range / 255 * 0.5
    differences = compare(fake(), reference, SIZES, contract)
    assert differences[(8, 10)] == 0
    assert differences[(9, 11)] == pytest.approx(0.5, abs=1e-4)
    with pytest.raises(CheckFailed, match="(?s)it differs.*0.5 of 255 at 9x11.*0.05.*next:   look"):
        check_parity(differences, GRAPH_FP32, "it", "look")


def test_a_clamped_contract_limits_the_reference():
    size = (33, 70)
    reference = {size: enlarged(size, 1.0)}
    white = reference[size] == 1.0
    assert white.any()
    reference[size][white] = 7.0
    assert compare(fake(), reference, (size,), IOContract(value_range=1.0)) == {size: 0.0}
    assert compare(fake(), reference, (size,), IOContract(value_range=1.0, clamped=False))[size] == 6 * 255


def test_another_shape_and_nan_are_infinitely_different():
    contract = IOContract(value_range=1.0)
    assert compare(fake(3), fake(2), ((8, 10),), contract) == {(8, 10): float("inf")}
    broken = {(8, 10): enlarged((8, 10), 1.0)}
    broken[(8, 10)][0, 0, 0, 0] = np.nan
    differences = compare(fake(), broken, ((8, 10),), contract)
    with pytest.raises(CheckFailed, match="inf"):
        check_parity(differences, GRAPH_FP32, "it")
