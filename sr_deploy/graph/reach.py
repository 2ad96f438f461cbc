"""The receptive field of a network, found from its graph: how many pixels parts of a picture must overlap.

The graph is interpreted in intervals (depends.py) at one size, whose height and width are different: what would depend
on the size (a Resize to the picture's own size, say) does not come out alike along both axes.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Dict, List, Optional, Tuple

import numpy as np
import onnx

from sr_deploy.core.contract import Size, SizeRules
from sr_deploy.core.reach import GlobalNode, Reach
from sr_deploy.graph.depends import Interpretation, constants_of, picture
from sr_deploy.graph.intervals import Depends
from sr_deploy.graph.specialise import layout_of, load_graph, static_graph

#: Pictures that the graph is interpreted for, the next where a network looks too far for one: primes, so that nothing
#: is a whole number by chance. Multiplied by what the network's sizes are multiples of.
PRIMES: Tuple[Size, ...] = ((67, 89), (131, 167), (293, 331), (587, 631))
#: A multiple is not searched beyond this.
MOST_MULTIPLE = 64


def reach_of(path: Path, sizes: SizeRules) -> Reach:
    """The reach of the graph in ``path``, not yet proved (``proved`` is None).

    Args:
        path: of a dynamic graph, or of one with a fixed size, which is then taken.
        sizes: the input sizes it takes.

    Raises:
        BadDeployment: the file is not ONNX.
    """
    found: Optional[Reach] = None
    for size in _sizes_for(path, sizes):
        found, grew = _reach_at(static_graph(path, size), size)
        if not grew:
            break
    assert found is not None, "there is always a size"
    return found


def _sizes_for(path: Path, sizes: SizeRules) -> Tuple[Size, ...]:
    model = load_graph(path)
    dims = model.graph.input[0].type.tensor_type.shape.dim
    rows = 1 if layout_of(model) == "NHWC" else 2
    if all(dim.HasField("dim_value") for dim in dims[rows : rows + 2]):
        return ((dims[rows].dim_value, dims[rows + 1].dim_value),)
    fitted = []
    for height, width in PRIMES:
        times = 1 if sizes.multiple == 1 else sizes.multiple
        fitted.append((sizes.fit(times * -(-height // times)), sizes.fit(times * -(-width // times))))
    return tuple(dict.fromkeys(fitted))


def _reach_at(model: onnx.ModelProto, size: Size) -> Tuple[Reach, bool]:
    """The reach at one size, and whether it is too small to tell."""
    rows_at = 1 if layout_of(model) == "NHWC" else 2
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    constants = constants_of(model)
    shapes: Dict[str, Tuple[int, ...]] = {name: value.shape for name, value in constants.items()}
    for value in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output):
        dims = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in value.type.tensor_type.shape.dim]
        if -1 not in dims:
            shapes[value.name] = tuple(dims)
    axes: List[Interpretation] = []
    for axis in (0, 1):
        state = Interpretation(size[axis], axis, shapes, constants, list(model.opset_import))
        lr = model.graph.input[0].name
        state.known[lr] = picture(shapes[lr], rows_at, axis)
        for node in model.graph.node:
            state.run(node)
        axes.append(state)
    own = "resizes by a factor that depends on the size of the picture"
    findings = {**axes[0].findings, **axes[1].findings}
    findings.update({name: GlobalNode(name, "Resize", own) for name in _own_factor(axes)})
    if findings:
        return Reach(0, 1, tuple(findings.values())), False
    if any(state.grew for state in axes):
        return _too_far(min(size)), True
    sr = model.graph.output[0].name
    lines = [_line(state.known[sr], rows_at + axis) for axis, state in enumerate(axes)]
    return _measured(lines, size)


def _own_factor(axes: List[Interpretation]) -> List[str]:
    """The Resize nodes whose factors differ along both axes, so follow from the size."""
    first, second = axes[0].ratios, axes[1].ratios
    return [name for name, ratio in first.items() if second.get(name, Fraction(0)) != ratio]


def _line(depends: Depends, axis: int) -> Depends:
    """What each row (or column) of the result depends on."""
    joined = depends.joined(tuple(index for index in range(len(depends.shape)) if index != axis)).expanded((axis,))
    return Depends(np.ravel(joined.first), np.ravel(joined.last), (depends.shape[axis],))


def _measured(lines: List[Depends], size: Size) -> Tuple[Reach, bool]:
    """The reach, from what each row and each column of the result depends on."""
    halo = 0
    for line, length in zip(lines, size):
        scale = len(line.first) // length
        place = np.arange(len(line.first)) // scale
        halo = max(halo, int(np.max(place - line.first)), int(np.max(line.last - place)))
    grew = 3 * halo > min(size)
    multiple = next(
        (m for m in range(1, MOST_MULTIPLE + 1) if all(map(_repeats, lines, size, (halo,) * 2, (m,) * 2))), 0
    )
    return (Reach(halo, multiple) if multiple else _too_far(halo)), grew


def _too_far(pixels: int) -> Reach:
    """Of a network whose nodes are local, and which looks too far all the same, or not alike from place to place."""
    why = f"depends on more than {pixels} pixels around, or not alike from place to place"
    return Reach(0, 1, (GlobalNode("all", "graph", why),))


def _repeats(line: Depends, length: int, halo: int, multiple: int) -> bool:
    """Whether all that is not near a border looks the same ``multiple`` rows further on."""
    scale = len(line.first) // length
    inner = slice(scale * halo, len(line.first) - scale * halo)
    first, last = line.first[inner], line.last[inner]
    step = scale * multiple
    if len(first) < 2 * step:
        return False
    return bool(np.all(first[step:] - first[:-step] == multiple) and np.all(last[step:] - last[:-step] == multiple))
