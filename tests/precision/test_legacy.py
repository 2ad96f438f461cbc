"""The form for TensorRT 8.5: the same numbers as the typed form, and every rule of the importer kept."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper

from sr_deploy.core.errors import BadDeployment, CheckFailed
from sr_deploy.precision.lower.tensorrt8 import layer_types, legacy_graph
from sr_deploy.precision.lower.tensorrt8_importer import check_legacy
from sr_deploy.precision.lower.typed_graph import typed_graph
from tests.precision.small_graphs import graph, node, residual, residual_plan


def run(model: onnx.ModelProto, lr: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"lr": lr})[0]


def test_computes_what_the_typed_graph_computes():
    model = residual()
    plan = residual_plan(model)
    legacy = legacy_graph(model, plan, {})
    onnx.checker.check_model(legacy, full_check=True)
    lr = np.random.default_rng(1).normal(0, 1, (1, 4, 9, 12)).astype(np.float32)
    expected = run(typed_graph(model, plan, {}), lr)
    assert np.array_equal(run(legacy, lr), expected)
    assert np.abs(run(model, lr) - expected).max() > 1e-3, "nothing was quantised"


def test_weights_are_float32_through_q_and_dq_along_the_output_channels():
    model = residual()
    legacy = legacy_graph(model, residual_plan(model), {})
    constants = {t.name: t for t in legacy.graph.initializer}
    makers = {name: n for n in legacy.graph.node for name in n.output}
    axes = {}
    for n in legacy.graph.node:
        if n.op_type in ("Conv", "ConvTranspose") and n.name != "head_node":
            dequantise = makers[n.input[1]]
            quantise = makers[dequantise.input[0]]
            assert (dequantise.op_type, quantise.op_type) == ("DequantizeLinear", "QuantizeLinear")
            assert constants[quantise.input[0]].data_type == TensorProto.FLOAT
            axes[n.op_type] = {a.i for q in (quantise, dequantise) for a in q.attribute if a.name == "axis"}
    assert axes == {"Conv": {0}, "ConvTranspose": {1}}
    kinds = {t.data_type for t in constants.values()}
    assert kinds == {TensorProto.FLOAT, TensorProto.INT8}
    assert all(not numpy_helper.to_array(t).any() for t in constants.values() if t.data_type == TensorProto.INT8)


def test_changed_weights_are_taken():
    model = residual()
    plan = residual_plan(model)
    weights = {"w1": np.zeros((8, 8, 3, 3), np.float32)}
    legacy = legacy_graph(model, plan, weights)
    lr = np.ones((1, 4, 4, 4), np.float32)
    assert np.array_equal(run(legacy, lr), run(typed_graph(model, plan, weights), lr))
    assert not np.array_equal(run(legacy, lr), run(legacy_graph(model, plan, {}), lr))


def test_a_graph_that_8_5_cannot_take_is_refused():
    newer = residual(opset=18)
    with pytest.raises(CheckFailed, match="(?s)operator set 18; wanted at most 17.*--target xavier-nx"):
        legacy_graph(newer, residual_plan(newer), {})
    model = residual()
    with pytest.raises(BadDeployment, match="no node 'other'"):
        legacy_graph(model, residual_plan(model, nodes={"other": "int8"}), {})


def test_a_newer_ir_version_is_lowered():
    model = residual()
    model.ir_version = 10
    assert legacy_graph(model, residual_plan(model), {}).ir_version == 8


def test_what_is_held_beside_q_and_dq():
    """Float16 products and float32 nodes; not the activation behind an INT8 convolution, which must fuse."""
    model = residual()
    plan = residual_plan(model, "float16")
    assert layer_types(model, plan) == {"head_node": "float16"}
    nodes = {**plan.nodes, "sr_node": "float32"}
    assert layer_types(model, residual_plan(model, "float16", nodes=nodes)) == {
        "head_node": "float16", "sr_node": "float32",
    }  # fmt: skip


def test_nothing_is_held_where_nothing_could_be_lowered():
    model = residual()
    assert layer_types(model, residual_plan(model, "float32")) == {}


def test_without_q_and_dq_islands_are_held_too():
    """With a calibration cache TensorRT could run the shuffle in INT8; the PReLU may."""
    model = residual()
    for rest in ("float16", "float32"):
        held = layer_types(model, residual_plan(model, rest), implicit=True)
        assert held == {"head_node": rest, "sr_node": rest}


def test_a_matrix_computed_from_the_width_stays_float32():
    """It is in no plan, and the flag FP16 would lower it."""
    nodes = [
        node("Shape", "lr", "shape"),
        node("Gather", "shape axis", "width", axis=0),
        node("Cast", "width", "columns", to=TensorProto.FLOAT),
        node("Sin", "columns", "sine"),
        node("Mul", "lr sine", "sr"),
    ]
    model = graph(nodes, {"axis": np.array([3])})
    plan = residual_plan(residual(), "float16", nodes={"sr_node": "float16"}, reasons={})
    assert layer_types(model, plan) == {"columns_node": "float32", "sine_node": "float32"}


def small_checkpoint(name: str):
    """Tensors of a small network, and what its file does not tell."""
    import torch

    from sr_deploy.models.architectures.safmn import SAFMNNetwork
    from sr_deploy.models.architectures.swinir import LightweightSwinIR, SwinShape
    from sr_deploy.models.base import Asked
    from tests import synthetic_checkpoints
    from tests.models.test_edsr import head_body_tail_tensors

    torch.manual_seed(0)
    if name == "efdn":
        return synthetic_checkpoints.efdn_training(4, 2, 0), Asked()
    if name == "span":
        return synthetic_checkpoints.span_training(8, 2, 0), Asked()
    if name == "dsclora":
        return synthetic_checkpoints.dsclora(8, 2, 2, 0), Asked(lora_alpha="4")
    if name == "f2srgan":
        return synthetic_checkpoints.f2srgan(16, 1, 2, 0), Asked()
    if name == "edsr":
        return head_body_tail_tensors(), Asked(res_scale=1.0)
    if name == "safmn":
        return SAFMNNetwork(width=8, hidden=16, blocks=2, scale=2).state_dict(), Asked()
    shape = SwinShape(dim=12, window=8, heads=2, hidden=24, qkv_bias=True)
    return LightweightSwinIR([2], [shape], False, 2).state_dict(), Asked()


@pytest.mark.parametrize("name", ["efdn", "span", "dsclora", "f2srgan", "edsr", "safmn", "swinir"])
def test_every_architecture_exported_for_the_board_passes(name, tmp_path):
    """Small networks of each architecture, float32 and with every convolution in INT8."""
    import torch

    from sr_deploy.pipeline.export import ExportOptions, export_deployment
    from sr_deploy.pipeline.load import LoadOptions

    tensors, asked = small_checkpoint(name)
    torch.save(tensors, tmp_path / "net.pth")
    load = LoadOptions(**{key: getattr(asked, key) for key in ("lora_alpha", "res_scale") if getattr(asked, key)})
    # SwinIR for any size needs Mod, which the exporter refuses for this target.
    sizes = ((16, 24),) if name == "swinir" else ()
    options = ExportOptions(tmp_path / "net.pth", tmp_path / "net", sizes, target="xavier-nx", load=load)
    deployment = export_deployment(options)
    model = onnx.load(str(deployment.path_of(deployment.manifest.graphs[0])))
    assert model.opset_import[0].version == 16
    assert check_legacy(model) == ()
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    convolutions = [n for n in model.graph.node if n.op_type == "Conv" and n.input[1] in constants]
    scales = {n.input[1]: (0.01,) * len(constants[n.input[1]]) for n in convolutions}
    kinds = dict.fromkeys((n.name for n in convolutions), "int8")
    activations = dict.fromkeys((n.input[0] for n in convolutions), 0.01)
    plan = residual_plan(
        residual(), nodes=kinds, reasons={}, weight_scales=scales, activation_scales=activations, rest="float16"
    )
    quantised = legacy_graph(model, plan, {})
    assert sum(n.op_type == "DequantizeLinear" for n in quantised.graph.node) == len(scales) + len(activations)
    assert len(scales) > 2
