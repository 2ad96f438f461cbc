"""An exported graph as a torch module gives what ONNX Runtime gives, in float32 and with the Q/DQ of a plan."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from sr_deploy.core.contract import IOContract
from sr_deploy.core.deployment.plan import Plan
from sr_deploy.core.errors import UsageError
from sr_deploy.core.media.sample import sample_input
from sr_deploy.core.number_formats import INT8
from sr_deploy.core.tolerance import GRAPH_FP32, largest_difference
from sr_deploy.graph.export import graph_from_model
from sr_deploy.graph.target import target_named
from sr_deploy.models.architectures.edsr import HeadBodyTailEDSR
from sr_deploy.models.architectures.swinir import SWINIR, LightweightSwinIR, SwinShape
from sr_deploy.models.base import Asked
from sr_deploy.models.registry import model_from_tensors
from sr_deploy.pipeline.export import ExportOptions, export_deployment
from sr_deploy.precision.fit.fake_quant import quantised_activation
from sr_deploy.precision.interpreter import GraphModule, takes_batches
from sr_deploy.precision.lower.quantize import quantized_graph
from tests import synthetic_checkpoints
from tests.precision import small_plans
from tests.precision.small_graphs import graph, node
from tests.published import GOLDEN

#: One of each kind; the others are in tests/benchmarks/qat_quality.py or larger than a quick test allows.
REAL = [case for case in GOLDEN if case[0].startswith(("efdn_x4", "span_ch26", "light"))]
SYNTHETIC = {
    "EFDN": lambda: synthetic_checkpoints.efdn_training(8, 2, 0),
    "SPAN": lambda: synthetic_checkpoints.span_folded(8, 2, 0),
    "student": lambda: synthetic_checkpoints.f2srgan(16, 1, 1, 0, middles=[3, 5]),
}


def onnx_runtime(model: onnx.ModelProto):
    """The graph as it is written, every Q/DQ executed."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda lr: session.run(None, {session.get_inputs()[0].name: lr})[0]


def exported(folder, network, value_range: float, target: str = "any") -> onnx.ModelProto:
    path = folder / "model.onnx"
    graph_from_model(network.eval(), IOContract(value_range), path, target_named(target), None, (24, 30), {})
    return onnx.load(str(path))


def assert_equal(model: onnx.ModelProto, value_range: float) -> None:
    module, reference = GraphModule(model), onnx_runtime(model)
    for lr in (sample_input((24, 30), value_range), sample_input((37, 25), value_range)):
        with torch.no_grad():
            given = [module(torch.from_numpy(lr)).numpy() for _ in range(2)]
        expected = reference(lr)
        assert np.array_equal(*given), "the second run, with its sizes kept, differs from the first"
        assert largest_difference(given[0], expected, value_range) <= GRAPH_FP32.steps


@pytest.mark.parametrize("name", SYNTHETIC)
def test_synthetic_checkpoints(tmp_path, name):
    loaded = model_from_tensors(SYNTHETIC[name](), Asked(), None)
    assert_equal(exported(tmp_path, loaded.module, loaded.value_range), loaded.value_range)


def test_fourier_units(tmp_path):
    torch.save(synthetic_checkpoints.f2srgan(16, 1, 2, 0), tmp_path / "net.pth")
    deployment = export_deployment(ExportOptions(tmp_path / "net.pth", tmp_path / "net"))
    value_range = deployment.manifest.contract.value_range
    assert_equal(onnx.load(str(tmp_path / "net" / "model.onnx")), value_range)


@pytest.mark.parametrize("target", ["any", "xavier-nx"])
def test_transformers_and_edsr(tmp_path, target):
    shape = SwinShape(dim=12, window=4, heads=2, hidden=24, qkv_bias=True)
    swinir = SWINIR.load(LightweightSwinIR([2], [shape], False, 2).state_dict(), Asked()).module
    for network in (swinir, HeadBodyTailEDSR(8, 3, 2, 1.0)):
        assert_equal(exported(tmp_path, network, 1.0, target), 1.0)


@pytest.mark.parametrize(("weights", "golden", "value_range"), REAL, ids=[case[0] for case in REAL])
def test_real_checkpoints(shared_export, weights, golden, value_range):
    assert_equal(onnx.load(str(shared_export(weights) / "model.onnx")), value_range)


def test_every_quantised_node_is_that_of_the_lowered_graph():
    # Over several layers a tie that rounds the other way moves what follows, so each node is given ONNX Runtime's
    # own tensors and compared by itself.
    model = small_plans.network()
    plan = small_plans.plan_of(model)
    lowered = quantized_graph(model, plan, {})
    names = [name for node in model.graph.node for name in node.output]
    del lowered.graph.output[:]
    lowered.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(lowered.SerializeToString(), options)
    lr = sample_input((12, 14), 1.0)
    expected = dict(zip(names, session.run(None, {"lr": lr})))
    compared = []

    def compare(node, inputs, run):
        wanted = torch.from_numpy(expected[node.output[0]])
        assert float((run() - wanted).abs().max()) <= 1e-5 * float(wanted.abs().max()), node.name
        compared.append(node.name)
        return wanted

    with torch.no_grad():
        GraphModule(model, plan).tensors(torch.from_numpy(lr), ("sr",), compare)
    assert set(plan.nodes_of("int8")) <= set(compared) and len(plan.nodes_of("int8")) >= 3
    float32 = onnx_runtime(model)(lr)
    assert float(np.abs(expected["sr"] - float32).max()) > 1e-4, "quantising must be seen in the output"


