"""Run the network once and write down what each of its modules takes and gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, List, Set, Tuple

import torch
from torch.overrides import TorchFunctionMode

Shape = Tuple[int, ...]


@dataclass
class Seen:
    """What one module was seen to do in one run of the network; filled in while it runs.

    Attributes:
        calls: how often it ran.
        in_shape, out_shape: shapes of its first call's one input and one output, empty when it has another signature.
        objection: why it cannot be one convolution, "" when nothing speaks against it so far.
    """

    calls: int = 0
    in_shape: Shape = ()
    out_shape: Shape = ()
    objection: str = ""


@dataclass
class Observation:
    """One run of a network; filled in while it runs.

    Attributes:
        seen: by module path (``""`` is the network), one entry for every module that ran.
        used: ids of the parameters and buffers that any operation took.
        reached_into: ids of modules whose own weights, or a sub-module's, were taken by an operation outside of
            their forward pass, as ``F.conv2d(x, self.conv.weight)`` does without calling ``self.conv``.
    """

    seen: Dict[str, Seen] = field(default_factory=dict)
    used: Set[int] = field(default_factory=set)
    reached_into: Set[int] = field(default_factory=set)


class _WeightUse(TorchFunctionMode):
    """Notes for each operation which parameters and buffers it takes, and which modules are running then."""

    def __init__(self, network: torch.nn.Module, running: List[int], observation: Observation) -> None:
        super().__init__()
        self.running, self.observation = running, observation
        # For each weight, the modules that lie on each way from the network down to it; a shared one has several ways.
        self.ways: Dict[int, List[Set[int]]] = {}
        for path, module in network.named_modules(remove_duplicate=False):
            parts = path.split(".") if path else []
            way = {id(network.get_submodule(".".join(parts[:depth]))) for depth in range(len(parts) + 1)}
            for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                self.ways.setdefault(id(tensor), []).append(way)

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for value in _tensors((args, kwargs or {})):
            ways = self.ways.get(id(value))
            if ways:
                self.observation.used.add(id(value))
                # The way that is explained best by what is running is the one that was taken.
                self.observation.reached_into |= min((way.difference(self.running) for way in ways), key=len)
        return function(*args, **(kwargs or {}))


def _tensors(value: Any) -> List[torch.Tensor]:
    """The tensors in nested tuples, lists and dicts."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, (tuple, list)):
        return [tensor for item in value for tensor in _tensors(item)]
    if isinstance(value, dict):
        return [tensor for item in value.values() for tensor in _tensors(item)]
    return []


def observe(network: torch.nn.Module, x: torch.Tensor) -> Observation:
    """Run ``network`` once on ``x`` (N, C, H, W) and note each module's calls, shapes and use of weights.

    The network is given back without hooks. Whatever its forward pass raises is passed on.
    """
    observation, running, handles = Observation(), [], []

    def before(module: torch.nn.Module, args: Any, kwargs: Any) -> None:
        running.append(id(module))

    def after(path: str) -> Any:
        def hook(module: torch.nn.Module, args: Any, kwargs: Any, out: Any) -> None:
            running.pop()
            _note(observation.seen.setdefault(path, Seen()), args, kwargs, out)

        return hook

    for path, module in network.named_modules():
        # Before a module's own hooks, which belong to its forward pass (weight_norm computes the weight in one).
        handles.append(module.register_forward_pre_hook(before, prepend=True, with_kwargs=True))
        handles.append(module.register_forward_hook(after(path), with_kwargs=True))
    try:
        with torch.no_grad(), _WeightUse(network, running, observation):
            network(x)
    finally:
        for handle in handles:
            handle.remove()
    return observation


def _note(seen: Seen, args: Any, kwargs: Any, out: Any) -> None:
    """Add one call to ``seen``."""
    seen.calls += 1
    one_tensor = len(args) == 1 and not kwargs and isinstance(args[0], torch.Tensor)
    if not one_tensor:
        count = len(_tensors((args, kwargs)))
        others = "" if count == len(args) + len(kwargs) else " and other arguments"
        seen.objection = f"it takes {count} tensors{others}, not one tensor alone"
    elif args[0].dim() != 4:
        seen.objection = f"its input has {args[0].dim()} dimensions, not 4"
    elif not isinstance(out, torch.Tensor):
        seen.objection = f"it gives a {type(out).__name__}, not one tensor"
    elif out.dim() != 4:
        seen.objection = f"its output has {out.dim()} dimensions, not 4"
    elif not args[0].is_floating_point() or not out.is_floating_point():
        seen.objection = "its tensors are not real floating-point numbers"
    elif seen.calls == 1:
        seen.in_shape, seen.out_shape = tuple(args[0].shape), tuple(out.shape)
    elif seen.in_shape and (seen.in_shape[1], seen.out_shape[1]) != (args[0].shape[1], out.shape[1]):
        seen.objection = "its calls differ in their number of channels"
