"""A graph whose weights lie in other files is refused, whichever tensor it is, without the package onnx."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sr_deploy.core.artifact import sha256_of
from sr_deploy.core.deployment.external_data import check_self_contained
from sr_deploy.core.errors import BadDeployment


def tensor(external: bool, name: str = "w") -> TensorProto:
    made = numpy_helper.from_array(np.arange(4, dtype=np.float32), name)
    if external:
        made.ClearField("raw_data")
        made.data_location = TensorProto.EXTERNAL
        made.external_data.add(key="location", value="manifest.json")
    return made


def model(place: str, external: bool) -> onnx.ModelProto:
    """An external tensor as an initializer, in a node's attribute, in a branch's graph, in a sparse one, a function."""
    inner = helper.make_graph([helper.make_node("Constant", [], ["y"], value=tensor(external))], "inner", [], [])
    nodes, initializers, sparse = [helper.make_node("Relu", ["x"], ["y"])], [], []
    functions = []
    if place == "initializer":
        initializers = [tensor(external)]
    elif place == "attribute":
        nodes = [helper.make_node("Constant", [], ["y"], value=tensor(external))]
    elif place == "branch":
        nodes = [helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)]
    elif place == "sparse":
        sparse = [helper.make_sparse_tensor(tensor(external), numpy_helper.from_array(np.arange(4), "i"), [9])]
    else:
        node = helper.make_node("Constant", [], ["y"], value=tensor(external))
        functions = [helper.make_function("d", "f", [], ["y"], [node], [helper.make_opsetid("", 17)])]
    graph = helper.make_graph(nodes, "g", [], [], initializers, sparse_initializer=sparse)
    return helper.make_model(graph, functions=functions)


@pytest.mark.parametrize("place", ["initializer", "attribute", "branch", "sparse", "function"])
def test_external_tensors_are_found_wherever_they_are(tmp_path, place):
    path = tmp_path / "model.onnx"
    path.write_bytes(model(place, False).SerializeToString())
    check_self_contained(path)
    path.write_bytes(model(place, True).SerializeToString())
    with pytest.raises(BadDeployment, match="keeps weights in another file"):
        check_self_contained(path)


@pytest.mark.parametrize(
    "data", [b"", b"plan", b"\x3a\xff", b"\x3a\x05\x0a", b"\x3b\x3c", b"\xff" * 12, b"\x3a\x04\x0a\xff\xff\x7f"]
)
def test_what_cannot_be_walked_is_no_graph(tmp_path, data):
    (tmp_path / "x.onnx").write_bytes(data)
    with pytest.raises(BadDeployment, match="not an ONNX file"):
        check_self_contained(tmp_path / "x.onnx")


def test_deep_nesting_takes_no_stack(tmp_path):
    data = b""
    for _ in range(2000):  # graph → node → attribute → graph …
        for tag in (0x32, 0x2A, 0x0A):
            data = bytes([tag]) + _varint(len(data)) + data
    (tmp_path / "x.onnx").write_bytes(b"\x3a" + _varint(len(data)) + data)
    check_self_contained(tmp_path / "x.onnx")


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def test_a_deployment_with_its_weights_beside_it_is_refused_by_every_command(demo_export, tmp_path, srdeploy):
    """The manifest's hash fits: only what the hash says nothing of was moved."""
    net = tmp_path / "net"
    shutil.copytree(demo_export, net)
    loaded = onnx.load(str(net / "model.onnx"))
    onnx.save(loaded, str(net / "model.onnx"), save_as_external_data=True, location="w.bin", size_threshold=0)
    manifest = json.loads((net / "manifest.json").read_text())
    manifest["graphs"][0]["sha256"] = sha256_of(net / "model.onnx")
    (net / "manifest.json").write_text(json.dumps(manifest))
    for command in (("inspect", net), ("build", net, "--backend", "onnxruntime"), ("bench", net, "--size", "24")):
        outcome = srdeploy(*command)
        assert outcome.code == 4 and "keeps weights in another file" in outcome.err, outcome.err


def test_an_engine_of_onnxruntime_is_refused_too(demo_export, tmp_path, srdeploy):
    net = tmp_path / "net"
    shutil.copytree(demo_export, net)
    assert srdeploy("build", net, "--backend", "onnxruntime", "--size", "24").code == 0
    (engine,) = (net / "engines").glob("*.onnx")
    onnx.save(onnx.load(str(engine)), str(engine), save_as_external_data=True, location="w.bin", size_threshold=0)
    record = json.loads(engine.with_suffix(".json").read_text())
    engine.with_suffix(".json").write_text(json.dumps({**record, "sha256": sha256_of(engine)}))
    outcome = srdeploy("inspect", engine)
    assert outcome.code == 4 and "keeps weights in another file" in outcome.err


def test_no_package_onnx_is_needed():
    code = "import sys; import sr_deploy.core.deployment.external_data; sys.exit('onnx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
