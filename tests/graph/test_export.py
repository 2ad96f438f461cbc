"""The exporter: names, clamp, operator sets, pins, and what it refuses."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from sr_deploy.core.contract import IOContract
from sr_deploy.core.errors import BadDeployment, CheckFailed, UsageError
from sr_deploy.graph.census import census_of, graph_signature
from sr_deploy.graph.export import PIN_MARK, graph_from_model
from sr_deploy.graph.specialise import load_graph, static_graph
from sr_deploy.graph.target import TARGETS, check_operators, target_named


def network(scale=2):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.PReLU(8), nn.Conv2d(8, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale)
    ).eval()


def exported(tmp_path, module=None, size=None, target="any", pins=None):
    path = tmp_path / "model.onnx"
    module = network() if module is None else module
    graph = graph_from_model(module, IOContract(1.0), path, target_named(target), size, (16, 20), pins or {})
    return path, graph


def run(path, lr):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["sr"], {"lr": lr})[0]


def test_dynamic_graph_serves_other_sizes_and_is_clamped(tmp_path):
    path, graph = exported(tmp_path)
    assert graph.size is None
    assert graph_signature(path).inputs == ("lr: FLOAT 1x3xheightxwidth",)
    lr = np.random.default_rng(0).uniform(-3, 4, (1, 3, 9, 13)).astype(np.float32)
    with torch.no_grad():
        expected = network()(torch.from_numpy(lr)).numpy()
    assert expected.min() < 0 or expected.max() > 1, "the case must leave the range"
    assert np.abs(run(path, lr) - expected.clip(0, 1)).max() < 1e-6


def test_static_graph_has_its_size(tmp_path):
    path, graph = exported(tmp_path, size=(12, 14))
    assert graph_signature(path).fixed_size == graph.size == (12, 14)
    assert graph_signature(path).outputs == ("sr: FLOAT 1x3x24x28",)


@pytest.mark.parametrize("target", [target.name for target in TARGETS])
def test_each_target_gets_its_operator_set(tmp_path, target):
    path, graph = exported(tmp_path, target=target)
    assert graph_signature(path).opset == graph.opset == target_named(target).opset <= 17


def test_layer_norm_is_decomposed_for_xavier(tmp_path):
    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(3)

        def forward(self, x):
            return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    path, _ = exported(tmp_path, Normed().eval(), target="xavier-nx")
    operators = census_of(path, (16, 20)).operators
    assert "LayerNormalization" not in operators
    check_operators(operators, target_named("xavier-nx"), "model.onnx")
    path, _ = exported(tmp_path, Normed().eval(), target="any")
    assert "LayerNormalization" in census_of(path, (16, 20)).operators


def test_forbidden_operator_is_named():
    with pytest.raises(CheckFailed, match="DFT"):
        check_operators({"Conv", "DFT"}, target_named("any"), "model.onnx")
    with pytest.raises(UsageError, match="xavier-nx"):
        target_named("nonsense")


def test_nodes_of_a_pinned_module_are_marked(tmp_path):
    path, graph = exported(tmp_path, pins={"2": "because"})
    marked = [node for node in onnx.load(str(path)).graph.node if node.doc_string.startswith(PIN_MARK)]
    assert [node.op_type for node in marked] == ["Conv"]
    assert graph.pinned_fp32 == {marked[0].name: "because"}


def test_what_cannot_be_exported_is_an_error_with_a_way_out(tmp_path, capfd):
    class Sorted(nn.Module):
        def forward(self, x):
            return torch.linalg.svd(x)[0]

    with pytest.raises(CheckFailed, match="cannot be written as ONNX") as caught:
        exported(tmp_path, Sorted())
    assert caught.value.todo
    assert not (tmp_path / "model.onnx").exists()
    assert capfd.readouterr().out == "", "the exporter's own dump is not for the user"


def test_fixing_the_size_folds_shapes_and_changes_nothing(tmp_path):
    path, _ = exported(tmp_path)
    fixed = static_graph(path, (9, 13))
    lr = np.random.default_rng(1).uniform(0, 1, (1, 3, 9, 13)).astype(np.float32)
    session = onnxruntime.InferenceSession(fixed.SerializeToString(), providers=["CPUExecutionProvider"])
    assert np.array_equal(session.run(None, {"lr": lr})[0], run(path, lr))
    static, _ = exported(tmp_path, size=(12, 14))
    with pytest.raises(BadDeployment, match="1x3x12x14, not of 9x13"):
        static_graph(static, (9, 13))


@pytest.mark.parametrize("content", [b"", b"hello", b"\x08\x07"])
def test_what_is_not_onnx_is_refused(tmp_path, content):
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    with pytest.raises(BadDeployment):
        load_graph(path)
    with pytest.raises(BadDeployment, match="missing.onnx"):
        load_graph(tmp_path / "missing.onnx")
