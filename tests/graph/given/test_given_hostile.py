"""ONNX files that mean harm, or are broken: refused in bounded time and memory, with exit code 4 and no traceback."""

from __future__ import annotations

import resource
import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, external_data_helper, helper, numpy_helper

from sr_deploy.core.artifact import sha256_of
from sr_deploy.core.errors import BadInput
from sr_deploy.graph.given import explore
from sr_deploy.graph.given.network import AskedOfGraph, network_from_onnx
from tests.graph.given.given_graphs import Written, given, saved

#: Seconds and bytes that refusing a file may take, on a busy machine.
MOST_SECONDS, MOST_BYTES = 10.0, 500 << 20


def _said_to_be_giant(model):
    model.graph.initializer[0].dims[:] = [1 << 20, 1 << 20]


def _negative(model):
    model.graph.initializer[0].dims[:] = [-1, -216]


def _giant_constant(model):
    tensor = TensorProto(name="c", data_type=TensorProto.FLOAT, dims=[1 << 40])
    model.graph.node.insert(0, helper.make_node("Constant", [], ["c"], value=tensor))


def _text(model):
    model.graph.initializer.append(helper.make_tensor("t", TensorProto.STRING, [1], [b"x"]))


def _branches_in_branches(model):
    graph = helper.make_graph([helper.make_node("Relu", ["a"], ["b"])], "g", [], [])
    for _ in range(9):
        graph = helper.make_graph([helper.make_node("If", ["a"], ["b"], then_branch=graph)], "g", [], [])
    model.graph.node.extend(graph.node)


def _many_nodes(model):
    model.graph.node.extend([onnx.NodeProto()] * 60_000)


def _functions_of_functions(model):
    """Each calls the one before twice: 2 to the power of 40 nodes."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    for number in range(40):
        names = [f"f{number - 1}"] * 2 if number else ["Relu"] * 2
        domain = {"domain": "mine"} if number else {}
        nodes = [helper.make_node(name, [tensor], [made], **domain) for name, tensor, made in zip(names, "ab", "bc")]
        model.functions.append(helper.make_function("mine", f"f{number}", ["a"], ["c"], nodes, opsets))
    model.opset_import.append(helper.make_opsetid("mine", 1))
    model.graph.node[1].op_type, model.graph.node[1].domain = "f39", "mine"


def _functions_in_a_circle(model):
    opsets = [helper.make_opsetid("mine", 1)]
    for name, other in (("f", "g"), ("g", "f")):
        nodes = [helper.make_node(other, ["a"], ["c"], domain="mine")]
        model.functions.append(helper.make_function("mine", name, ["a"], ["c"], nodes, opsets))
    model.opset_import.append(helper.make_opsetid("mine", 1))
    model.graph.node[1].op_type, model.graph.node[1].domain = "f", "mine"


def _old(model):
    model.opset_import[0].version = 8


def _no_opset(model):
    del model.opset_import[:]


def _outside(model, location="../../etc/passwd"):
    tensor = model.graph.initializer[0]
    external_data_helper.set_external_data(tensor, location, 0, 864)
    tensor.ClearField("raw_data")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_said_to_be_giant, r"says that the tensor w1 has the shape \[1048576, 1048576\]"),
        (_negative, "tensor w1 is of a type or shape"),
        (_giant_constant, "says that the tensor c has the shape"),
        (_text, "tensor t is of a type"),
        (_branches_in_branches, "graphs inside graphs inside graphs"),
        (_many_nodes, "has more than 50,000 nodes"),
        (_functions_of_functions, "comes to 1,099,511,627,7.* nodes"),
        (_functions_in_a_circle, "functions that call themselves"),
        (_old, "is of ONNX operator set 8"),
        (_no_opset, "is of ONNX operator set 0"),
        (_outside, "names '../../etc/passwd'"),
        (lambda model: _outside(model, "/etc/passwd"), "names '/etc/passwd'"),
        (lambda model: _outside(model, "weights.bin"), "lies in weights.bin, which is not there"),
        (lambda model: _outside(model, "short.bin"), "needs 864 bytes from byte 0 of short.bin, which has 3"),
    ],
)
def test_a_file_that_asks_for_too_much_is_refused(tmp_path, change, message):
    model = given()
    change(model)
    (tmp_path / "short.bin").write_bytes(b"abc")
    path = saved(tmp_path, model)
    before, memory = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BadInput, match=message) as caught:
        network_from_onnx(path, AskedOfGraph())
    assert caught.value.exit_code == 4
    assert time.perf_counter() - before < MOST_SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) * 1024 < MOST_BYTES


def test_thousands_of_graphs_inside_each_other_are_refused(tmp_path):
    """Written as bytes: no protobuf library makes them."""

    def field(number, content):
        length, size = b"", len(content)
        while True:
            length += bytes([size & 0x7F | (0x80 if size > 0x7F else 0)])
            size >>= 7
            if not size:
                return bytes([number << 3 | 2]) + length + content

    graph = b""
    for _ in range(3000):
        graph = field(1, field(5, field(6, graph)))
    (tmp_path / "deep.onnx").write_bytes(b"\x08\x08" + field(7, graph))
    with pytest.raises(BadInput, match="graphs inside graphs|damaged"):
        network_from_onnx(tmp_path / "deep.onnx", AskedOfGraph())


def test_a_file_that_is_cut_off_or_changed_anywhere_is_refused_or_a_network(tmp_path, monkeypatch):
    """Every error is one of ours. The first runs are left out: that process is the next test's."""

    def none(*_):
        raise explore.Unrunnable("not run")

    monkeypatch.setattr("sr_deploy.graph.given.network.explore_apart", none)
    whole = given().SerializeToString()
    random = np.random.default_rng(0)
    for length in [0, 1, 2, 7, *random.integers(8, len(whole), 40)]:
        (tmp_path / "cut.onnx").write_bytes(whole[:length])
        with pytest.raises(BadInput):
            network_from_onnx(tmp_path / "cut.onnx", AskedOfGraph())
    for place in random.integers(0, len(whole), 150):
        data = bytearray(whole)
        data[place] ^= 1 << random.integers(8)
        (tmp_path / "bent.onnx").write_bytes(bytes(data))
        with pytest.raises(BadInput):
            network_from_onnx(tmp_path / "bent.onnx", AskedOfGraph())


