"""What stays wider than was asked for, and why: the default types of a plan, before any measurement.

Fourier units stay float32 (the exporter marks them), and so do LayerNorm and attention. Global skips are never stored
in 8 bits. Of the convolutions that could run in INT8, these do not by default: the first one, which reads the picture;
the last one, which writes the pixels, as long as it holds few of the multiply-accumulates and enough others run in
INT8; depthwise ones, for which TensorRT's INT8 kernels bring nothing (NVIDIA/TensorRT#1409, #4529); and ones too small
to pay for the reformats around them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Dict, List, Mapping, Set, Tuple

import onnx

from sr_deploy.graph.rewrite.editor import is_pinned
from sr_deploy.precision.choose.float32_patterns import float32_recipes, global_skips
from sr_deploy.precision.tensors import CHANNEL_AXIS, floating_nodes

#: The last convolution stays wide while it holds at most this share of the multiply-accumulates.
TAIL_SHARE = 0.10
#: … and only while all that stays wide holds at most this share: beyond it INT8 would not be worth its name.
WIDE_SHARE = 0.15
#: Small convolutions stay wide, smallest first, as long as they hold at most this share together.
SMALL_SHARE = 0.03
#: INT8 kernels take channels in packs of 4 at least; fewer are padded.
FEW_CHANNELS = 4
#: What fuses behind a convolution or an Add.
_ACTIVATIONS = ("Relu", "PRelu", "LeakyRelu", "Clip")


@dataclass(frozen=True)
class Kinds:
    """The nodes of a graph sorted by what INT8 means for them.

    Attributes:
        computing: every node that computes with the picture's values, in graph order.
        pinned: node → why it stays float32 whatever is asked.
        candidates: node → multiply-accumulates, of the convolutions that can run in INT8.
        wide: candidate → why it does not run in INT8 by default.
        fusing_adds: Add → the tensor it reads besides the result of a convolution that nothing else reads, of the Adds
            whose own result an INT8 convolution reads: quantising that skip lets the whole chain fuse.
        macs: multiply-accumulates of the whole graph outside ``pinned``.
    """

    computing: Tuple[str, ...]
    pinned: Dict[str, str]
    candidates: Dict[str, int]
    wide: Dict[str, str]
    fusing_adds: Dict[str, str]
    macs: int


def kinds_of(model: onnx.ModelProto, macs: Mapping[str, int]) -> Kinds:
    """Sort the nodes of a float32 graph.

    Args:
        model: with the exporter's pins in the doc_strings.
        macs: node → multiply-accumulates at some input size, from ``graph/census.work_by_node``.
    """
    computing = set(floating_nodes(model))
    nodes = [node for node in model.graph.node if node.name in computing]
    constants = {t.name: tuple(t.dims) for t in model.graph.initializer}
    pinned = {node.name: _pin_reason(node) for node in nodes if is_pinned(node)}
    pinned = {**{name: why for name, why in float32_recipes(model).items() if name in computing}, **pinned}
    total = sum(count for name, count in macs.items() if name not in pinned)
    candidates = {
        node.name: macs.get(node.name, 0)
        for node in nodes
        if node.op_type in CHANNEL_AXIS and node.name not in pinned and node.input[1] in constants
    }
    skips = global_skips(model)
    wide = _wide(nodes, constants, candidates, total)
    return Kinds(
        computing=tuple(node.name for node in nodes),
        pinned=pinned,
        candidates=candidates,
        wide=wide,
        fusing_adds={
            name: skip
            for name, skip in _fusing_adds(nodes, constants, set(candidates), set(candidates) - set(wide)).items()
            if name not in skips
        },
        macs=total,
    )


def _pin_reason(node: onnx.NodeProto) -> str:
    found = re.search(r"\((.*)\)", node.doc_string)
    return found.group(1) if found else "pinned by the exporter"


def _wide(
    nodes: List[onnx.NodeProto], constants: Mapping[str, Tuple[int, ...]], candidates: Mapping[str, int], total: int
) -> Dict[str, str]:
    """Candidate → why it stays wide by default."""
    convolutions = [node for node in nodes if node.name in candidates]
    found: Dict[str, str] = {}
    for node in convolutions:
        shape = constants[node.input[1]]
        group = next((a.i for a in node.attribute if a.name == "group"), 1)
        if group > 1:
            found[node.name] = "depthwise or grouped: INT8 kernels bring nothing (NVIDIA/TensorRT#1409, #4529)"
        elif shape[1 - CHANNEL_AXIS[node.op_type]] <= FEW_CHANNELS:
            read = shape[1 - CHANNEL_AXIS[node.op_type]]
            found[node.name] = (
                "head: it reads the picture" if read == 3 else f"reads {read} channels, which INT8 kernels pad"
            )
    tail = ""
    if convolutions:
        last = convolutions[-1].name
        share = candidates[last] / max(total, 1)
        if share <= TAIL_SHARE:
            tail = last
            found[last] = f"tail: it writes the pixels, with {share:.1%} of the multiply-accumulates"
    spent = 0
    for name in sorted((n for n in candidates if n not in found), key=lambda n: candidates[n]):
        spent += candidates[name]
        if spent > SMALL_SHARE * total:
            break
        found[name] = f"small: {candidates[name] / total:.2%} of the multiply-accumulates do not pay for the reformats"
    if tail and sum(candidates[name] for name in found) > WIDE_SHARE * total:
        del found[tail]
    return found


def _fusing_adds(
    nodes: List[onnx.NodeProto], constants: Mapping[str, Tuple[int, ...]], candidates: Set[str], narrow: Set[str]
) -> Dict[str, str]:
    """Adds between a convolution that nothing else reads and an INT8 one, and the other tensor that they read.

    Where the sum is not stored in 8 bits there is nothing to fuse, and a quantised skip would only cost quality: EFDN
    loses 0.12 dB on Set5 without and 0.19 dB with quantised skips of that kind (MSE ranges, nothing else done).
    """
    maker = {name: node for node in nodes for name in node.output}
    readers: Dict[str, int] = {}
    stored = {node.input[0] for node in nodes if node.name in narrow}
    for node in nodes:
        if node.op_type in _ACTIVATIONS and node.output[0] in stored:
            stored.add(node.input[0])
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    found: Dict[str, str] = {}
    for node in nodes:
        if node.op_type != "Add" or node.output[0] not in stored or any(name in constants for name in node.input):
            continue
        for mine, other in ((node.input[0], node.input[1]), (node.input[1], node.input[0])):
            made = maker.get(mine)
            if made is not None and made.name in candidates and readers[mine] == 1 and other in maker:
                found[node.name] = other
                break
    return found
