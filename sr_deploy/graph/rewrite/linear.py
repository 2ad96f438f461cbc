"""What a tensor is as a linear function of others: one kernel for each, and a bias.

A run of convolutions, additions, channel slices and concatenations, scalings and reflect pads is a sum of convolutions
of the tensors it starts from. With that sum at hand a run can be written anew in whichever way moves least.

Exact at borders: a k×k convolution is composed with what is before it only where that is 1×1, and, with zeros around
the picture, has no bias; a reflection repeats pixels, so 1×1 convolutions may change places with it. What is after a
k×k convolution must be 1×1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import onnx

from sr_deploy.graph.rewrite.convolution import convolution
from sr_deploy.graph.rewrite.editor import Editor, attributes_of, is_pinned

#: Reading so many channels again is cheaper than reading what a convolution made of them: the picture itself.
LIGHT = 4
#: A source, and whether it is reflected around the picture's border (else zeros are there).
Key = Tuple[str, bool]


@dataclass(frozen=True)
class Form:
    """A tensor as a sum of convolutions.

    Attributes:
        terms: source → weight (C_out, C_source, k, k), k odd, float64.
        bias: (C_out,).
        nodes: names of the nodes that were seen through.
    """

    terms: Mapping[Key, np.ndarray]
    bias: np.ndarray
    nodes: Tuple[str, ...] = ()

    @property
    def pointwise(self) -> bool:
        """Whether every output pixel reads its own place only."""
        return all(weight.shape[2] == 1 for weight in self.terms.values())

    def mapped(self, function: Callable[[np.ndarray], np.ndarray], bias: np.ndarray, *nodes: onnx.NodeProto) -> Form:
        """With every weight replaced, another bias, and more nodes seen through."""
        names = (*self.nodes, *(node.name for node in nodes))
        return Form({key: function(weight) for key, weight in self.terms.items()}, bias, names)


def total(forms: Sequence[Form], node: onnx.NodeProto) -> Form:
    """The sum of forms of equally many channels."""
    terms: Dict[Key, np.ndarray] = {}
    for form in forms:
        for key, weight in form.terms.items():
            terms[key] = added(terms[key], weight) if key in terms else weight
    # At a kernel of one pixel the border is out of reach, so such a term joins a larger one of the same source.
    for source, _ in list(terms):
        pair = [(source, mirror) for mirror in (False, True) if (source, mirror) in terms]
        if len(pair) == 2:
            small = next((key for key in pair if terms[key].shape[2] == 1), None)
            if small is not None:
                other = next(key for key in pair if key != small)
                terms[other] = added(terms[other], terms.pop(small))
    names = tuple(name for form in forms for name in form.nodes)
    return Form(terms, sum((form.bias for form in forms[1:]), forms[0].bias), (*names, node.name))


def added(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The sum of two kernels, the smaller one in the middle of the larger."""
    large, small = (first, second) if first.shape[2] >= second.shape[2] else (second, first)
    return large + grown(small, large.shape[2])


def grown(weight: np.ndarray, size: int) -> np.ndarray:
    """A kernel with zeros around it, of ``size`` by ``size`` taps."""
    margin = (size - weight.shape[2]) // 2
    return np.pad(weight, [(0, 0), (0, 0), (margin, margin), (margin, margin)])


def stacked(forms: Sequence[Form], node: onnx.NodeProto) -> Form:
    """Forms one after the other in channels."""
    channels = [form.bias.size for form in forms]
    starts = np.cumsum([0, *channels])
    parts = []
    for form, start in zip(forms, starts):

        def widened(weight: np.ndarray, start: int = int(start)) -> np.ndarray:
            wide = np.zeros((int(starts[-1]), *weight.shape[1:]))
            wide[start : start + weight.shape[0]] = weight
            return wide

        parts.append(form.mapped(widened, widened(form.bias)))
    return total(parts, node)


def is_identity(weight: np.ndarray) -> bool:
    """Whether a 1×1 weight gives its source unchanged."""
    out, channels, size = weight.shape[:3]
    return size == 1 and out == channels and bool(np.array_equal(weight[:, :, 0, 0], np.eye(out)))


