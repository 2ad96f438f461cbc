"""An ONNX file as a network: what a checkpoint's LoadedModel is, found by running it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import onnx

from sr_deploy.core.contract import Size, SizeRules, format_size
from sr_deploy.core.errors import BadInput, UsageError
from sr_deploy.core.names import check_name
from sr_deploy.core.text import plain
from sr_deploy.graph.census import parameters_of
from sr_deploy.graph.given.ends import Axes, End, Order, input_ends, output_value, with_ends
from sr_deploy.graph.given.explore import Explored, Unrunnable, explore_apart, runner_of
from sr_deploy.graph.given.float32 import in_float32, other_floats
from sr_deploy.graph.given.free import LARGER, beyond, is_sizeless, why_not_the_same
from sr_deploy.graph.given.operators import check_given_operators, without_functions
from sr_deploy.graph.given.read import GivenFile, onnx_from_file
from sr_deploy.graph.given.tidy import tidy
from sr_deploy.graph.given.unfreeze import with_computed_shapes
from sr_deploy.models.resemblance import range_told

#: What ``--colours`` may be.
ORDERS: Tuple[Order, ...] = ("rgb", "bgr")


@dataclass(frozen=True)
class AskedOfGraph:
    """What the user says of a graph.

    Attributes:
        scale: output size over input size; None: found.
        value_range: the value of white, 1.0 or 255.0; None: found where a smooth picture tells.
        colours: "rgb" or "bgr", the order of its channels, which nothing in a graph tells; None: rgb.
    """

    scale: Optional[int] = None
    value_range: Optional[float] = None
    colours: Optional[str] = None


@dataclass(frozen=True)
class GivenNetwork:
    """A graph that was given, in one form.

    Attributes:
        file: as it was found.
        model: float32 (1, 3, H, W) RGB "lr" to (1, 3, scale·H, scale·W) "sr" in ``0…value_range``, in its own operator
            set; every node has a name of its own. The output may leave the range.
        scale: output size over input size.
        value_range: the value of white at both ends.
        sizes: the inputs it takes.
        fixed: the only input (height, width) it takes; None: any.
        parameters: number of weights.
        facts: what is kept of it in the manifest: names, layout, operator set.
        notes: what the user should know.
    """

    file: GivenFile
    model: onnx.ModelProto
    scale: int
    value_range: float
    sizes: SizeRules
    fixed: Optional[Size]
    parameters: int
    facts: Dict[str, Any]
    notes: Tuple[str, ...]


def network_from_onnx(path: Path, asked: AskedOfGraph) -> GivenNetwork:
    """Read an ONNX file and find out, by running it, how it is to be used.

    Raises:
        BadInput: see read.py, operators.py and ends.py; or it does not run, or enlarges no picture.
        UsageError: no value range was given and a picture does not tell it; a scale, range or order that cannot be.
    """
    order = _order(asked)
    given = onnx_from_file(path)
    check_given_operators(given)
    model = without_functions(given)
    check_given_operators(dataclasses.replace(given, model=model))
    ends = input_ends(given, model)
    floats = other_floats(model)
    model = in_float32(model) if floats else model
    fixed, notes = _fixed(given, ends[0]), []
    found = _found(given, model, ends, order, fixed)
    if fixed is not None:
        found, fixed, said = _freed(found, model, order, fixed)
        notes.append(said)
    normal, explored = found.model, found.explored
    _check_scale(asked, explored, path)
    white, why = range_told(explored.evidence, asked.value_range, plain(path.name))
    notes.insert(0, f"{plain(path.name)}: x{explored.scale}, {found.lr} to {found.sr}; {why}")
    if asked.colours is None:
        notes.append("its channels are taken as RGB, which nothing in a graph tells; --colours bgr if they are not")
    if floats:
        notes.append(f"its {', '.join(floats)} became float32; --precision fp16 makes float16 of it again, proved")
    producer = plain(f"{given.model.producer_name} {given.model.producer_version}".strip(), 100)
    facts = {
        "opset": given.opset,
        "producer": producer,
        "input": str(found.lr),
        "output": str(found.sr),
        "channels": order,
    }
    return GivenNetwork(given, tidy(normal), explored.scale, white, explored.sizes, fixed, parameters_of(normal), facts,
                        tuple(notes))  # fmt: skip


def _order(asked: AskedOfGraph) -> Order:
    return ORDERS[0] if asked.colours is None else check_name("--colours", asked.colours, ORDERS)


def _fixed(given: GivenFile, lr: End) -> Optional[Size]:
    height, width = lr.size
    if height is None and width is None:
        return None
    if height is None or width is None:
        raise BadInput(
            f"{plain(str(given.path))} fixes one edge of its input {lr} and leaves the other free",
            "both free, or both fixed",
            "export it with dynamic axes for height and width",
        )
    return height, width


@dataclass(frozen=True)
class _Found:
    """The graph in its one form, its two ends, and what running it told."""

    model: onnx.ModelProto
    lr: End
    sr: End
    explored: Explored


def _found(
    given: GivenFile, model: onnx.ModelProto, ends: Tuple[End, ...], order: Order, fixed: Optional[Size]
) -> _Found:
    """Run the graph with the layouts that it leaves open, the likelier first."""
    problems: List[str] = []
    for lr in ends:
        for axes in _axes_to_try(output_value(given, model), lr):
            sr = End(model.graph.output[0].name, axes, lr.batch, lr.batch_size, (None, None))
            normal = with_ends(model, lr, sr, order, fixed)
            try:
                too = None if fixed is not None or is_sizeless(model) else LARGER
                return _Found(normal, lr, sr, explore_apart(normal, fixed, too))
            except Unrunnable as error:
                problems.append(plain(str(error), 600))
                if error.whatever:
                    raise _unusable(given, fixed, problems) from error
    raise _unusable(given, fixed, problems)


def _freed(found: _Found, model: onnx.ModelProto, order: Order, size: Size) -> Tuple[_Found, Optional[Size], str]:
    """(the network for any size and None, or as it was and its size; what to say of it)."""
    whole = with_ends(model, found.lr, found.sr, order, None)
    why = ""
    for freed, changed in ((whole, False), (with_computed_shapes(whole, found.model), True)):
        try:
            explored = explore_apart(freed, too=beyond(size))
        except Unrunnable as error:
            why = f"at other sizes {plain(str(error), 300)}"
            continue
        if explored.scale != found.explored.scale:
            continue
        why = why_not_the_same(runner_of(found.model), runner_of(freed), size, explored.scale, explored.sizes) or ""
        if not why or (not changed and is_sizeless(freed)):
            how = "proved against it at four sizes" if not why else "nothing in it can hold a size"
            said = f"it was fixed to {format_size(size)} and is free now: {how}"
            return _Found(freed, found.lr, found.sr, explored), None, said
    return found, size, f"it stays fixed to {format_size(size)}: {why or 'it enlarges other sizes by another factor'}"


def _unusable(given: GivenFile, fixed: Optional[Size], problems: List[str]) -> BadInput:
    at = f" at its {format_size(fixed)}" if fixed else ""
    return BadInput(
        f"{plain(str(given.path))} cannot be used{at}: {problems[0]}",
        "a graph that gives (N, 3, scale·H, scale·W) for (N, 3, H, W), or both with the channels last",
        "see whether ONNX Runtime runs it; export it again with dynamic axes for height and width",
    )


def _axes_to_try(value: onnx.ValueInfoProto, lr: End) -> Tuple[Axes, ...]:
    """The layouts that the output may have, the likelier first: what the graph says, or that of the input."""
    dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    inner = dims[-3:]
    if len(inner) == 3 and inner[0] == 3 and inner[2] != 3:
        return ("NCHW",)
    if len(inner) == 3 and inner[2] == 3 and inner[0] != 3:
        return ("NHWC",)
    return ("NCHW", "NHWC") if lr.axes == "NCHW" else ("NHWC", "NCHW")


def _check_scale(asked: AskedOfGraph, explored: Explored, path: Path) -> None:
    if asked.scale not in (None, explored.scale):
        raise UsageError(
            f"--scale {asked.scale} was given, but {plain(path.name)} enlarges {explored.scale} times",
            f"--scale {explored.scale}, or none",
        )
