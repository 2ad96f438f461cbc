"""Nodes that float16 cannot hold are found, with their figure, and the rest stays float16."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from sr_deploy.core.contract import IOContract
from sr_deploy.core.errors import BadInput, CheckFailed
from sr_deploy.graph.export import graph_from_model
from sr_deploy.graph.target import target_named
from sr_deploy.models.architectures.edsr import HeadBodyTailEDSR
from sr_deploy.models.architectures.swinir import SWINIR, LightweightSwinIR, SwinShape
from sr_deploy.models.base import Asked
from sr_deploy.precision.calibrate.collect import ranges_of
from sr_deploy.precision.calibrate.scan import _magnitude, extreme_inputs, is_finite, pinned, scan_half, too_large
from sr_deploy.precision.choose.float32_patterns import ATTENTION, NORMALISATION, SOFTMAX, float32_recipes, global_skips
from sr_deploy.precision.float16_rounding import rounded_graph, rounding_session
from sr_deploy.precision.lower.typed_graph import half_graph

NO_MARGIN = 1e-9


def exported(folder, network, target="any", value_range=1.0) -> onnx.ModelProto:
    path = folder / "model.onnx"
    graph_from_model(network.eval(), IOContract(value_range), path, target_named(target), None, (16, 20), {})
    return onnx.load(str(path))


def photographs(count=2, size=(16, 20)):
    return [np.random.default_rng(seed).random((1, 3, *size), dtype=np.float32) for seed in range(count)]


def peak_network(peak: float) -> nn.Sequential:
    """Four convolutions; what the second gives reaches about ``peak``, and the third brings it down again."""
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(a, b, 3, padding=1) for a, b in ((3, 8), (8, 8), (8, 8), (8, 12))]
    with torch.no_grad():
        for convolution in convolutions[:2]:
            convolution.weight *= peak**0.5
        convolutions[2].weight /= peak
    layers = [convolutions[0], nn.PReLU(8), convolutions[1], nn.ReLU(), convolutions[2], nn.ReLU(), convolutions[3]]
    return nn.Sequential(*layers, nn.PixelShuffle(2))


def typed_output(model, pins, lr):
    return rounding_session(rounded_graph(half_graph(pinned(model, pins)))).run(None, {"lr": lr})[0]


def exact_output(model, lr):
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"lr": lr})[0]


def operators_of(model, names):
    return sorted(node.op_type for node in model.graph.node if node.name in names)


def test_an_overflowing_network_is_mended_and_only_there(tmp_path):
    model = exported(tmp_path, peak_network(1e6))
    pictures = photographs()
    ranges = ranges_of(model, pictures)
    assert not is_finite(half_graph(model), pictures)
    pins = scan_half(model, ranges, pictures)
    assert operators_of(model, pins) == ["Conv", "Conv", "Relu"]
    convolutions = [node.name for node in model.graph.node if node.op_type == "Conv"]
    assert convolutions[1] in pins and convolutions[2] in pins
    peak = max(stats.amax for stats in ranges.tensors.values())
    assert peak > 65504 and f"{peak:.4g}" in pins[convolutions[1]] and "65504 / 8" in pins[convolutions[1]]
    assert is_finite(half_graph(pinned(model, pins)), [*pictures, *extreme_inputs((8, 9), 1.0).values()])
    for lr in pictures:
        assert np.abs(typed_output(model, pins, lr) - exact_output(model, lr)).max() < 2e-3


def test_running_it_finds_the_same_nodes_without_the_ranges(tmp_path):
    """The margin is switched off, so only infinities that really appear can pin."""
    model = exported(tmp_path, peak_network(1e6))
    pictures = photographs()
    told = []
    pins = scan_half(model, ranges_of(model, pictures), pictures, NO_MARGIN, told.append)
    assert pins.keys() <= scan_half(model, ranges_of(model, pictures), pictures).keys()
    assert pins
    assert len(told) == len(pins) and all("float16 gives NaN or infinity" in reason for reason in pins.values())
    assert is_finite(half_graph(pinned(model, pins)), pictures)


def test_the_margin_pins_before_anything_overflows(tmp_path):
    model = exported(tmp_path, peak_network(1e5))
    pictures = photographs()
    ranges = ranges_of(model, pictures)
    peak = max(stats.amax for stats in ranges.tensors.values())
    assert 65504 / 8 < peak < 65504
    assert scan_half(model, ranges, pictures, margin=1.0) == {}
    assert operators_of(model, scan_half(model, ranges, pictures)) == ["Conv", "Conv", "Relu"]


def test_a_harmless_network_has_no_pins(tmp_path):
    model = exported(tmp_path, peak_network(1.0))
    assert scan_half(model, ranges_of(model, photographs()), photographs()) == {}


def test_an_edsr_with_grown_residuals(tmp_path):
    """Residual blocks add up: with large weights the sum passes float16, as wide networks without scaling do."""
    torch.manual_seed(0)
    network = HeadBodyTailEDSR(8, 3, 2, 1.0)
    with torch.no_grad():
        for module in network.body.modules():
            if isinstance(module, nn.Conv2d):
                module.weight *= 12.0
        network.tail[0][0].weight *= 1e-3
    model = exported(tmp_path, network, value_range=255.0)
    pictures = [255 * lr for lr in photographs()]
    assert not is_finite(half_graph(model), pictures)
    pins = scan_half(model, ranges_of(model, pictures), pictures)
    floating = [node for node in model.graph.node if node.op_type in ("Conv", "Relu", "Add")]
    assert 0 < len(pins) < len(floating)
    assert is_finite(half_graph(pinned(model, pins)), pictures)
    difference = np.abs(typed_output(model, pins, pictures[0]) - exact_output(model, pictures[0]))
    # Sums of thousands that cancel keep eleven bits only: visible, but a picture.
    assert difference.max() < 0.02 * 255


@pytest.fixture(scope="module", params=["any", "xavier-nx"])
def swinir(request, tmp_path_factory):
    torch.manual_seed(2)
    shape = SwinShape(dim=12, window=4, heads=2, hidden=24, qkv_bias=True)
    network = SWINIR.load(LightweightSwinIR([2], [shape], False, 2).state_dict(), Asked()).module
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return exported(tmp_path_factory.mktemp(request.param), network, request.param)


def test_swinirs_norms_softmax_and_attention(swinir):
    """LayerNorm is one node in operator set 17 and seven in 16; 6 norms, 2 blocks of attention."""
    found = float32_recipes(swinir)
    operators = {node.name: node.op_type for node in swinir.graph.node}
    norms = [name for name, reason in found.items() if reason == NORMALISATION]
    if "LayerNormalization" in operators.values():
        assert [operators[name] for name in norms] == ["LayerNormalization"] * 6
    else:
        chain = ["ReduceMean", "Sub", "Pow", "ReduceMean", "Add", "Sqrt", "Div"]
        assert [operators[name] for name in norms] == chain * 6
    assert [operators[name] for name, reason in found.items() if reason == SOFTMAX] == ["Softmax"] * 2
    attention = [name for name, reason in found.items() if reason == ATTENTION]
    assert [operators[name] for name in attention].count("MatMul") == 4
    assert all("attn" in name and "qkv" not in name and "proj" not in name for name in attention)


def test_swinir_in_float16_with_its_recipes(swinir):
    pictures = photographs()
    pins = scan_half(swinir, ranges_of(swinir, pictures), pictures)
    assert pins.keys() >= float32_recipes(swinir).keys()
    lr = pictures[0]
    exact = exact_output(swinir, lr)
    error = np.abs(typed_output(swinir, pins, lr) - exact)
    assert exact.std() > 0.01 and error.max() < 4e-3
    types = {node.name: node for node in half_graph(pinned(swinir, pins)).graph.node}
    assert all(types[name].doc_string for name in pins)


def test_swinir_whose_activations_pass_float16(tmp_path):
    """What users of SwinIR met: black pictures, because the residual stream passes 65504."""
    torch.manual_seed(3)
    shape = SwinShape(dim=12, window=4, heads=2, hidden=24, qkv_bias=True)
    network = SWINIR.load(LightweightSwinIR([2], [shape], False, 2).state_dict(), Asked()).module
    with torch.no_grad():
        for block in network.layers[0].residual_group.blocks:
            block.mlp.fc2.bias += 6e4
    model = exported(tmp_path, network)
    pictures = photographs(1)
    recipes = float32_recipes(model)
    assert not is_finite(half_graph(pinned(model, recipes)), pictures)
    pins = scan_half(model, ranges_of(model, pictures), pictures)
    assert len(pins) > len(recipes) and is_finite(half_graph(pinned(model, pins)), pictures)


def test_global_skips():
    """Of EDSR the addition behind the body, not those inside it."""
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        model = exported(Path(folder), HeadBodyTailEDSR(8, 6, 2, 1.0), value_range=255.0)
    adds = [node.name for node in model.graph.node if node.op_type == "Add"]
    assert list(global_skips(model)) == [adds[-1]] and len(adds) == 7


def test_constants_beyond_float16_pin_their_readers(tmp_path):
    model = exported(tmp_path, peak_network(1.0))
    weight = model.graph.initializer[0]
    ranges = ranges_of(model, photographs())
    values = numpy_helper.to_array(weight).copy()
    values.flat[0] = 7e4
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    readers = {node.name for node in model.graph.node if weight.name in node.input}
    pins = too_large(model, ranges)
    assert pins.keys() == readers and "7e+04, beyond 6.55e+04" in next(iter(pins.values()))
    half_graph(pinned(model, pins))


def test_a_network_that_is_sick_in_float32_is_an_error(tmp_path):
    network = peak_network(1.0)
    with torch.no_grad():
        network[4].bias[0] = float("nan")
    model = exported(tmp_path, network)
    with pytest.raises(CheckFailed, match="the float32 graph gives"):
        scan_half(model, ranges_of(model, photographs()), photographs())


def test_no_pictures_or_foreign_ranges(tmp_path):
    model = exported(tmp_path, peak_network(1.0))
    ranges = ranges_of(model, photographs(), tensors=["lr"])
    with pytest.raises(BadInput, match="no picture"):
        scan_half(model, ranges, [])
    with pytest.raises(BadInput, match="no tensor"):
        scan_half(model, ranges, photographs())


def test_extreme_inputs():
    pictures = extreme_inputs((8, 10), 255.0)
    assert {array.shape for array in pictures.values()} == {(1, 3, 8, 10)}
    assert pictures["white"].min() == 255.0 and not pictures["black"].any()
    assert pictures["checkerboard"][0, 0, 0, :3].tolist() == [0.0, 255.0, 0.0]


def test_the_bits_of_float16_tell_its_largest_magnitude():
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    told = np.array([_magnitude(value) for value in every.reshape(-1, 1)])
    assert np.array_equal(np.isfinite(told), np.isfinite(every))
    assert np.array_equal(told[np.isfinite(told)], np.abs(every[np.isfinite(every)]).astype(np.float64))
    finite = np.random.default_rng(0).permutation(every[np.isfinite(every)])
    for kind in (np.float16, np.float32):
        assert _magnitude(finite.astype(kind)) == 65504.0 and _magnitude(np.zeros(0, kind)) == 0.0
        for sick in (np.nan, np.inf, -np.inf):
            assert not np.isfinite(_magnitude(np.append(finite, sick).astype(kind)))