def test_what_a_visitor_gives_is_what_all_later_nodes_read():
    model = small_plans.network()
    module, picture = GraphModule(model), torch.from_numpy(sample_input((12, 14), 1.0))
    plain = {node.output[0]: result for node, _, result in module.walk(picture)}

    def twice(node, inputs, run):
        return 2 * run() if node.name == "head/Conv" else run()

    changed = {node.output[0]: (inputs, result) for node, inputs, result in module.walk(picture, twice)}
    assert list(changed) == list(plain)
    assert torch.equal(changed["head"][1], 2 * plain["head"])
    assert torch.equal(changed["one.a"][0][0], 2 * plain["head"])
    assert torch.equal(changed["one.sum"][0][1], 2 * plain["head"])
    assert not torch.equal(changed["sr"][1], plain["sr"])


def test_a_weight_that_a_visitor_changes_is_read_so_by_all_later_nodes():
    pads = {"pads": [1, 1, 1, 1]}
    weights = np.random.default_rng(0).normal(0, 0.3, (4, 4, 3, 3)).astype(np.float32)
    model = graph([node("Conv", "lr w", "x", **pads), node("Conv", "x w", "sr", **pads)], {"w": weights})
    scales = tuple((np.abs(weights).max((1, 2, 3)) / 127).tolist())
    nodes = {"x_node": "int8", "sr_node": "int8"}
    plan = Plan("int8", "", nodes, activation_scales={"lr": 0.02, "x": 0.05}, weight_scales={"w": scales})
    module, picture = GraphModule(model, plan), torch.rand(1, 4, 8, 8)

    def halve(one, inputs, run):
        result = run()
        if one.name == "x_node":
            module.constants["w"].data *= 0.5
        return result

    read = [inputs[1] for _, inputs, _ in module.walk(picture, halve)]
    assert not torch.equal(read[0], read[1])
    assert torch.equal(read[1], module.quantised_constant("w", 0, INT8))


def test_rounding_is_half_to_even_and_clips():
    x = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5, 300.0, -300.0])
    assert quantised_activation(x, torch.tensor(1.0)).tolist() == [0.0, 2.0, 2.0, 0.0, -2.0, 127.0, -128.0]


def test_gradients_are_those_of_learned_step_size():
    x = torch.tensor([0.3, 1.6, 500.0, -500.0], requires_grad=True)
    scale = torch.tensor(2.0, requires_grad=True)
    quantised_activation(x, scale).sum().backward()
    assert x.grad.tolist() == [1.0, 1.0, 0.0, 0.0]
    # Inside: rounded less exact steps, 0 - 0.15 and 1 - 0.8; clipped: the bounds.
    assert scale.grad.item() == pytest.approx(-0.15 + 0.2 + 127.0 - 128.0, abs=1e-5)


def test_weights_scales_and_biases_get_gradients_and_constants_do_not():
    model = small_plans.network()
    module = GraphModule(model, small_plans.plan_of(model))
    assert takes_batches(module, torch.from_numpy(sample_input((12, 14), 1.0)))
    module(torch.from_numpy(sample_input((12, 14), 1.0))).square().mean().backward()
    assert all(float(value.grad.abs().sum()) > 0 for value in module.trained().values())
    assert all(float(value.grad.abs().sum()) > 0 for value in module.stretches.values())
    assert set(module.constants) - set(module.trained()) == {"low", "high"}


def test_an_unknown_operator_is_named():
    node = helper.make_node("Det", ["lr"], ["sr"], name="the_node")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, "h", "w"]) for name in ("lr", "sr")]
    model = helper.make_model(helper.make_graph([node], "g", values[:1], values[1:]))
    with pytest.raises(UsageError, match=r"'the_node' \(Det\)"):
        GraphModule(model)


def test_a_resize_of_no_size_names_its_node():
    node = helper.make_node("Resize", ["lr"], ["sr"], name="the_node")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, "h", "w"]) for name in ("lr", "sr")]
    module = GraphModule(helper.make_model(helper.make_graph([node], "g", values[:1], values[1:])))
    with pytest.raises(UsageError, match="'the_node' .*neither sizes nor scales"):
        module(torch.zeros(1, 3, 4, 4))


def test_an_attribute_that_is_not_written_names_its_node():
    node = helper.make_node("MaxPool", ["lr"], ["sr"], name="the_node", kernel_shape=[2, 2], auto_pad="SAME_UPPER")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, "h", "w"]) for name in ("lr", "sr")]
    module = GraphModule(helper.make_model(helper.make_graph([node], "g", values[:1], values[1:])))
    with pytest.raises(UsageError, match="'the_node' .*auto_pad"):
        module(torch.rand(1, 3, 8, 8))