def grown(*nodes, **constants):
    """The network plus the mean of something that is large only when it runs."""
    end = (
        helper.make_node("Mul", ["mean", "nothing"], ["none"]),
        helper.make_node("Add", ["body", "none"], ["extended"]),
    )
    mean = helper.make_node("ReduceMean", ["large"], ["mean"], keepdims=0)
    stored = {"nothing": np.array(0, np.float32), **{name: np.array(value) for name, value in constants.items()}}
    return given(Written(extra=(*nodes, mean, *end), constants=stored))


def test_what_only_running_shows_ends_in_a_process_of_its_own(tmp_path, monkeypatch):
    """A tensor of 40 GB, and products that would take hours."""
    giant = grown(helper.make_node("ConstantOfShape", ["shape"], ["large"]), shape=[100_000, 100_000])
    slow = grown(
        helper.make_node("ConstantOfShape", ["shape"], ["square"]),
        *(helper.make_node("MatMul", [name, "square"], [made]) for name, made in (("square", "s2"), ("s2", "large"))),
        shape=[12_000, 12_000],
    )
    with pytest.raises(BadInput, match="running it failed|more memory"):
        network_from_onnx(saved(tmp_path, giant), AskedOfGraph())
    monkeypatch.setattr(explore, "MOST_SECONDS", 2)
    before = time.perf_counter()
    with pytest.raises(BadInput, match="not done after 2 seconds"):
        network_from_onnx(saved(tmp_path, slow), AskedOfGraph())
    assert time.perf_counter() - before < MOST_SECONDS


def test_external_data_beside_the_file_is_read_and_hashed(tmp_path):
    """The one network here that is run apart as users have it."""
    model = given()
    external_data_helper.convert_model_to_external_data(model, location="net.data", size_threshold=0)
    onnx.save(model, str(tmp_path / "net.onnx"))
    found = network_from_onnx(tmp_path / "net.onnx", AskedOfGraph())
    assert found.file.external == {"net.data": sha256_of(tmp_path / "net.data")}
    assert (found.scale, found.value_range) == (2, 1.0)
    first = numpy_helper.to_array(found.file.model.graph.initializer[0])
    assert np.array_equal(first, numpy_helper.to_array(given().graph.initializer[0]))


def test_external_data_behind_a_link_that_leads_out_is_refused(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(864))
    (inside / "weights.bin").symlink_to(tmp_path / "secret.bin")
    model = given()
    _outside(model, "weights.bin")
    with pytest.raises(BadInput, match="names 'weights.bin'"):
        network_from_onnx(saved(inside, model), AskedOfGraph())
