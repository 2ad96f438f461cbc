"""Two networks that srdeploy does not know, from a user's file, against their published code, as graphs, too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sr_deploy.core.contract import IOContract
from sr_deploy.core.errors import BadCheckpoint
from sr_deploy.core.tolerance import GRAPH_FP32, TORCH_FP32, largest_difference
from sr_deploy.graph.export import graph_from_model
from sr_deploy.graph.target import target_named
from sr_deploy.pipeline.load import LoadOptions, load_model
from sr_deploy.run.base import upscale
from sr_deploy.run.onnxruntime import runner_from_graph
from tests.published import golden_cases

FILE = Path(__file__).with_name("user_networks.py")


@pytest.mark.parametrize(
    ("weights", "factory", "surplus", "parameters"),
    [("expandrepnet_x4.pth", "expandrepnet", False, 212_628), ("fean_x4.pt", "fean", True, 210_224)],
)
def test_a_network_of_a_users_file_equals_its_published_code(assets, tmp_path, weights, factory, surplus, parameters):
    options = LoadOptions(factory=f"{FILE}:{factory}", ignore_surplus=surplus)
    checkpoint, loaded = load_model(assets / "weights" / weights, options)
    assert (loaded.scale, loaded.value_range, loaded.parameters) == (4, 1.0, parameters)
    assert any("not used, as --ignore-surplus allows: eswrb2" in note for note in checkpoint.notes) == surplus
    contract = IOContract(value_range=1.0)
    for lr, expected in golden_cases(assets, weights, 1.0):
        sr = loaded.module(torch.from_numpy(lr)).numpy()
        assert largest_difference(sr, expected, 1.0) <= TORCH_FP32.steps
        size = lr.shape[2:]
        path = tmp_path / "{}x{}.onnx".format(*size)
        graph_from_model(loaded.module, contract, path, target_named("any"), size, size, {})
        runner = runner_from_graph(path, contract, 4)
        assert largest_difference(upscale(runner, lr), np.clip(expected, 0, 1), 1.0) <= GRAPH_FP32.steps
        runner.close()


def test_what_the_file_holds_beside_the_network_is_named(assets):
    options = LoadOptions(factory=f"{FILE}:fean")
    with pytest.raises(BadCheckpoint, match=r"unexpected eswrb2\.alpha"):
        load_model(assets / "weights" / "fean_x4.pt", options)