class Linear:
    """Finds forms in a graph.

    A run is followed through a tensor that one node reads, and through those that are cheap to do again; not from a
    node that is pinned to float32 to one that is not, or back.
    """

    def __init__(self, editor: Editor, shapes: Mapping[str, Sequence[object]]) -> None:
        """``shapes``: tensor → its extents, numbers or names, from shape inference."""
        self.editor = editor
        self.pinned = False
        self.shapes = {name: shape for name, shape in shapes.items() if len(shape) == 4 and isinstance(shape[1], int)}

    def channels(self, tensor: str) -> Optional[int]:
        """How many channels a tensor of four axes has; None where that is not known."""
        shape = self.shapes.get(tensor)
        return None if shape is None else int(shape[1])  # type: ignore[call-overload]

    def kind(self, tensor: str) -> Tuple[object, ...]:
        """What tensors have in common that are added without a broadcast: channels, and height and width if fixed."""
        shape = self.shapes.get(tensor)
        return (
            (tensor,) if shape is None else tuple(extent if isinstance(extent, int) else "any" for extent in shape[1:])
        )

    def source(self, tensor: str) -> Optional[Form]:
        """The tensor as itself."""
        channels = self.channels(tensor)
        if channels is None:
            return None
        return Form({(tensor, False): np.eye(channels)[:, :, None, None]}, np.zeros(channels))

    def through(self, tensor: str, light: bool = False) -> Optional[Form]:
        """The tensor as a function of what its run starts from; as itself where nothing can be seen through.

        Args:
            tensor: which.
            light: whether a convolution of few channels is seen through though others read what it makes.
        """
        node = self.editor.maker(tensor)
        if (
            node is None
            or is_pinned(node) != self.pinned
            or not (self.editor.only_reader(tensor) is not None or self._is_free(node, light))
        ):
            return self.source(tensor)
        form = self.of(node)
        # A sum of tensors as they are is read once; seen through, it would be several convolutions.
        adds_only = form is not None and len(form.terms) > 1 and all(map(is_identity, form.terms.values()))
        return self.source(tensor) if form is None or adds_only else form

    def _is_free(self, node: onnx.NodeProto, light: bool) -> bool:
        """Whether a node may be seen through though others read what it makes: it only moves values, or reads few."""
        few = light and node.op_type == "Conv" and (self.channels(node.input[0]) or LIGHT + 1) <= LIGHT
        return few or node.op_type in ("Slice", "Pad")

    def run_to(self, end: onnx.NodeProto) -> Optional[Form]:
        """What ``end`` makes, as a function of what its run starts from; see ``of``."""
        self.pinned = is_pinned(end)
        return self.of(end)

    def of(self, node: onnx.NodeProto) -> Optional[Form]:
        """What ``node`` makes; None where it is not linear, or not in a way that is known here."""
        rule = _RULES.get(node.op_type)
        return None if rule is None or self.channels(node.output[0]) is None else rule(self, node)


def _convolved(linear: Linear, node: onnx.NodeProto) -> Optional[Form]:
    conv = convolution(linear.editor, node)
    if conv is None or conv.weight.shape[2] != conv.weight.shape[3] or conv.weight.shape[2] % 2 == 0:
        return None
    size, dense = conv.weight.shape[2], conv.dense()
    if size == 1:
        inner = linear.through(conv.source) if set(conv.pads) == {0} else None
        if inner is None:
            return None
        matrix = dense[:, :, 0, 0]
        return inner.mapped(lambda w: np.einsum("om,mihw->oihw", matrix, w), matrix @ inner.bias + conv.bias, node)
    margin = (size - 1) // 2
    pad = linear.editor.maker(conv.source)
    mirrored = set(conv.pads) == {0} and pad is not None and _reflects(linear, pad, margin)
    if not mirrored and set(conv.pads) != {margin}:
        return None
    start = pad.input[0] if mirrored and pad is not None else conv.source
    form = linear.through(start)
    if form is None or not form.pointwise or not (mirrored or not form.bias.any()) or len(form.terms) > 1:
        form = linear.source(start)
    if form is None:
        return None
    weights = {
        (source, mirrored): np.einsum("omhw,mi->oihw", dense, weight[:, :, 0, 0])
        for (source, _), weight in form.terms.items()
    }
    bias = dense.sum(axis=(2, 3)) @ form.bias + conv.bias
    seen = (pad.name,) if mirrored and pad is not None else ()
    return Form(weights, bias, (*form.nodes, *seen, node.name))


