"""What a graph costs when its groups have other widths, without building it: counts that are sums over groups."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Callable, Dict, List, Mapping, Optional, Tuple

import numpy as np
import onnx

from sr_deploy.compress.coupling import Track
from sr_deploy.compress.groups import Network
from sr_deploy.core.contract import round_up
from sr_deploy.core.host.gpu_rates import GpuRates

#: Operators whose work is products; all others only move.
_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
#: Operators that runtimes do while they write what comes before.
_FUSED = ("Relu", "LeakyRelu", "PRelu", "Clip", "Sigmoid", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten")


@dataclass(frozen=True)
class Channels:
    """How many channels there are along an axis: ``fixed`` and, of each group, so many for each of its channels."""

    fixed: int
    of_groups: Tuple[Tuple[str, int], ...]

    def at(self, widths: Mapping[str, int]) -> int:
        """With these widths."""
        return self.fixed + sum(each * widths[name] for name, each in self.of_groups)


@dataclass(frozen=True)
class Work:
    """What one node does.

    Attributes:
        node: its name.
        operator: of it.
        products: multiply-accumulates for one pair of an input and an output channel; 0 for those that only move.
        inner: channels that an output channel is a sum over; one for those that meet only themselves.
        read, made: channels of its first input and of its output.
        alone: whether every channel meets itself only.
        places_read, places_made: values of one channel of all inputs together, and of the output.
    """

    node: str
    operator: str
    products: int
    inner: Channels
    read: Channels
    made: Channels
    alone: bool
    places_read: int
    places_made: int

    def macs(self, widths: Mapping[str, int], multiple: int = 1) -> int:
        """Multiply-accumulates, with channels rounded up as a kernel does."""
        inner = 1 if self.alone else round_up(self.inner.at(widths), multiple)
        return self.products * round_up(self.made.at(widths), multiple) * inner

    def values(self, widths: Mapping[str, int], multiple: int = 1) -> int:
        """Values that are read and written."""
        read = round_up(self.read.at(widths), multiple) * self.places_read
        return read + round_up(self.made.at(widths), multiple) * self.places_made


@dataclass(frozen=True)
class Costs:
    """All nodes of a network at one input size, and the shapes of its constants.

    Attributes:
        works: of the nodes that follow the picture.
        constants: of each floating constant, the channels along each axis.
        pixels: of the input.
    """

    works: Tuple[Work, ...]
    constants: Tuple[Tuple[Channels, ...], ...]
    pixels: int

    def macs(self, widths: Mapping[str, int]) -> float:
        """Multiply-accumulates for a low-resolution pixel, of convolutions and matrix products."""
        return sum(work.macs(widths) for work in self.works) / self.pixels

    def parameters(self, widths: Mapping[str, int]) -> int:
        """Floating-point values of constants of more than one."""
        counts = [math.prod(axis.at(widths) for axis in axes) for axes in self.constants]
        return sum(count for count in counts if count > 1)


#: Multiply-accumulates and bytes a second of one core, about; they only have to be right to each other, as what comes
#: out is timed.
CPU_MACS, CPU_BYTES = 40e9, 8e9
#: Channels that kernels take at once: MLAS, of ONNX Runtime, lays them out in blocks of 8 or 16, tensor cores in 8.
BLOCK = 8


def macs_of(work: Work, widths: Mapping[str, int]) -> float:
    """Multiply-accumulates of one node."""
    return float(work.macs(widths))


def cpu_seconds(work: Work, widths: Mapping[str, int]) -> float:
    """Of one node on one core, about: channels in blocks, and the slower of products and memory."""
    rate = CPU_MACS / 4 if work.alone else CPU_MACS
    moved = 0.0 if work.operator in _FUSED else 4.0 * work.values(widths, BLOCK) / CPU_BYTES
    return max(work.macs(widths, BLOCK) / rate, moved)


def gpu_seconds(gpu: GpuRates, larger: float = 1.0) -> Callable[[Work, Mapping[str, int]], float]:
    """Of one node on a GPU in float16: tensor cores take channels in blocks, and every kernel has a launch.

    Args:
        gpu: its rates.
        larger: pixels of the picture that the time is of, over those that the works were counted at.
    """

    def seconds(work: Work, widths: Mapping[str, int]) -> float:
        if work.operator in _FUSED:
            return 0.0
        rate = gpu.tera_macs["float32"] if work.alone else gpu.tera_macs["float16"]
        moved = 2.0 * work.values(widths, BLOCK) / (gpu.bandwidth * 1e9)
        return larger * max(work.macs(widths, BLOCK) / (rate * 1e12), moved) + gpu.launch_us * 1e-6

    return seconds


class Spending:
    """A cost as the sum over nodes, quick to ask for one group more or less.

    Args:
        costs: the nodes.
        of_work: what one costs with these widths, in any unit; never more for narrower ones.
    """

    def __init__(self, costs: Costs, of_work: Callable[[Work, Mapping[str, int]], float]) -> None:
        self._works, self._of_work = costs.works, of_work
        self._touched: Dict[str, List[Work]] = {}
        for work in costs.works:
            for name in {name for channels in (work.inner, work.read, work.made) for name, _ in channels.of_groups}:
                self._touched.setdefault(name, []).append(work)

    def total(self, widths: Mapping[str, int]) -> float:
        """Of all nodes."""
        return sum(self._of_work(work, widths) for work in self._works)

    def saved(self, widths: Mapping[str, int], name: str, width: int) -> float:
        """How much less it is when a group has another width."""
        changed = {**widths, name: width}
        return sum(self._of_work(work, widths) - self._of_work(work, changed) for work in self._touched.get(name, ()))


def costs_of(network: Network, pixels: int) -> Costs:
    """Read the costs off a network's run.

    Args:
        network: with the shapes of its run.
        pixels: of the picture of that run.
    """
    named = _Named(network)
    shapes = network.coupling.shapes
    works = [
        _work(node, named, shapes) for node in network.model.graph.node if node.output[0] in network.coupling.tracks
    ]
    floating = [tensor for tensor in network.model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
    constants = tuple(tuple(named.axis(t.name, axis, length) for axis, length in enumerate(t.dims)) for t in floating)
    return Costs(tuple(works), constants, pixels)


class _Named:
    """Counts of classes as counts of groups."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.constants = {tensor.name for tensor in network.model.graph.initializer}
        self._group = {one: group for group in network.groups for one in group.classes}

    def of(self, classes: np.ndarray) -> Channels:
        """Of one class for each place."""
        counts: Dict[str, int] = {}
        fixed = 0
        for one in classes:
            group = self._group.get(int(one))
            if group is None:
                fixed += 1
            else:
                counts[group.name] = counts.get(group.name, 0) + 1
        widths = self._network.widths
        return Channels(fixed, tuple((name, count // widths[name]) for name, count in counts.items()))

    def axis(self, constant: str, axis: int, length: int) -> Channels:
        """Along an axis of a constant."""
        classes = self._network.axes.get((constant, axis))
        return Channels(length, ()) if classes is None else self.of(classes)

    def tensor(self, name: str, shape: Tuple[int, ...]) -> Tuple[Channels, int]:
        """(channels of a tensor, values of one channel)."""
        track: Optional[Track] = self._network.coupling.tracks.get(name)
        if track is None:
            count = shape[1] if len(shape) == 4 else 1
            return Channels(count, ()), math.prod(shape) // max(count, 1)
        known = self._network.coupling.labels.find(track.labels)
        return self.of(known), math.prod(shape) // max(len(known), 1)


def _work(node: onnx.NodeProto, named: _Named, shapes: Mapping[str, Tuple[int, ...]]) -> Work:
    made, places = named.tensor(node.output[0], shapes[node.output[0]])
    reads = [named.tensor(name, shapes[name]) for name in node.input if name in shapes and name not in named.constants]
    weight = shapes[node.input[1]] if node.op_type in _PRODUCTS else ()
    group = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    alone = group > 1 and group == shapes[node.input[0]][1]
    products, inner = _products(node, shapes, places, weight), Channels(1, ())
    if node.op_type == "MatMul" and node.input[1] not in named.constants:
        alone, products = True, places * shapes[node.input[0]][-1]
    elif weight and not alone:
        axis = _inner_axis(node)
        inner = named.axis(node.input[1], axis, weight[axis])
    return Work(
        node=node.name,
        operator=node.op_type,
        products=products,
        inner=inner,
        read=reads[0][0] if reads else made,
        made=made,
        alone=alone,
        places_read=sum(count for _, count in reads),
        places_made=places,
    )


def _inner_axis(node: onnx.NodeProto) -> int:
    """The axis of a weight that its node sums over."""
    if node.op_type == "Conv":
        return 1
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return 1 if transposed else 0


def _products(node: onnx.NodeProto, shapes: Mapping[str, Tuple[int, ...]], places: int, weight: Tuple[int, ...]) -> int:
    """Multiply-accumulates for one input and one output channel."""
    if node.op_type == "Conv":
        return places * math.prod(weight[2:])
    if node.op_type == "ConvTranspose":
        return math.prod(shapes[node.input[0]][2:]) * math.prod(weight[2:])
    return places if node.op_type in ("Gemm", "MatMul") else 0
