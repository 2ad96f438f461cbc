"""A float32 graph as a typed one: 16-bit constants and activations, float32 where a node is pinned, casts at borders.

A strongly typed builder (TensorRT 10 on request, 11, TensorRT-RTX) computes in exactly the types that the graph
holds. With Q/DQ the types of the scales decide: QuantizeLinear reads the type of its tensor, DequantizeLinear gives the
type of the plan's ``rest``. Float16 scales and FP8 came with operator set 19; convolutions of bfloat16 are declared
from 22 on. ONNX Runtime's CPU computes nothing in bfloat16: precision/float16_rounding.py.
"""

from __future__ import annotations

from typing import Dict, FrozenSet, List, Mapping, Tuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sr_deploy.core.deployment.plan import Plan
from sr_deploy.core.errors import BadDeployment, CheckFailed, UsageError
from sr_deploy.core.number_formats import BFLOAT16, FLOAT8, FLOAT16, FLOAT32, FORMAT, FORMATS, INT8
from sr_deploy.graph.rewrite.editor import is_pinned
from sr_deploy.precision.grid import bfloat16_bytes
from sr_deploy.precision.lower.quantize import quantized_graph
from sr_deploy.precision.tensors import element_types, following_picture

#: Element type → our name for it.
_NAMES: Mapping[int, str] = {one.onnx_type: one.name for one in FORMATS}
#: Inputs that ONNX defines as float32 whatever the node computes in.
_ALWAYS_FLOAT32: Mapping[str, FrozenSet[int]] = {"Resize": frozenset((1, 2))}


def half_graph(model: onnx.ModelProto, keep_pinned: bool = True) -> onnx.ModelProto:
    """The graph in float16; its inputs and outputs keep their names and their float32.

    What does not depend on the picture's values (sizes, a matrix computed from a width) is left as it is and cast where
    it is used.

    Args:
        model: float32, static or dynamic. Not modified.
        keep_pinned: False computes pinned nodes in float16 too.

    Raises:
        UsageError: the graph holds subgraphs (If, Loop, Scan).
        CheckFailed: a constant does not fit float16; the message names it.
    """
    wide = {node.name: TensorProto.FLOAT for node in model.graph.node if keep_pinned and is_pinned(node)}
    return _Typing(model, TensorProto.FLOAT16, wide).result()


