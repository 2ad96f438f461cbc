"""Which tensors of a graph follow linearly from which, and through which single tensors all ways to one lead."""

from __future__ import annotations

from typing import AbstractSet, Dict, List, Mapping, Optional, Tuple

import numpy as np
import onnx
from onnx import helper

from sr_deploy.core.contract import Size
from sr_deploy.graph.rewrite.editor import Editor, attributes_of

Shape = Tuple[int, ...]
#: Sizes at which shapes are measured. A network that pads to a multiple, and cuts that off in the end, shows it where a
#: size is none: at multiples the cut takes all there is, as if it were always so.
MEASURED_SIZES = ((48, 64), (45, 51))
#: Sizes instead, for a graph that takes multiples only: heights and widths that suit most.
MULTIPLES = ((48, 64), (64, 96))

#: Operators that are affine in all inputs that follow from the picture, however many.
_IN_ALL = frozenset({"Add", "Sub", "Sum", "Concat"})
#: Operators that are affine in their first input when the others do not follow from the picture.
_IN_FIRST = frozenset(
    {"Conv", "ConvTranspose", "BatchNormalization", "Div", "Neg", "Identity", "Pad", "Slice", "Split", "AveragePool"}
    | {"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Expand", "Gather", "ScatterND"}
)
#: Products: linear in the one input that follows from the picture.
_IN_ONE = frozenset({"Mul", "MatMul"})


class Structure:
    """The ways of the picture through a graph.

    Attributes:
        follows: tensors whose values, and not only their shapes, follow from the picture.

    Args:
        editor: the graph as it is now.
        shapes: of ``measured_shapes``.
    """

    def __init__(self, editor: Editor, shapes: Mapping[str, Tuple[Shape, ...]]) -> None:
        self._editor, self._shapes = editor, shapes
        self.follows = {editor.input}
        self._above: Dict[str, Optional[str]] = {editor.input: None}
        self._depth: Dict[str, int] = {editor.input: 0}
        for node in editor.nodes:
            if node.op_type in ("Shape", "Size") or not self.follows.intersection(node.input):
                continue
            self.follows.update(name for name in node.output if name)
            above = self._nearest_common(linear_inputs(node, self.follows))
            for name in node.output:
                self._above[name] = above
                self._depth[name] = 0 if above is None else self._depth[above] + 1

    def _nearest_common(self, tensors: List[str]) -> Optional[str]:
        """The last tensor that lies on every linear way to all of ``tensors``."""
        if not tensors:
            return None
        common: Optional[str] = tensors[0]
        for other in tensors[1:]:
            second: Optional[str] = other
            while common != second:
                if common is None or second is None:
                    return None
                if self._depth[common] >= self._depth[second]:
                    common = self._above[common]
                else:
                    second = self._above[second]
        return common

    def dominators(self, tensor: str) -> List[str]:
        """The tensors that every linear way to ``tensor`` passes, the furthest first; without itself."""
        found = []
        at = self._above.get(tensor)
        while at is not None:
            found.append(at)
            at = self._above[at]
        return found[::-1]

    def channels(self, tensor: str) -> Optional[int]:
        """Channels of a picture (1, C, H, W); None for a tensor of another kind, or where shapes are not known."""
        shapes = self._shapes.get(tensor)
        return shapes[0][1] if shapes and all(len(shape) == 4 for shape in shapes) else None

    def sizes(self, tensor: str) -> List[Tuple[int, int]]:
        """Heights and widths that a picture was seen to have."""
        return list(dict.fromkeys((shape[2], shape[3]) for shape in self._shapes[tensor]))

    def larger(self, tensor: str, than: str) -> Optional[Tuple[int, int, int]]:
        """Channels of one picture, and how many rows and columns it has more than another one at every size."""
        if self.channels(tensor) is None or self.channels(than) is None:
            return None
        pairs = zip(self._shapes[tensor], self._shapes[than])
        found = {(a[1], a[2] - b[2], a[3] - b[3]) for a, b in pairs}
        return found.pop() if len(found) == 1 else None


def linear_inputs(node: onnx.NodeProto, follows: AbstractSet[str]) -> List[str]:
    """The inputs in which ``node`` is affine together; none where it is not of that kind.

    Args:
        node: one that follows from the picture.
        follows: the tensors that do.
    """
    if any(step != 1 for step in attributes_of(node).get("strides", ())):
        return []  # what skips pixels treats them unequally
    inputs = [name for name in dict.fromkeys(node.input) if name in follows]
    if node.op_type in _IN_ALL:
        return inputs
    if node.op_type in _IN_FIRST:
        return inputs if inputs == [node.input[0]] else []
    if node.op_type in _IN_ONE:
        return inputs if sum(name in follows for name in node.input) == 1 else []
    return []


def measured_shapes(model: onnx.ModelProto, traced: Optional[Size]) -> Dict[str, Tuple[Shape, ...]]:
    """Tensor → its shape at two sizes of the picture, or at the one that the graph takes; found by running it.

    Empty where the graph does not run: nothing is folded then, and what runs it later says why.

    Args:
        model: the graph.
        traced: a size that it is known to take, for a graph that may not take others.
    """
    import onnxruntime

    asked = onnx.ModelProto()
    asked.CopyFrom(model)
    given = {value.name for value in asked.graph.output}
    names = [name for node in asked.graph.node for name in node.output if name and name not in given]
    asked.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    for sizes in (MEASURED_SIZES, MULTIPLES, [traced] if traced else []):
        found: Dict[str, Tuple[Shape, ...]] = {}
        try:
            session = onnxruntime.InferenceSession(
                asked.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
            wanted = [value.name for value in session.get_outputs()]
            for size in sizes:
                picture = _blank(model, size)
                results = session.run(wanted, {model.graph.input[0].name: picture})
                for name, value in [(model.graph.input[0].name, picture), *zip(wanted, results)]:
                    found[name] = (*found.get(name, ()), np.shape(value))
            return found
        except Exception:  # ONNX Runtime raises classes of its own for a graph it cannot load and a size it cannot run
            continue
    return {}


def _blank(model: onnx.ModelProto, size: Tuple[int, int]) -> np.ndarray:
    """An input of zeros, of the dimensions that the graph fixes; else of one picture and ``size``."""
    tensor = model.graph.input[0].type.tensor_type
    free = iter(size)
    shape = [
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else 1 if axis == 0 else next(free)
        for axis, dim in enumerate(tensor.shape.dim)
    ]
    return np.zeros(shape, helper.tensor_dtype_to_np_dtype(tensor.elem_type))
