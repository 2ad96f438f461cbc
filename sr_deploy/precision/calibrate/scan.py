"""Which nodes must stay float32 because float16 cannot hold what they compute, found on real pictures.

pins = scan_half(model, ranges, patches(arrays))
half = half_graph(pinned(model, pins))
"""

from __future__ import annotations

from typing import Callable, Dict, Iterable, List, Mapping, Sequence, Set, Tuple

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from sr_deploy.core.contract import picture_size
from sr_deploy.core.errors import BadInput, CheckFailed
from sr_deploy.core.number_formats import FLOAT16
from sr_deploy.graph.rewrite.editor import PIN_MARK, is_pinned
from sr_deploy.precision.calibrate.collect import Exposed
from sr_deploy.precision.calibrate.ranges import Ranges
from sr_deploy.precision.choose.float32_patterns import float32_recipes
from sr_deploy.precision.float16_rounding import rounded_graph, rounding_session
from sr_deploy.precision.lower.typed_graph import half_graph
from sr_deploy.precision.tensors import floating_activations

#: How much larger than on the pictures seen a value may become on others before float16 overflows.
MARGIN = 8.0


def scan_half(
    model: onnx.ModelProto,
    ranges: Ranges,
    inputs: Iterable[np.ndarray],
    margin: float = MARGIN,
    say: Callable[[str], None] = lambda _: None,
) -> Dict[str, str]:
    """Nodes that must stay float32, beside those that the exporter has pinned: node name → reason, with the figure.

    Three things pin a node: a recipe (LayerNorm, softmax, attention), a range that comes too close to float16's
    largest number, and a value that really became NaN or infinite when the graph ran in float16 on ``inputs``. The
    last is repeated with the pins found so far, until everything is finite.

    Args:
        model: the float32 graph.
        ranges: of all its tensors, from ``ranges_of``.
        inputs: arrays as the graph takes them, to run it in float16 on; a few suffice. Extreme ones belong to them.
        margin: a tensor may reach 65504 / ``margin``.
        say: told what was found.

    Raises:
        CheckFailed: the float32 graph itself gives NaN or infinite values.
        BadInput: no inputs, or ``ranges`` are of another graph.
    """
    arrays = list(inputs)
    if not arrays:
        raise BadInput(
            "the float16 scan was given no picture", "at least one real picture", "give photographs with --images"
        )
    pins = {**too_large(model, ranges, margin), **float32_recipes(model)}
    pins = {node.name: pins[node.name] for node in model.graph.node if node.name in pins and not is_pinned(node)}
    for _ in range(len(model.graph.node)):
        sick = _overflows(model, pins, arrays)
        if not sick:
            return pins
        for name, reason in sick.items():
            say(f"{name} stays float32: {reason}")
        pins.update(sick)
    raise CheckFailed(
        "the graph is not finite in float16, whatever stays float32",
        "a graph with finite values",
        "srdeploy build DIR --precision bf16, or fp32",
    )


