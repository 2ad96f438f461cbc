"""Runs of linear operations written anew in the way that moves least: one convolution, a sum, or one over a join.

    dense    x ─ Conv k×k depthwise ─ Conv 1×1                →  x ─ Conv k×k
    sum      (x, y) ─ Concat ─ Conv 1×1                       →  x ─ Conv 1×1 ─┬─ Add
                                                                 y ─ Conv 1×1 ─┘
    join     x ─ Conv 1×1 ─┬─ Add ─ Conv 1×1                  →  (x, y) ─ Concat ─ Conv 1×1
             y ────────────┘
    padded   x ─ Slice ─ Pad (reflect) ─ Conv k×k ─┬─ Add …   →  (x, y) ─ Concat ─ Pad (reflect) ─ Conv k×k
             y ─ Conv 1×1 ─────────────────────────┘

Every run becomes a sum of convolutions of what it starts from (linear.py), and that sum is written in each of these
ways; the cheapest is kept, and the run as it was where none is cheaper. What a way costs is estimated for a GPU from
what its listing of layers shows: a kernel takes as long as it moves bytes or computes products, whichever is longer;
additions are fused; Slice, Pad and Concat are copies, but for a Concat of what plain convolutions write.
"""

from __future__ import annotations

import math
from typing import Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np
import onnx

from sr_deploy.graph.rewrite.base import Pass, PassResult, RewriteOptions
from sr_deploy.graph.rewrite.convolution import conv_node, convolution
from sr_deploy.graph.rewrite.editor import Editor
from sr_deploy.graph.rewrite.linear import Form, Key, Linear, grown, is_identity
from sr_deploy.graph.rewrite.ways import BYTES, Costs, Way, best_way, factored

#: A run may become part of another when it is written anew; what has not settled after so many rounds stays as it is.
ROUNDS = 4


class _Regroup:
    """The pass under way on one graph."""

    def __init__(self, model: onnx.ModelProto, costs: Costs) -> None:
        self.editor = Editor(model)
        self.costs = costs
        self.linear = Linear(self.editor, shapes_of(model))

    def run(self) -> int:
        """Rewrite every run whose end something else than this pass reads; how many."""
        changed = 0
        for node in list(self.editor.nodes):
            if any(node is one for one in self.editor.nodes) and self._is_end(node):
                changed += self._rewrite(node)
        return changed

    def _is_end(self, node: onnx.NodeProto) -> bool:
        """Whether the run ends here: another linear node that alone reads it would see through it."""
        if node.op_type not in ("Conv", "Add", "Concat"):
            return False
        reader = self.editor.only_reader(node.output[0])
        if reader is None:
            return True
        form = self.linear.run_to(reader)
        return form is None or node.name not in form.nodes

    def _rewrite(self, node: onnx.NodeProto) -> bool:
        form = self.linear.run_to(node)
        sources = () if form is None else (source for source, _ in form.terms)
        in_place = {source for source in sources if self._writes_into_place(source)}
        way = None if form is None else best_way(form, self.costs, in_place)
        if form is None or way is None or len(set(form.nodes)) < 2:
            return False
        run = [self._named(name) for name in dict.fromkeys(form.nodes)]
        if way.cost >= self._cost_now(run) - 1e-6:
            return False
        new = _written(self.editor, form, way, node)
        self.editor.replace([node], new)
        self.editor.nodes = _without_unread(self.editor)
        self.editor.index()
        for one in new:
            self.linear.shapes.setdefault(one.output[0], self.linear.shapes[node.output[0]])
        return True

    def _named(self, name: str) -> onnx.NodeProto:
        return next(node for node in self.editor.nodes if node.name == name)

    def _cost_now(self, run: Sequence[onnx.NodeProto]) -> float:
        """What the nodes of a run cost as they are; of copies that others read too, their share."""
        own = {node.name for node in run}
        return sum(self._node_cost(node, own) for node in run)

    def _node_cost(self, node: onnx.NodeProto, own: set) -> float:
        count = self._channels
        out = count(node.output[0])
        readers = self.editor.readers(node.output[0])
        share = sum(one.name in own for one in readers) / len(readers) if readers and node.op_type != "Conv" else 1.0
        if node.op_type == "Conv":
            conv = convolution(self.editor, node)
            assert conv is not None
            dense_macs = 0.0 if conv.groups > 1 else float(conv.weight.size)
            return share * self.costs.kernel(count(node.input[0]) + out, dense_macs)
        if node.op_type == "Add":
            parts = [name for name in node.input if name not in self.editor.constants]
            fused = any(self._fuses(name, own) for name in parts)
            return (
                BYTES * out * (len(parts) - 1)
                if fused
                else (self.costs.kernel((len(parts) + 1) * out) if parts[1:] else 0.0)
            )
        if node.op_type == "Concat":
            return sum(self.costs.kernel(2 * count(name)) for name in node.input if not self._writes_into_place(name))
        if node.op_type == "Slice":
            padded = all(one.op_type == "Pad" for one in readers)
            return 0.0 if padded else share * self.costs.kernel(count(node.input[0]) + out)
        return share * self.costs.kernel(2 * out) if node.op_type == "Pad" else 0.0

    def _fuses(self, tensor: str, own: set) -> bool:
        """Whether a sum with ``tensor`` is part of the convolution that makes it, with sums between them or without."""
        maker = self.editor.maker(tensor)
        if maker is None or maker.name not in own or self.editor.only_reader(tensor) is None:
            return False
        return maker.op_type == "Conv" or (maker.op_type == "Add" and any(self._fuses(n, own) for n in maker.input))

    def _writes_into_place(self, tensor: str) -> bool:
        """Whether what makes a tensor can write it into a larger one: a convolution that nothing is fused into."""
        maker = self.editor.maker(tensor)
        if maker is not None and maker.op_type == "Relu":
            maker = self.editor.maker(maker.input[0])
        return maker is not None and maker.op_type in ("Conv", "Resize")

    def _channels(self, tensor: str) -> int:
        return self.linear.channels(tensor) or 0


