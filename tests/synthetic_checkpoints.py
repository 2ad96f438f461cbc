"""State dicts under the published keys with non-trivial random weights: forms of which no checkpoint is at hand.

Every bias is non-zero (a wrong border shows), no branch vanishes, and the sizes keep the activations of order one.
"""

from __future__ import annotations

from typing import Dict, List, Optional

import torch

Weights = Dict[str, torch.Tensor]

SOBEL_X = [[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]]
SOBEL_Y = [[1.0, 2.0, 1.0], [0.0, 0.0, 0.0], [-1.0, -2.0, -1.0]]
LAPLACIAN = [[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]]

#: Which of SPAN's convolutions DSCLoRA puts branches on as published: all but the first and the 1x1.
LOW_RANK = [f"block_{b}.c{c}_r.eval_conv" for b in range(1, 7) for c in (1, 2, 3)] + ["conv_2.eval_conv", "upsampler.0"]


class _Maker:
    """Collects named random weights."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.weights: Weights = {}

    def normal(self, *shape: int, size: float = 1.0) -> torch.Tensor:
        return torch.randn(*shape, generator=self.generator) * size

    def conv(
        self, path: str, c_in: int, c_out: int, kernel: int, gain: float = 0.7, groups: int = 1, bias: bool = True
    ) -> None:
        fan_in = c_in // groups * kernel * kernel
        self.weights[f"{path}.weight"] = self.normal(c_out, c_in // groups, kernel, kernel, size=gain * fan_in**-0.5)
        if bias:
            self.weights[f"{path}.bias"] = self.normal(c_out, size=0.1)

    def prelu(self, path: str, width: int) -> None:
        self.weights[f"{path}.weight"] = 0.25 + self.normal(width, size=0.1)


def efdn_training(width: int, scale: int, seed: int) -> Weights:
    """EFDN with all seven branches in every EDBB; ``width`` a multiple of 4."""
    make = _Maker(seed)
    make.conv("head", 3, width, 3)
    for cell in (f"cells.{i}" for i in range(4)):
        make.conv(f"{cell}.conv1.conv1x1", width, width, 1)
        make.prelu(f"{cell}.conv1.act", width)
        for block in (f"{cell}.conv2", f"{cell}.conv3"):
            _edge_block(make, block, width)
        for i in range(4):
            make.conv(f"{cell}.branch.{i}", width, width // 2, 1)
        make.conv(f"{cell}.fuse", 2 * width, width, 1)
        reduced = width // 4
        make.conv(f"{cell}.att.conv1", width, reduced, 1)
        make.conv(f"{cell}.att.conv_f", reduced, reduced, 1)
        for name in ("conv_max", "conv2", "conv3", "conv3_"):
            make.conv(f"{cell}.att.{name}", reduced, reduced, 3)
        make.conv(f"{cell}.att.conv4", reduced, width, 1)
    for i in range(3):
        make.conv(f"local_fuse.{i}", 2 * width, width, 1)
    make.conv("tail.0", width, 3 * scale**2, 3, gain=0.2)
    make.weights["tail.0.bias"] += 0.5
    return make.weights


def _edge_block(make: _Maker, path: str, width: int) -> None:
    make.conv(f"{path}.rep_conv", width, width, 3, gain=0.4)
    make.conv(f"{path}.conv1x1", width, width, 1, gain=0.3)
    chain, middle = f"{path}.conv1x1_3x3", 2 * width
    make.weights[f"{chain}.k0"] = make.normal(middle, width, 1, 1, size=width**-0.5)
    make.weights[f"{chain}.b0"] = make.normal(middle, size=0.3)
    make.weights[f"{chain}.k1"] = make.normal(width, middle, 3, 3, size=0.3 * (9 * middle) ** -0.5)
    make.weights[f"{chain}.b1"] = make.normal(width, size=0.1)
    for name, mask in (("sbx", SOBEL_X), ("sby", SOBEL_Y), ("lpl", LAPLACIAN)):
        edge = f"{path}.conv1x1_{name}"
        make.weights[f"{edge}.k0"] = make.normal(width, width, 1, 1, size=width**-0.5)
        make.weights[f"{edge}.b0"] = make.normal(width, size=0.3)
        make.weights[f"{edge}.scale"] = make.normal(width, 1, 1, 1, size=0.1)
        make.weights[f"{edge}.bias"] = make.normal(width, size=0.1)
        make.weights[f"{edge}.mask"] = torch.tensor(mask).expand(width, 1, 3, 3).clone()
    make.prelu(f"{path}.act", width)


def _span(make: _Maker, width: int, scale: int, training: bool) -> Weights:
    # The first layer brings 0…255 down to order one; the gains and biases of the others keep every block's output
    # there, although SiLU halves it and the attention multiplies two signals.
    blocks = [f"block_{b}.c{c}_r" for b in range(1, 7) for c in (1, 2, 3)]
    gains = {"conv_1": 0.04, "conv_2": 0.7, **dict.fromkeys(blocks, 1.2)}
    for path, gain in gains.items():
        c_in = 3 if path == "conv_1" else width
        if training:
            make.conv(f"{path}.sk", c_in, width, 1, gain=0.5 * gain)
            make.conv(f"{path}.conv.0", c_in, 2 * c_in, 1, gain=gain)
            make.conv(f"{path}.conv.1", 2 * c_in, 2 * width, 3, gain=1.0)
            make.conv(f"{path}.conv.2", 2 * width, width, 1, gain=1.0)
        make.conv(f"{path}.eval_conv", c_in, width, 3, gain=gain)
        if path.endswith("c3_r"):
            make.weights[f"{path}.{'sk' if training else 'eval_conv'}.bias"] += make.normal(width, size=2.0)
    make.conv("conv_cat", 4 * width, width, 1)
    make.conv("upsampler.0", width, 3 * scale**2, 3, gain=0.3)
    return make.weights


def span_training(width: int, scale: int, seed: int) -> Weights:
    """SPAN with its Conv3XC branches (gain 2); every stored ``eval_conv`` is stale, unrelated to the branches."""
    return _span(_Maker(seed), width, scale, training=True)


def span_folded(width: int, scale: int, seed: int) -> Weights:
    """SPAN with one convolution per Conv3XC."""
    return _span(_Maker(seed), width, scale, training=False)


def dsclora(width: int, scale: int, rank: int, seed: int) -> Weights:
    """Folded SPAN with non-zero low-rank branches where published; those on conv_2 and upsampler.0 have 4·rank."""
    make = _Maker(seed)
    _span(make, width, scale, training=False)
    for path in LOW_RANK:
        own = rank if path.startswith("block") else 4 * rank
        c_out, c_in, kernel, _ = make.weights[f"{path}.weight"].shape
        make.weights[f"{path}.lora_A"] = make.normal(own * kernel, c_in * kernel, size=(c_in * kernel) ** -0.5)
        make.weights[f"{path}.lora_B"] = make.normal(c_out * kernel, own * kernel, size=0.1 * (own * kernel) ** -0.5)
    return make.weights


def _separable(make: _Maker, path: str, c_in: int, c_out: int, kernel: int = 3, bias: bool = True) -> None:
    make.conv(f"{path}.0", c_in, c_in, kernel, groups=c_in, bias=bias, gain=1.0)
    make.conv(f"{path}.1", c_in, c_out, 1)


def f2srgan(width: int, stages: int, blocks: int, seed: int, middles: Optional[List[int]] = None) -> Weights:
    """F2SRGAN with FFC in the even blocks; with ``middles``, the inner widths of its live blocks, the student.

    Args:
        width: channels of the body, a multiple of 16.
        stages: x2 upsampling stages.
        blocks: residual blocks; of the student, per group, with as many dead ones in residual3 and residual4.
        seed: of the random weights.
        middles: None for the full network.
    """
    make = _Maker(seed)
    _separable(make, "initial.0", 3, width)
    make.weights["initial.0.0.weight"] *= 0.02
    groups = ["residual"] if middles is None else ["residual1", "residual2", "residual3", "residual4"]
    for g, group in enumerate(groups):
        for i in range(blocks):
            path = f"{group}.{i}"
            live = middles is not None and g < 2
            middle = middles[g * blocks + i] if live else width
            if middles is None and i % 2 == 0:
                _fourier_conv(make, f"{path}.block1.0", width)
            else:
                _separable(make, f"{path}.block1.0", width, middle)
            make.prelu(f"{path}.block1.1", middle)
            _separable(make, f"{path}.block2.0", middle, width)
    for i in range(stages):
        _separable(make, f"upsampler.{3 * i}", width, 4 * width)
        make.prelu(f"upsampler.{3 * i + 2}", width)
    _separable(make, "final_conv", width, 3)
    mean = 255 * torch.tensor([0.4488, 0.4371, 0.4040])
    for name, sign in (("sub_mean", -1), ("add_mean", 1)):
        make.weights[f"{name}.weight"] = torch.eye(3).view(3, 3, 1, 1)
        make.weights[f"{name}.bias"] = sign * mean
    return make.weights


def _fourier_conv(make: _Maker, path: str, width: int) -> None:
    half, quarter = width // 2, width // 4
    kernel = (quarter, quarter, 1, 1, 2)
    for name in ("convl2l", "convl2g", "convg2l"):
        _separable(make, f"{path}.{name}", half, half)
    _separable(make, f"{path}.convg2g.conv1.0", half, quarter, kernel=1, bias=False)
    for name in ("fu", "lfu"):
        make.weights[f"{path}.convg2g.{name}.complex_weight"] = make.normal(*kernel, size=quarter**-0.5)
    _separable(make, f"{path}.convg2g.conv2", quarter, half, kernel=1, bias=False)