def pinned(model: onnx.ModelProto, pins: Mapping[str, str]) -> onnx.ModelProto:
    """A copy of the graph with these nodes marked as the exporter marks pinned ones: node name → reason."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for node in result.graph.node:
        if node.name in pins and not is_pinned(node):
            node.doc_string = f"{PIN_MARK} ({pins[node.name]})"
    return result


def too_large(model: onnx.ModelProto, ranges: Ranges, margin: float = MARGIN) -> Dict[str, str]:
    """Nodes that make or read a tensor or a constant beyond the margin: node name → reason, with the figure.

    Readers stay float32 too: a cast in front of them would overflow just the same.

    Raises:
        CheckFailed: a tensor of the float32 graph is NaN or infinite.
        BadInput: ``ranges`` lack a tensor of the graph.
    """
    missing = [name for name in floating_activations(model) if name not in ranges.tensors]
    if missing:
        wanted = "ranges of all tensors of this graph"
        raise BadInput(f"the ranges have no tensor {missing[0]!r}", wanted, "calibrate again")
    limit = FLOAT16.largest / margin
    figures: Dict[str, float] = {}
    for name, stats in ranges.tensors.items():
        if stats.non_finite:
            raise CheckFailed(
                f"the float32 graph gives {stats.non_finite} NaN or infinite values in {name!r}",
                "finite values in float32",
                "check the checkpoint: no precision can mend it",
            )
        figures[name] = stats.amax
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            # A constant does not grow with the picture, so it needs no margin.
            figures[tensor.name] = float(np.abs(numpy_helper.to_array(tensor)).max(initial=0.0)) / margin
    found = {}
    for node in model.graph.node:
        if node.op_type in ("Shape", "Size"):
            continue
        for names, verb in ((node.output, "gives"), (node.input, "reads")):
            worst = max((name for name in names if name in figures), key=lambda name: figures[name], default=None)
            if worst is None or figures[worst] <= limit:
                continue
            constant = worst not in ranges.tensors
            figure = figures[worst] * (margin if constant else 1.0)
            bound = FLOAT16.largest if constant else limit
            found[node.name] = f"it {verb} values up to {figure:.4g}, beyond {bound:.4g}" + (
                "" if constant else f" = {FLOAT16.largest:.0f} / {margin:g}"
            )
            break
    return found


def _overflows(model: onnx.ModelProto, pins: Mapping[str, str], arrays: Sequence[np.ndarray]) -> Dict[str, str]:
    """Nodes at which the float16 graph first becomes NaN or infinite, where the float32 one is finite."""
    half = half_graph(pinned(model, pins))
    makers = {name: node for node in half.graph.node for name in node.output}
    floats = set(floating_activations(half))
    names = [name for name in makers if name in floats]
    exact = floating_activations(model)
    typed = Exposed(rounded_graph(half), names, picture_size(arrays[0]), exact=True)
    plain = Exposed(model, exact, picture_size(arrays[0]))
    readers: Dict[str, List[str]] = {}
    for node in model.graph.node:
        for name in node.input if node.op_type not in ("Shape", "Size") else ():
            readers.setdefault(name, []).append(node.name)
    own = {node.name for node in model.graph.node}
    found: Dict[str, str] = {}
    for array in arrays:
        sick, largest = _sick(typed, array)
        if not sick:
            continue
        finite = {name for name, values in plain.run(array) if np.isfinite(values).all()}
        for name in sick:
            node = makers[name]
            if any(read in sick for read in node.input) or _plain_name(name, model) not in finite:
                continue
            figure = max((largest.get(read, 0.0) for read in node.input), default=0.0)
            reason = f"float16 gives NaN or infinity ({node.op_type} of values up to {figure:.4g})"
            for pin in [node.name] if node.name in own else readers.get(node.input[0], []):
                if pin not in pins:
                    found[pin] = reason
    return found


def _sick(typed: Exposed, array: np.ndarray) -> Tuple[Set[str], Dict[str, float]]:
    """Tensors with NaN or infinite values, and the largest magnitude of the others."""
    sick: Set[str] = set()
    largest: Dict[str, float] = {}
    for name, values in typed.run(array):
        magnitude = _magnitude(values)
        if np.isfinite(magnitude):
            largest[name] = magnitude
        else:
            sick.add(name)
    return sick, largest


def _magnitude(values: np.ndarray) -> float:
    """The largest magnitude of float16 or float32 values; NaN or infinite where one of them is. 0 of none."""
    if values.dtype == np.float16:
        # Less their sign its bits are ordered as the values are, infinity and NaN above all; processors have no
        # arithmetic of float16, and to widen each value takes ten times as long.
        bits = values.view(np.uint16) & np.uint16(0x7FFF)
        return float(bits.max(initial=0).view(np.float16))
    # NaN is the smallest and the largest of what holds it.
    low, high = values.min(initial=0.0), values.max(initial=0.0)
    return float(max(-low, high)) if np.isfinite(low) else float(low)


def _plain_name(name: str, model: onnx.ModelProto) -> str:
    """The tensor of the float32 graph that a tensor of the float16 graph stands for."""
    for suffix in ("/as_float16", "/as_float32", "/float16"):
        if name.endswith(suffix):
            return name[: -len(suffix)]
    return name


def is_finite(model: onnx.ModelProto, inputs: Iterable[np.ndarray]) -> bool:
    """Whether a typed graph's output is finite on all inputs, every float16 result rounded."""
    session = rounding_session(rounded_graph(model))
    name = session.get_inputs()[0].name
    return all(bool(np.isfinite(session.run(None, {name: array})[0]).all()) for array in inputs)


def extreme_inputs(size: Tuple[int, int], value_range: float) -> Dict[str, np.ndarray]:
    """Pictures that networks break on: black, white, noise, a checkerboard of single pixels, saturated colours.

    Args:
        size: height and width.
        value_range: the value of white.

    Returns:
        Name → float32 (1, 3, H, W) in ``0…value_range``.
    """
    height, width = size
    random = np.random.default_rng(0)
    board = (np.indices((height, width)).sum(axis=0) % 2).astype(np.float32)
    shape = (1, 3, height, width)
    pictures = {
        "black": np.zeros(shape),
        "white": np.ones(shape),
        "noise": random.random(shape),
        "checkerboard": np.broadcast_to(board, shape),
        "colours": (random.random(shape) < 0.5),
    }
    return {name: np.ascontiguousarray(array, np.float32) * np.float32(value_range) for name, array in pictures.items()}