def _without_unread(editor: Editor) -> List[onnx.NodeProto]:
    """The nodes that something still reads."""
    needed, kept = {editor.output}, []
    for node in reversed(editor.nodes):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    return kept[::-1]


def _written(editor: Editor, form: Form, way: Way, end: onnx.NodeProto) -> List[onnx.NodeProto]:
    """The nodes of a way, the last of which makes what ``end`` made."""
    result = end.output[0]
    skips = [source for (source, _), weight in form.terms.items() if is_identity(weight)]
    last = len(way.groups) + len(skips) - 1
    nodes: List[onnx.NodeProto] = []
    summed = ""
    for number, group in enumerate(way.groups):
        target = result if number == last else editor.fresh(f"{result}/term{number}")
        if number == last and number:
            target = editor.fresh(f"{result}/term{number}")
        bias = form.bias if number == 0 and form.bias.any() else None
        convolved = _through_fewer if way.narrow else _convolved
        nodes += convolved(editor, form, group, bias, target, end, f"part{number}")
        if number:
            total_name = result if number == last else editor.fresh(f"{result}/sum{number}")
            nodes.append(editor.make("Add", [target, summed], total_name, end, f"sum{number}"))
        summed = nodes[-1].output[0]
    for number, skip in enumerate(skips, len(way.groups)):
        total_name = result if number == last else editor.fresh(f"{result}/sum{number}")
        nodes.append(editor.make("Add", [summed, skip], total_name, end, f"sum{number}"))
        summed = total_name
    nodes[-1].name = end.name
    return nodes


def _through_fewer(
    editor: Editor, form: Form, group: Sequence[Key], bias: Optional[np.ndarray], target: str, end: onnx.NodeProto,
    role: str,
) -> List[onnx.NodeProto]:  # fmt: skip
    """1×1 terms, each through as few channels as its rank, joined for one convolution."""
    nodes: List[onnx.NodeProto] = []
    seconds: List[np.ndarray] = []
    for number, key in enumerate(group):
        first, second = factored(form.terms[key][:, :, 0, 0])
        narrow = editor.fresh(f"{target}/narrow{number}")
        nodes.append(conv_node(editor, key[0], first[:, :, None, None], None, narrow, end, f"{role}/narrow{number}"))
        seconds.append(second)
    joined = editor.fresh(f"{target}/joined")
    nodes.append(editor.make("Concat", [one.output[0] for one in nodes], joined, end, f"{role}/join", axis=1))
    weight = np.concatenate(seconds, axis=1)[:, :, None, None]
    return [*nodes, conv_node(editor, joined, weight, bias, target, end, role)]


def _convolved(
    editor: Editor, form: Form, group: Sequence[Key], bias: Optional[np.ndarray], target: str, end: onnx.NodeProto,
    role: str,
) -> List[onnx.NodeProto]:  # fmt: skip
    """The convolution of one group, with what joins and pads its sources."""
    size = max(form.terms[key].shape[2] for key in group)
    margin = (size - 1) // 2
    mirrored = any(mirror for _, mirror in group)
    nodes: List[onnx.NodeProto] = []
    source = group[0][0]
    if len(group) > 1:
        nodes.append(
            editor.make(
                "Concat", [one for one, _ in group], editor.fresh(f"{target}/joined"), end, f"{role}/join", axis=1
            )
        )
        source = nodes[-1].output[0]
    if mirrored:
        pads = editor.add_constant(f"{target}/pads", np.array([0, 0, margin, margin] * 2, np.int64))
        nodes.append(
            editor.make("Pad", [source, pads], editor.fresh(f"{target}/padded"), end, f"{role}/pad", mode="reflect")
        )
        source = nodes[-1].output[0]
    weights = [grown(form.terms[key], size) for key in group]
    conv = conv_node(
        editor, source, np.concatenate(weights, axis=1), bias, target, end, role, pads=(0 if mirrored else margin,) * 4
    )
    return [*nodes, conv]


def shapes_of(model: onnx.ModelProto) -> Dict[str, Tuple[object, ...]]:
    """Tensor → extents, numbers where they are known and names elsewhere, as far as ONNX infers them."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    return {
        value.name: tuple(
            d.dim_value if d.HasField("dim_value") else d.dim_param for d in value.type.tensor_type.shape.dim
        )
        for value in [*inferred.value_info, *inferred.input, *inferred.output]
        if value.type.tensor_type.HasField("shape")
    }


def _apply(costs: Costs) -> Callable[[onnx.ModelProto, RewriteOptions], PassResult]:
    def apply(model: onnx.ModelProto, options: RewriteOptions) -> PassResult:
        """Rewrite until nothing gets cheaper."""
        changed = 0
        for _ in range(ROUNDS):
            regroup = _Regroup(model, costs)
            found = regroup.run()
            if not found:
                break
            model, changed = regroup.editor.finish(), changed + found
        return PassResult(model, changed)

    return apply


PASS = Pass(
    "regroup", "linear operations as one convolution, a sum, or one over a join", _apply(Costs()), default=False
)
FEWEST = Pass(
    "fewest",
    "as regroup, where bytes and kernels alone count, not products",
    _apply(Costs(balance=math.inf)),
    default=False,
)
