"""An ONNX file in every form that users have is one network: found by running it, equal to what the file computes."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from sr_deploy.core.contract import IOContract
from sr_deploy.core.errors import BadInput, UsageError
from sr_deploy.core.media.sample import sample_input
from sr_deploy.core.tolerance import GRAPH_FP32, largest_difference
from sr_deploy.graph.given import network as network_file
from sr_deploy.graph.given.ends import End
from sr_deploy.graph.given.network import AskedOfGraph, network_from_onnx
from sr_deploy.graph.given.opset import at_opset
from sr_deploy.graph.given.tidy import tidy
from sr_deploy.graph.given.write import graph_from_given
from sr_deploy.graph.target import target_named
from tests.graph.given.given_graphs import Written, chain, given, reference, run, saved

FORMS = {
    "as exported": Written(),
    "other names": Written(names=("lr", "sr")),
    "names the wrong way round": Written(names=("sr", "lr")),
    "channels last": Written(axes="NHWC"),
    "blue first": Written(order="bgr"),
    "blue first, channels last": Written(axes="NHWC", order="bgr"),
    "no batch axis": Written(batch=None),
    "no batch axis, channels last": Written(batch=None, axes="NHWC"),
    "one picture only": Written(batch=1),
    "all axes unsaid": Written(axes="unsaid"),
    "all axes unsaid, channels last": Written(axes="unsaid, NHWC"),
    "half precision": Written(dtype=np.float16),
    "double precision": Written(dtype=np.float64),
    "0…255": Written(white=255.0),
    "set 9": Written(opset=9),
    "set 11, no batch axis": Written(opset=11, batch=None),
    "set 21": Written(opset=21),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_is_the_same_network(explored_here, tmp_path, name):
    how = FORMS[name]
    colours = None if how.order == "rgb" else "bgr"
    found = network_from_onnx(saved(tmp_path, given(how)), AskedOfGraph(colours=colours))
    assert (found.scale, found.value_range, found.fixed, found.sizes.multiple) == (2, how.white, None, 1)
    assert found.parameters > 600
    assert (how.dtype != np.float32) == any("became float32" in note for note in found.notes)
    assert (colours is None) == any("taken as RGB" in note for note in found.notes)
    assert all(value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT for value in found.model.graph.input)
    written = at_opset(found.model, 16)
    assert len({node.name for node in found.model.graph.node} - {""}) == len(found.model.graph.node)
    for size in ((24, 33), (7, 10)):
        lr = sample_input(size, how.white)
        wanted = np.clip(reference(lr / how.white), 0, 1) * how.white
        # Weights in half precision are other weights.
        steps = 0.5 if how.dtype == np.float16 else GRAPH_FP32.steps
        for model in (found.model, written):
            assert largest_difference(run(model)(lr), wanted, how.white) <= steps


def test_the_range_is_asked_for_where_a_picture_does_not_tell(explored_here, tmp_path):
    path = saved(tmp_path, given(Written(ranged=False)))
    with pytest.raises(UsageError, match="a picture does not tell: a smooth picture comes back .* as 0…255") as caught:
        network_from_onnx(path, AskedOfGraph())
    assert "--value-range 1 or --value-range 255" in caught.value.todo
    assert network_from_onnx(path, AskedOfGraph(value_range=255.0)).value_range == 255


def test_a_range_that_a_photograph_contradicts_is_taken_and_said(explored_here, tmp_path):
    path = saved(tmp_path, given())
    found = network_from_onnx(path, AskedOfGraph(value_range=255.0))
    assert found.value_range == 255
    assert "it looks like 0…1" in found.notes[0]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (AskedOfGraph(scale=4), "enlarges 2 times"),
        (AskedOfGraph(value_range=2.0), "--value-range 2 is not supported"),
        (AskedOfGraph(colours="cmyk"), "there is no --colours 'cmyk'"),
    ],
)
def test_what_contradicts_the_file_is_refused(explored_here, tmp_path, asked, message):
    with pytest.raises(UsageError, match=message):
        network_from_onnx(saved(tmp_path, given()), asked)


def changed(change):
    model = given()
    change(model.graph)
    return model


def _custom(graph):
    graph.node[1].domain, graph.node[1].name = "com.mine", "body/act"


def _unparsed(graph):
    graph.node[1].op_type, graph.node[1].name = "Det", "body/det"


def _unknown(graph):
    graph.node[1].op_type = "Rleu"


def _loop(graph):
    graph.node[1].op_type = "Loop"


def _random(graph):
    graph.node[1].op_type = "RandomUniformLike"


def _dropout(graph):
    graph.node[1].op_type = "Dropout"
    graph.node[1].input.extend(["", "on"])
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "on"))


def _quantised(graph):
    graph.node[1].op_type = "DequantizeLinear"


def _grey(graph):
    graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1


def _bytes(graph):
    graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8


def _two_inputs(graph):
    graph.input.append(helper.make_tensor_value_info("noise", 1, [1, 3, "h", "w"]))


def _two_outputs(graph):
    graph.output.append(helper.make_tensor_value_info("body", 1, None))


def _classifier(graph):
    graph.node[-1].op_type, graph.node[-1].input[1] = "Slice", "one"
    graph.node[-1].input.append("two")
    for name, value in (("one", [0, 0]), ("two", [1, 1])):
        graph.initializer.append(onnx.numpy_helper.from_array(np.array(value), name))


def _wide_only(graph):
    graph.input[0].type.tensor_type.shape.dim[3].dim_value = 64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_custom, "Relu body/act: custom operators, of the domain com.mine"),
        (_unparsed, "Det body/det: not in TensorRT's ONNX parser"),
        (_unknown, "Rleu t1: no operators of ONNX's set 17"),
        (_loop, "Loop t1: loops, whose length a tensor decides"),
        (_random, "random values: two runs would differ"),
        (_dropout, "Dropout t1: dropout that was left on"),
        (_quantised, "quantised graph"),
        (_grey, r"input FLOAT \(n, 1, h, w\)"),
        (_bytes, "input UINT8"),
        (_two_inputs, "has 2 inputs: input FLOAT .*, noise FLOAT"),
        (_two_outputs, "has 2 outputs: output FLOAT .*, body FLOAT"),
        (_classifier, r"cannot be used: it gives \(1, 1, "),
        (_wide_only, "fixes one edge of its input"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_cannot_be_deployed_is_named(explored_here, tmp_path, change, message):
    with pytest.raises(BadInput, match=message) as caught:
        network_from_onnx(saved(tmp_path, changed(change)), AskedOfGraph())
    assert caught.value.exit_code == 4


def test_sizes_that_a_graph_does_not_take_are_found(explored_here, tmp_path):
    """A max-pool of 4 whose result is enlarged 4 times and added: multiples of 4."""
    extra = (
        helper.make_node("MaxPool", ["input"], ["half"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Resize", ["half", "", "times"], ["large"], mode="nearest"),
        helper.make_node("Mul", ["large", "little"], ["added"]),
        helper.make_node("Add", ["body", "added"], ["extended"]),
    )
    constants = {"times": np.array([1, 1, 8, 8], np.float32), "little": np.array(0.01, np.float32)}
    found = network_from_onnx(saved(tmp_path, given(Written(extra=extra, constants=constants))), AskedOfGraph())
    assert dataclasses.astuple(found.sizes) == (4, 4)


#: Operators whose form changed between 9 and 21, as (set, nodes from "body" to "extended", constants).
i64, f32 = (lambda *values: np.array(values, np.int64)), (lambda *values: np.array(values, np.float32))
CHANGED = {
    "Upsample 9": (
        9,
        [
            ("Upsample", ["body", "s"], {"mode": "linear"}),
            ("AveragePool", 0, {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ],
        {"s": f32(1, 1, 2, 2)},
    ),  # fmt: skip
    "Resize 10": (
        10,
        [
            ("Resize", ["body", "s"], {"mode": "linear"}),
            ("AveragePool", 0, {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ],
        {"s": f32(1, 1, 2, 2)},
    ),  # fmt: skip
    "Slice 9": (
        9,
        [
            ("Pad", ["body"], {"pads": [0, 0, 1, 1, 0, 0, 1, 1], "mode": "reflect"}),
            ("Slice", 0, {"starts": [1, 1], "ends": [-1, -1], "axes": [2, 3]}),
        ],
        {},
    ),  # fmt: skip
    "Clip 9": (9, [("Clip", ["body"], {"min": 0.1, "max": 0.9})], {}),
    "Pad 18": (
        18,
        [("Pad", ["body", "p", "", "axes"], {"mode": "reflect"}), ("Slice", [0, "b", "e", "axes"], {})],
        {"p": i64(1, 2, 1, 2), "axes": i64(2, 3), "b": i64(1, 2), "e": i64(-1, -2)},
    ),  # fmt: skip
    "Split 18": (
        18,
        [("Split", ["body"], {"axis": 1, "num_outputs": 3}), ("Concat", [0, "t0_1", "t0_2"], {"axis": 1})],
        {},
    ),  # fmt: skip
    "ReduceMean 18": (
        18,
        [
            ("ReduceMean", ["body", "axes"], {"noop_with_empty_axes": 0}),
            ("Mul", [0, "k"], {}),
            ("Add", ["body", 0], {}),
        ],
        {"axes": i64(2, 3), "k": f32(0.1)},
    ),  # fmt: skip
    "Gelu 20": (20, [("Gelu", ["body"], {}), ("Mul", [0, "k"], {}), ("Add", ["body", 0], {})], {"k": f32(0.1)}),
    "Gelu 20, tanh": (
        20,
        [("Gelu", ["body"], {"approximate": "tanh"}), ("Mul", [0, "k"], {}), ("Add", ["body", 0], {})],
        {"k": f32(0.1)},
    ),  # fmt: skip
    "Mish 18": (18, [("Mish", ["body"], {}), ("Mul", [0, "k"], {}), ("Add", ["body", 0], {})], {"k": f32(0.1)}),
    "GroupNormalization 18": (
        18,
        [
            ("GroupNormalization", ["body", "g", "g"], {"num_groups": 3}),
            ("Mul", [0, "k"], {}),
            ("Add", ["body", 0], {}),
        ],
        {"g": f32(1, 2, 3), "k": f32(0.1)},
    ),  # fmt: skip
    "GroupNormalization 21": (
        21,
        [
            ("GroupNormalization", ["body", "g", "g"], {"num_groups": 1}),
            ("Mul", [0, "k"], {}),
            ("Add", ["body", 0], {}),
        ],
        {"g": f32(1, 2, 3), "k": f32(0.1)},
    ),  # fmt: skip
}


@pytest.mark.parametrize("name", CHANGED)
@pytest.mark.parametrize("target", [16, 17])
def test_operators_whose_form_changed_are_written_in_the_targets_set(name, target):
    opset, steps, constants = CHANGED[name]
    model = given(Written(opset=opset, extra=chain(steps), constants=constants))
    other = at_opset(model, target)
    onnx.checker.check_model(other)
    assert [entry.version for entry in other.opset_import] == [target]
    lr = sample_input((9, 12), 1.0)
    assert largest_difference(run(other)(lr), run(model)(lr), 1.0) <= GRAPH_FP32.steps


@pytest.mark.parametrize(
    ("steps", "constants", "message"),
    [
        ([("Pad", ["body", "p"], {"mode": "wrap"})], {"p": i64(*[0] * 8)}, "Pad step0 .* mode wrap"),
        ([("Pad", ["body", "p", "", "a"], {}), ("Shape", ["body"], {})], {"p": i64(0, 0)}, "axes that the graph"),
    ],
)
def test_a_node_without_an_older_form_is_named(steps, constants, message):
    model = given(Written(opset=19, extra=chain(steps), constants=constants))
    with pytest.raises(BadInput, match=message):
        at_opset(model, 17)


def test_a_part_of_a_shape_stays_one_when_constants_are_computed(tmp_path):
    """As the exporter by dynamo writes sizes; graphsurgeon computes the whole shape in its place."""
    steps = [
        ("Shape", ["body"], {"start": 2}),
        ("Concat", ["two", 0], {"axis": 0}),
        ("Resize", ["body", "", "", 0], {}),
    ]
    extra = chain(steps)
    how = Written(extra=extra, constants={"two": i64(1, 3)})
    network = network_file.with_ends(given(how), *ends_of(given(how)), "rgb", (24, 16))
    tidied = tidy(network)
    assert not [node for node in tidied.graph.node if node.op_type == "Shape" and node.attribute]
    lr = sample_input((24, 16), 1.0)
    assert largest_difference(run(tidied)(lr), reference(lr), 1.0) <= GRAPH_FP32.steps


def test_slopes_have_the_shape_that_rewriting_looks_for():
    """The exporter by dynamo stores them as (1, C, 1, 1)."""
    slope = {"slope": np.full((1, 3, 1, 1), 0.25, np.float32)}
    model = given(Written(extra=chain([("PRelu", ["body", "slope"], {})]), constants=slope))
    network = network_file.with_ends(model, *ends_of(model), "rgb", None)
    tidied = tidy(network)
    shapes = {tensor.name: list(tensor.dims) for tensor in tidied.graph.initializer}
    assert [shapes[node.input[1]] for node in tidied.graph.node if node.op_type == "PRelu"] == [[3, 1, 1]]
    lr = sample_input((9, 12), 1.0)
    assert np.array_equal(run(tidied)(lr), run(network)(lr))


def ends_of(model):
    """Its two ends, NCHW and free."""
    return [
        End(value.name, "NCHW", True, None, (None, None)) for value in (model.graph.input[0], model.graph.output[0])
    ]


def test_what_a_target_cannot_parse_is_named(explored_here, tmp_path):
    steps = [("HardSwish", ["body"], {}), ("Mul", [0, "k"], {}), ("Add", ["body", 0], {})]
    model = given(Written(extra=chain(steps), constants={"k": f32(0.1)}))
    found = network_from_onnx(saved(tmp_path, model), AskedOfGraph())
    path, contract = tmp_path / "model.onnx", IOContract(1.0)
    assert graph_from_given(found, contract, path, target_named("any"), None).opset == 17
    with pytest.raises(BadInput, match="HardSwish step0, which Jetson Xavier NX"):
        graph_from_given(found, contract, path, target_named("xavier-nx"), None)


def test_a_crop_that_a_trace_froze_is_found(explored_here, tmp_path):
    """Its axes are declared free, and small pictures pass."""
    crop = [("Slice", ["body", "start", "end", "axes"], {})]
    constants = {"start": i64(0, 0), "end": i64(128, 128), "axes": i64(2, 3)}
    with pytest.raises(BadInput, match=r"it gives \(1, 3, 128, 128\) for an input of 72x88"):
        network_from_onnx(saved(tmp_path, given(Written(extra=chain(crop), constants=constants))), AskedOfGraph())


def test_weights_that_are_inputs_too_are_weights(explored_here, tmp_path):
    """As files before IR version 4 list them."""
    model = given(Written(opset=9))
    model.ir_version = 3
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    assert network_from_onnx(saved(tmp_path, model), AskedOfGraph()).scale == 2


def test_functions_of_the_file_are_written_out(explored_here, tmp_path):
    """As PyTorch's exporter kept modules as functions."""
    model = given()
    body = [helper.make_node("Relu", ["a"], ["b"])]
    opsets = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("mine", "Act", ["a"], ["b"], body, opsets))
    model.opset_import.append(helper.make_opsetid("mine", 1))
    model.graph.node[1].op_type, model.graph.node[1].domain = "Act", "mine"
    found = network_from_onnx(saved(tmp_path, model), AskedOfGraph())
    lr = sample_input((9, 12), 1.0)
    assert largest_difference(run(found.model)(lr), ReferenceEvaluator(given()).run(None, {"input": lr})[0], 1) < 0.05


def test_what_was_exported_is_exported_again(explored_here, tmp_path):
    """Names that an export adds may be there, and limits are not added twice."""
    first = saved(tmp_path, given(Written()))
    network = network_from_onnx(first, AskedOfGraph(value_range=1.0))
    contract = IOContract(1.0)
    for name in ("second.onnx", "third.onnx"):
        graph_from_given(network, contract, tmp_path / name, target_named("any"), None)
        network = network_from_onnx(tmp_path / name, AskedOfGraph(value_range=1.0))
    operators = [node.op_type for node in onnx.load(str(tmp_path / "third.onnx")).graph.node]
    assert operators.count("Clip") == [node.op_type for node in onnx.load(str(first)).graph.node].count("Clip") + 1