def _reflects(linear: Linear, node: onnx.NodeProto, margin: int) -> bool:
    """Whether a node reflects so many rows and columns at every side and nothing else."""
    if node.op_type != "Pad" or attributes_of(node).get("mode", b"constant") != b"reflect":
        return False
    pads = linear.editor.constant(node, 1)
    return pads is not None and pads.ravel().tolist() == [0, 0, margin, margin] * 2


def _summed(linear: Linear, node: onnx.NodeProto) -> Optional[Form]:
    """Add of tensors of one shape, or of one and a value for each channel."""
    for position in (0, 1):
        value = linear.editor.constant(node, position)
        if value is None:
            continue
        form = linear.through(node.input[1 - position])
        each = None if form is None else _each_channel(value, form.bias.size)
        return None if form is None or each is None else form.mapped(lambda w: w, form.bias + each, node)
    if len({linear.kind(name) for name in (*node.input, *node.output)}) > 1:
        return None
    forms = [linear.through(name) for name in node.input]
    known = [form for form in forms if form is not None]
    return total(known, node) if len(known) == len(forms) else None


def _scaled(linear: Linear, node: onnx.NodeProto) -> Optional[Form]:
    """Mul by one number, or one for each channel."""
    value = next((linear.editor.constants[name] for name in node.input if name in linear.editor.constants), None)
    source = next((name for name in node.input if name not in linear.editor.constants), None)
    form = None if value is None or source is None else linear.through(source)
    each = None if form is None or value is None else _each_channel(value, form.bias.size)
    if form is None or each is None:
        return None
    return form.mapped(lambda w: w * each[:, None, None, None], form.bias * each, node)


def _each_channel(value: np.ndarray, channels: int) -> Optional[np.ndarray]:
    """A constant that is broadcast over the picture, as one value for each channel."""
    if value.size == 1:
        return np.full(channels, float(value.reshape(())))
    fits = value.size == channels and value.shape in ((channels, 1, 1), (1, channels, 1, 1))
    return value.astype(np.float64).reshape(-1) if fits else None


def _concatenated(linear: Linear, node: onnx.NodeProto) -> Optional[Form]:
    if attributes_of(node)["axis"] != 1:
        return None
    forms: List[Form] = []
    for name in node.input:
        form = linear.through(name, light=True)
        if form is None:
            return None
        forms.append(form)
    return stacked(forms, node)


def _sliced(linear: Linear, node: onnx.NodeProto) -> Optional[Form]:
    """Some channels in a row."""
    channels = linear.channels(node.input[0])
    bounds = None if channels is None else channel_bounds(linear.editor, node, channels)
    form = None if bounds is None else linear.through(node.input[0])
    if form is None or bounds is None:
        return None
    rows = slice(*bounds)
    return form.mapped(lambda w: w[rows], form.bias[rows], node)


def channel_bounds(editor: Editor, node: onnx.NodeProto, channels: int) -> Optional[Tuple[int, int]]:
    """First channel, and the one after the last, of a Slice of channels in a row; None for any other Slice."""
    bounds = [editor.constant(node, position) for position in range(1, len(node.input))]
    if len(bounds) < 3 or any(value is None or value.size != 1 for value in bounds):
        return None
    first, last, axis, *step = (int(value.reshape(())) for value in bounds if value is not None)
    if axis != 1 or step not in ([], [1]):
        return None
    start, end, _ = slice(first, last).indices(channels)
    return start, end


_RULES: Mapping[str, Callable[[Linear, onnx.NodeProto], Optional[Form]]] = {
    "Conv": _convolved,
    "Add": _summed,
    "Mul": _scaled,
    "Concat": _concatenated,
    "Slice": _sliced,
}
