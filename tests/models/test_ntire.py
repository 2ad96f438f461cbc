"""The challenges' checkpoints are found without --model and give what their authors' code gives, in the graph, too."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sr_deploy.core.deployment.manifest import open_deployment
from sr_deploy.core.tolerance import GRAPH_FP32, TORCH_FP32, largest_difference
from sr_deploy.models.registry import ARCHITECTURES, nearest_architecture
from sr_deploy.pipeline.load import LoadOptions, load_model
from sr_deploy.run.base import upscale
from sr_deploy.run.onnxruntime import runner_from_graph
from tests.published import NTIRE, golden_cases


@pytest.mark.parametrize(("weights", "name", "value_range", "parameters"), NTIRE, ids=[row[1] for row in NTIRE])
def test_published_code_and_graph_agree(assets, shared_export, weights, name, value_range, parameters):
    checkpoint, loaded = load_model(assets / "weights" / weights, LoadOptions())
    assert [one.name for one in ARCHITECTURES if one.detect(checkpoint.tensors)] == [name]
    assert nearest_architecture(checkpoint.tensors) == (name, 1.0)
    assert (loaded.architecture, loaded.form, loaded.scale) == (name, "folded", 4)
    assert (loaded.value_range, loaded.parameters) == (value_range, parameters)
    # Nothing to fold in these, and looking for it is most of the time; benchmarks/checkpoints.py does with folding.
    deployment = open_deployment(shared_export(weights, fold=False))
    runner = runner_from_graph(deployment.folder / "model.onnx", deployment.manifest.contract, 4)
    for lr, expected in golden_cases(assets, weights, value_range):
        sr = loaded.module(torch.from_numpy(lr)).numpy()
        assert largest_difference(sr, expected, value_range) <= TORCH_FP32.steps
        clamped = np.clip(expected, 0, value_range)
        assert largest_difference(upscale(runner, lr), clamped, value_range) <= GRAPH_FP32.steps
    runner.close()
