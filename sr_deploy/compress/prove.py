"""The proof of the groups: a graph without channels gives what the whole one gives when nothing reads them."""

from __future__ import annotations

from typing import Callable, Dict, FrozenSet, List, Sequence

import numpy as np
import torch
from onnx import checker
from torch import Tensor

from sr_deploy.compress.groups import Group, Network, narrowed, without, zeroed
from sr_deploy.core.errors import SrDeployError
from sr_deploy.core.tolerance import SLICED_FLOAT32_RELATIVE, SLICED_FLOAT64_RELATIVE
from sr_deploy.precision.interpreter import GraphModule

#: Share of a group's channels that are taken away for the proof.
_TAKEN = 3


def proved(
    network: Network, pictures: Sequence[Tensor], seed: int, say: Callable[[str], None] = lambda _: None
) -> Network:
    """The network with the groups that are proved.

    A third of the channels of all groups goes at once. Where that is not equal, each group is tried alone, and those
    that fail stay whole: what the rules say of an operator is believed only where the graph confirms it.

    Args:
        network: as the rules found it.
        pictures: (1, 3, H, W) each, noise and photographs, odd and even sizes.
        seed: of the channels.
        say: told which groups failed, and why.
    """
    rng = np.random.default_rng(seed)
    taken: Dict[str, FrozenSet[int]] = {
        group.name: frozenset(int(one) for one in rng.permutation(group.classes)[: max(1, group.width // _TAKEN)])
        for group in network.groups
    }
    if not failure(network, frozenset().union(*taken.values()), pictures):
        return network
    wrong: List[Group] = []
    for group in network.groups:
        why = failure(network, taken[group.name], pictures)
        if why:
            say(f"{group.name}: its {group.width} channels stay, {why}")
            wrong.append(group)
    rest = without(network, frozenset(group.name for group in wrong))
    gone = frozenset().union(*(taken[group.name] for group in rest.groups))
    why = failure(rest, gone, pictures)
    if why:
        say(f"no channels may go: all groups together, {why}")
        return without(rest, frozenset(group.name for group in rest.groups))
    return rest


def failure(network: Network, gone: FrozenSet[int], pictures: Sequence[Tensor]) -> str:
    """Why a graph without these channels is not the whole one whose weights do not read them; "" where it is."""
    if not gone:
        return ""
    try:
        return _difference(network, gone, pictures, torch.float64)
    except _OneType:
        return _difference(network, gone, pictures, torch.float32)


class _OneType(Exception):
    """The graph computes in no type but its own."""


def _difference(network: Network, gone: FrozenSet[int], pictures: Sequence[Tensor], dtype: torch.dtype) -> str:
    tolerance = SLICED_FLOAT64_RELATIVE if dtype == torch.float64 else SLICED_FLOAT32_RELATIVE
    whole = GraphModule(network.model, weights=zeroed(network, gone)).to(dtype)
    last = _unlimited(whole)
    with torch.no_grad():
        try:
            expected = [whole.tensors(picture.to(dtype), (last,))[last] for picture in pictures]
        except (SrDeployError, RuntimeError):
            if dtype == torch.float32:
                raise
            raise _OneType from None
        try:
            narrow = GraphModule(narrowed(network, gone)).to(dtype)
            given = [narrow.tensors(picture.to(dtype), (last,))[last] for picture in pictures]
        except (SrDeployError, RuntimeError, ValueError, IndexError, checker.ValidationError) as error:
            return f"without some the graph does not run: {str(error).splitlines()[0][:200]}"
    for one, other in zip(given, expected):
        if one.shape != other.shape:
            return f"without some the output is {tuple(one.shape)}, not {tuple(other.shape)}"
        worst = float((one - other).abs().max()) / max(float(other.abs().max()), 1e-30)
        if not worst <= tolerance:
            return f"without some the output differs by {worst:.1e} of its largest value"
    return ""


def _unlimited(module: GraphModule) -> str:
    """The tensor before the limits at a graph's end, which would hide differences."""
    made = {name: step.node for step in module.steps for name in step.node.output}
    name = module.output
    while made[name].op_type in ("Clip", "Identity") and made[name].input[0] in made:
        name = made[name].input[0]
    return name
