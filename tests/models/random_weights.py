"""Random weights under published keys, and a fold of Conv3XC that shares nothing with the product's."""

from __future__ import annotations

from typing import Dict

import torch

Weights = Dict[str, torch.Tensor]


def random_tensors(network: torch.nn.Module, seed: int = 1, gain: float = 1.0) -> Weights:
    """A state dict of ``network``: weights that keep the size of signals but for ``gain``, biases far from zero."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for key, value in network.state_dict().items():
        fan_in = value[0].numel() if value.dim() > 1 else 0
        size = gain * fan_in**-0.5 if fan_in else 0.2
        tensors[key] = torch.randn(value.shape, generator=generator) * size
    return tensors


def renamed(tensors: Weights, names: Dict[str, str]) -> Weights:
    """The tensors under other keys: each beginning of a key that is in ``names`` is replaced."""
    found = {}
    for key, value in tensors.items():
        old = max((name for name in names if key.startswith(name)), key=len, default="")
        found[names.get(old, "") + key[len(old) :]] = value
    return found


def folded_conv3xc(tensors: Weights) -> Weights:
    """A training form with one 3x3 convolution ``eval_conv`` in place of each chain and skip, by their formula."""
    paths = [key[: -len(".sk.weight")] for key in tensors if key.endswith(".sk.weight")]
    branches = tuple(f"{path}.{part}." for path in paths for part in ("sk", "conv"))
    folded = {key: value for key, value in tensors.items() if not key.startswith(branches)}
    for path in paths:
        w = {part: tensors[f"{path}.{part}.weight"].double() for part in ("conv.0", "conv.1", "conv.2", "sk")}
        b = {part: tensors[f"{path}.{part}.bias"].double() for part in w}
        last = w["conv.2"][:, :, 0, 0]
        weight = torch.einsum("om,mnhw,ni->oihw", last, w["conv.1"], w["conv.0"][:, :, 0, 0])
        weight[:, :, 1, 1] += w["sk"][:, :, 0, 0]
        bias = last @ (w["conv.1"].sum((2, 3)) @ b["conv.0"] + b["conv.1"]) + b["conv.2"] + b["sk"]
        folded[f"{path}.eval_conv.weight"], folded[f"{path}.eval_conv.bias"] = weight.float(), bias.float()
    return folded