def typed_graph(model: onnx.ModelProto, plan: Plan, weights: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """The graph in the types of a plan, Q/DQ included; its input and output keep their names and types.

    Args:
        model: the float32 graph that the plan names. Not modified.
        plan: see core/deployment/plan.py.
        weights: constant name → float32 array that replaces it.

    Raises:
        BadDeployment: the plan does not fit the graph.
        UsageError, CheckFailed: see ``half_graph``.
    """
    _check_formats(plan)
    quantized = quantized_graph(model, plan, weights)
    own = {name: FORMAT[dtype].onnx_type for name, dtype in plan.nodes.items() if FORMAT[dtype].floating}
    result = _Typing(quantized, FORMAT[plan.rest].onnx_type, own).result()
    if BFLOAT16.name in plan.formats:
        _raise_opset(result, 22)
    elif plan.quantised and (plan.rest != FLOAT32.name or plan.nodes_of(FLOAT8.name)):
        _raise_opset(result, 19)
    onnx.checker.check_model(result)
    return result


def _check_formats(plan: Plan) -> None:
    """Refuse a format that the table has and nothing here lowers: such a node would get the type of its neighbours."""
    lowered = (INT8.name, FLOAT8.name, FLOAT16.name, BFLOAT16.name, FLOAT32.name)
    foreign = sorted(set(plan.formats) - set(lowered))
    if foreign:
        raise BadDeployment(
            f"the plan has nodes in {', '.join(foreign)}, which is not lowered here",
            "nodes in " + ", ".join(lowered),
            "give those nodes one of these types in the plan",
        )


class _Typing:
    """The new graph while it is written."""

    def __init__(self, model: onnx.ModelProto, rest: int, own: Mapping[str, int]) -> None:
        """``rest`` is the element type of every node that computes with the picture and has none in ``own``."""
        for node in model.graph.node:
            if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute):
                raise UsageError(
                    f"the node {node.name!r} ({node.op_type}) holds a graph of its own", "a graph without branches"
                )
        self.model, self.rest, self.own = model, rest, own
        self.types = element_types(model)
        self.constants = {t.name: t for t in model.graph.initializer}
        self.now: Dict[str, int] = {}  # activation → its element type in the new graph, where that differs from before
        self.cast_names: Dict[Tuple[str, int], str] = {}
        self.narrow: Dict[str, onnx.TensorProto] = {}
        self.nodes: List[onnx.NodeProto] = []

    def result(self) -> onnx.ModelProto:
        """The typed graph."""
        depends = following_picture(self.model)
        outputs = {value.name for value in self.model.graph.output}
        for node in self.model.graph.node:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            floating = any(self.types.get(name) == TensorProto.FLOAT for name in (*node.input, *node.output))
            if node.op_type == "QuantizeLinear":
                copy.input[1] = self._as(node.input[1], self.now.get(node.input[0], TensorProto.FLOAT))
            elif node.op_type == "DequantizeLinear":
                self._set(copy, self.rest)
            elif floating:
                depending = node.output[0] in depends
                self._set(copy, self.own.get(node.name, self.rest) if depending else TensorProto.FLOAT)
            for index, name in enumerate(copy.output):
                kind = self.now.get(name, TensorProto.FLOAT)
                if name in outputs and kind != TensorProto.FLOAT:
                    own = f"{name}/{_NAMES[kind]}"
                    copy.output[index] = own
                    self.nodes.append(copy)
                    copy = helper.make_node("Cast", [own], [name], name=f"{name}/cast", to=TensorProto.FLOAT)
                    self.now[name] = TensorProto.FLOAT
            self.nodes.append(copy)
        return self._assembled()

    def _set(self, node: onnx.NodeProto, kind: int) -> None:
        """Let ``node`` compute in ``kind``: its float inputs are given so, its float outputs are so."""
        for index, name in enumerate(node.input):
            if self.types.get(name) != TensorProto.FLOAT or index in _ALWAYS_FLOAT32.get(node.op_type, ()):
                continue
            node.input[index] = self._as(name, kind)
        if node.op_type == "Cast":
            for attribute in node.attribute:
                if attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                    attribute.i = kind
        for name in node.output:
            if self.types.get(name) == TensorProto.FLOAT:
                self.now[name] = kind

    def _as(self, name: str, kind: int) -> str:
        """A tensor of this element type with the values of ``name``."""
        if name in self.constants:
            return name if kind == TensorProto.FLOAT else self._narrow_constant(name, kind)
        if self.now.get(name, TensorProto.FLOAT) == kind:
            return name
        key = (name, kind)
        if key not in self.cast_names:
            self.cast_names[key] = f"{name}/as_{_NAMES[kind]}"
            self.nodes.append(
                helper.make_node("Cast", [name], [self.cast_names[key]], name=self.cast_names[key], to=kind)
            )
        return self.cast_names[key]

    def _narrow_constant(self, name: str, kind: int) -> str:
        """A constant in 16 bits; one of float16 must fit it."""
        narrow = f"{name}/{_NAMES[kind]}"
        if narrow not in self.narrow:
            values = numpy_helper.to_array(self.constants[name])
            largest = float(np.max(np.abs(values), initial=0.0))
            if kind == TensorProto.FLOAT16 and largest > FLOAT16.largest:
                raise CheckFailed(
                    f"the constant {name!r} holds {largest:g}, which float16 cannot",
                    f"constants within ±{FLOAT16.largest:g}",
                    "keep the node that uses it in float32",
                )
            stored = values.astype(np.float16).tobytes() if kind == TensorProto.FLOAT16 else bfloat16_bytes(values)
            self.narrow[narrow] = TensorProto(name=narrow, data_type=kind, dims=values.shape, raw_data=stored)
        return narrow

    def _assembled(self) -> onnx.ModelProto:
        result = onnx.ModelProto()
        result.CopyFrom(self.model)
        graph = result.graph
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(self.nodes)
        used = {name for node in self.nodes for name in node.input}
        graph.initializer.extend(t for t in (*self.constants.values(), *self.narrow.values()) if t.name in used)
        return result


#: Reductions whose axes became an input in operator set 18.
_REDUCTIONS = ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare")


def _raise_opset(model: onnx.ModelProto, version: int) -> None:
    """Declare a later operator set (16, 17 → 19 or 22), and rewrite the nodes that it describes otherwise.

    Of the operators that the exporter writes and takes, Split wants the number of its outputs since 18, reductions take
    their axes as an input since then, and GridSample calls its modes "linear" and "cubic" since 20; Resize, Pad and the
    rest only gained options (ONNX, Changelog.md).
    """
    for node in model.graph.node:
        if node.op_type in _REDUCTIONS and len(node.input) == 1:
            axes = next((a for a in node.attribute if a.name == "axes"), None)
            if axes is not None:
                name = f"{node.name}/axes"
                model.graph.initializer.append(numpy_helper.from_array(np.asarray(axes.ints, np.int64), name))
                node.input.append(name)
                node.attribute.remove(axes)
        elif node.op_type == "Split" and len(node.input) == 1:
            node.attribute.append(helper.make_attribute("num_outputs", len(node.output)))
        elif node.op_type == "GridSample" and version >= 20:
            for attribute in node.attribute:
                if attribute.name == "mode":
                    attribute.s = {b"bilinear": b"linear", b"bicubic": b"cubic"}.get(attribute.s, attribute.s)
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx"):
            opset.version = max(opset.version, version)
    model.ir_version = max(model.ir_version, 9 if version < 21 else 10)
