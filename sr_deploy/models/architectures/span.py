"""SPAN (Wan et al. 2023, arXiv 2311.12770) and DSCLoRA, a SPAN fine-tuned with low-rank branches.

Facts from the authors' repositories hongyuanyu/SPAN and Yaozzz666/DSCF-SR. Takes RGB in 0…1, subtracts a fixed mean,
multiplies by 255, and gives 0…1 without adding the mean back.
"""

from __future__ import annotations

import re
from typing import Dict, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import nn

from sr_deploy.core.contract import SizeRules
from sr_deploy.core.errors import BadCheckpoint, UsageError
from sr_deploy.models.base import Architecture, Asked, LoadedModel, Tensors, Training
from sr_deploy.models.blocks.conv3xc import Conv3XC, notes_on_stale_folds, stored_form
from sr_deploy.models.loading import load_strictly
from sr_deploy.models.shapes import check_asked, shuffle_scale, width_of
from sr_deploy.models.start import pass_colours, repeat_colours, silence_colours

#: Subtracted from RGB before the range is widened; not stored in checkpoints.
RGB_MEAN = (0.4488, 0.4371, 0.4040)
BLOCKS = 6

_ALPHA = re.compile(r"(\d+(?:\.\d+)?)(r?)")


class LowRankConv(nn.Module):
    """A convolution with a low-rank branch: weight + (lora_B @ lora_A) viewed as the weight, times alpha / rank.

    Not a subclass of Conv2d, so that nothing takes it for one and forgets the branch.

    Args:
        conv: the convolution that it stands for.
        rank: of the branch; lora_A is (rank·k, C_in·k), lora_B is (C_out·k, rank·k) for a k x k kernel.
        alpha: the numerator of the branch's factor.
    """

    def __init__(self, conv: nn.Conv2d, rank: int, alpha: float) -> None:
        super().__init__()
        kernel = conv.kernel_size[0]
        self.weight = nn.Parameter(torch.zeros_like(conv.weight))
        self.bias = nn.Parameter(torch.zeros(conv.out_channels))
        self.lora_A = nn.Parameter(torch.zeros(rank * kernel, conv.in_channels * kernel))
        self.lora_B = nn.Parameter(torch.zeros(conv.out_channels * kernel, rank * kernel))
        self.factor = alpha / rank
        self.padding = conv.padding

    def merged_weight(self) -> torch.Tensor:
        """The weight with the branch added, (C_out, C_in, k, k)."""
        return self.weight + (self.lora_B @ self.lora_A).view(self.weight.shape) * self.factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the convolution with the branch added to its weight."""
        return F.conv2d(x, self.merged_weight(), self.bias, padding=self.padding)


def attention(feature: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """SPAN's attention without parameters: the feature decides by itself how much of (itself + input) passes."""
    return (feature + x) * (torch.sigmoid(feature) - 0.5)


class AttentionBlock(nn.Module):
    """SPAB: three convolutions and the attention."""

    def __init__(self, width: int, gain: Optional[int]) -> None:
        super().__init__()
        self.c1_r = Conv3XC(width, width, gain)
        self.c2_r = Conv3XC(width, width, gain)
        self.c3_r = Conv3XC(width, width, gain)

    def forward(self, x: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
        """(N, C, H, W) to the block's output and its first *activated* feature.

        The published SiLU works in place, so what it calls the first convolution's output has been activated.
        """
        first = F.silu(self.c1_r(x))
        third = self.c3_r(F.silu(self.c2_r(first)))
        return attention(third, x), first


class SPANNetwork(nn.Module):
    """The whole network: (N, 3, H, W) in 0…1 to (N, 3, scale·H, scale·W), which may leave that range.

    Args:
        width: channels of the body.
        scale: upscaling.
        gain: of the training form's chains, 2 as published; None: the folded form.
    """

    mean: torch.Tensor

    def __init__(self, width: int, scale: int, gain: Optional[int] = None) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(RGB_MEAN).view(1, 3, 1, 1), persistent=False)
        self.conv_1 = Conv3XC(3, width, gain)
        self.block_1 = AttentionBlock(width, gain)
        self.block_2 = AttentionBlock(width, gain)
        self.block_3 = AttentionBlock(width, gain)
        self.block_4 = AttentionBlock(width, gain)
        self.block_5 = AttentionBlock(width, gain)
        self.block_6 = AttentionBlock(width, gain)
        self.conv_cat = nn.Conv2d(4 * width, width, 1)
        self.conv_2 = Conv3XC(width, width, gain)
        self.upsampler = nn.Sequential(nn.Conv2d(width, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Upscale."""
        shallow = self.conv_1((x - self.mean) * 255.0)
        early, _ = self.block_1(shallow)
        deep = early
        for block in (self.block_2, self.block_3, self.block_4, self.block_5):
            deep, _ = block(deep)
        deep, late = self.block_6(deep)
        return self.upsampler(self.conv_cat(torch.cat([shallow, self.conv_2(deep), early, late], dim=1)))


def alpha_of(text: str, rank: int) -> float:
    """LoRA's alpha for one layer: ``"16"`` is 16 everywhere, ``"2r"`` twice the layer's rank.

    Raises:
        UsageError: neither form, or not greater than 0.
    """
    match = _ALPHA.fullmatch(text.strip())
    number = float(match.group(1)) if match else 0.0
    if match is None or number <= 0:
        raise UsageError(
            f"--lora-alpha {text!r} is no alpha",
            "a number greater than 0 for all layers, such as 16, or a multiple of each layer's rank, such as 2r",
            "the published DSCLoRA recipe is --lora-alpha 2r",
        )
    return number * rank if match.group(2) else number


def _convolutions(network: nn.Module) -> Dict[str, nn.Conv2d]:
    return {path: module for path, module in network.named_modules() if isinstance(module, nn.Conv2d)}


def _ranks(tensors: Tensors, network: SPANNetwork) -> Dict[str, int]:
    """Each low-rank branch's convolution in ``network`` → its rank. Raises BadCheckpoint when it fits none there."""
    convolutions = _convolutions(network)
    ranks: Dict[str, int] = {}
    for key in tensors:
        path, _, last = key.rpartition(".")
        if last not in ("lora_A", "lora_B"):
            continue
        if path not in convolutions:
            raise BadCheckpoint(
                f"{key} is a low-rank branch, but {path} is no convolution of this network's forward pass",
                "branches on used convolutions: eval_conv in the folded form, sk and conv.N in the training form",
                "save the checkpoint with one of the two forms only",
            )
        kernel = convolutions[path].kernel_size[0]
        rows = width_of(tensors, f"{path}.lora_A", "DSCLoRA")
        if rows == 0 or rows % kernel:
            raise BadCheckpoint(
                f"{path}.lora_A has {rows} rows, which is no multiple of the kernel size {kernel}",
                "rank·kernel rows",
                "check that the file comes from LoRA on convolutions as DSCLoRA publishes it",
            )
        ranks[path] = rows // kernel
    return ranks


def _with_branches(network: SPANNetwork, tensors: Tensors, alpha: Optional[str]) -> Dict[str, int]:
    """Put low-rank convolutions where the keys say so; gives their ranks. Raises UsageError when alpha is not known."""
    ranks = _ranks(tensors, network)
    convolutions = _convolutions(network)
    if ranks and alpha is None:
        found = ", ".join(str(rank) for rank in sorted(set(ranks.values())))
        raise UsageError(
            f"this checkpoint has LoRA branches of rank {found} on {len(ranks)} convolutions; alpha is not stored",
            "LoRA's alpha: a number for all layers, or a multiple of each layer's rank",
            "the published DSCLoRA recipe is alpha = 2·rank on every layer: --lora-alpha 2r",
        )
    for path, rank in ranks.items():
        parent, _, name = path.rpartition(".")
        setattr(network.get_submodule(parent), name, LowRankConv(convolutions[path], rank, alpha_of(str(alpha), rank)))
    return ranks


def _has_low_rank(tensors: Tensors) -> bool:
    return any(key.endswith(".lora_A") for key in tensors)


def _has_span_keys(tensors: Tensors) -> bool:
    """SPAN's own keys; files with ``no_norm`` are a variant without the mean that only spandrel knows."""
    return (
        all(key in tensors for key in ("conv_cat.weight", "upsampler.0.weight"))
        and any(f"block_{BLOCKS}.c3_r.{part}.weight" in tensors for part in ("eval_conv", "sk"))
        and "no_norm" not in tensors
    )


def _load(tensors: Tensors, asked: Asked, name: str) -> LoadedModel:
    """Build SPAN or DSCLoRA from a folded, training or low-rank checkpoint. Raises BadCheckpoint, UsageError."""
    width = width_of(tensors, "conv_cat.weight", name)
    scale = shuffle_scale(tensors, "upsampler.0.weight", name)
    low_rank = _has_low_rank(tensors)
    check_asked(asked, name, scale, uses=("lora_alpha",) if low_rank else ())
    form = stored_form(tensors, "conv_1", name)
    network = SPANNetwork(width, scale, form.gain)
    ranks = _with_branches(network, tensors, asked.lora_alpha)
    load_strictly(network, form.live, name)
    hyperparameters: Dict[str, object] = {"width": width, "blocks": BLOCKS}
    if form.is_training:
        hyperparameters["gain"] = form.gain
    notes = list(notes_on_stale_folds(network, form))
    if ranks:
        hyperparameters.update(lora_alpha=asked.lora_alpha, lora_rank=ranks)
        notes.append(
            f"LoRA branches on {len(ranks)} convolutions are added to the stored weights, alpha {asked.lora_alpha}; "
            "a file saved in evaluation mode may have them added already: compare srdeploy verify with the training log"
        )
    return LoadedModel(
        module=network,
        architecture=name,
        form="training" if form.is_training or ranks else "folded",
        scale=scale,
        value_range=1.0,
        sizes=SizeRules(minimum=1),
        hyperparameters=hyperparameters,
        parameters=sum(value.numel() for value in form.live.values()),
        notes=tuple(notes),
    )


def _detect_span(tensors: Tensors) -> bool:
    return _has_span_keys(tensors) and not _has_low_rank(tensors)


def _detect_dsclora(tensors: Tensors) -> bool:
    return _has_span_keys(tensors) and _has_low_rank(tensors)


def _load_span(tensors: Tensors, asked: Asked) -> LoadedModel:
    return _load(tensors, asked, "SPAN")


def _load_dsclora(tensors: Tensors, asked: Asked) -> LoadedModel:
    return _load(tensors, asked, "DSCLoRA")


def fresh_span(scale: int, width: int = 48, gain: int = 2) -> SPANNetwork:
    """The network as its training begins, see ``start.py``; in its training form.

    Args:
        scale: upscaling.
        width: channels of the body.
        gain: widening inside its chains.
    """
    network = SPANNetwork(width, scale, gain)
    last, chain_end = network.upsampler[0], network.conv_1.conv[2]
    assert isinstance(last, nn.Conv2d) and isinstance(chain_end, nn.Conv2d)
    silence_colours(chain_end)
    pass_colours(network.conv_1.sk)
    pass_colours(network.conv_cat)
    repeat_colours(last, scale, 1.0 / 255.0, network.mean.flatten())
    return network


_TRAINING = Training(fresh_span, features=r"block_\d+", deep=("block_",))

SPAN = Architecture(
    name="SPAN",
    detect=_detect_span,
    load=_load_span,
    signature=("conv_1.eval_conv.weight", "block_6.c3_r.eval_conv.weight", "conv_cat.weight", "upsampler.0.weight"),
    about="parameter-free attention, any width; folded, or with its Conv3XC branches; merged DSCLoRA files too",
    training=_TRAINING,
)

DSCLORA = Architecture(
    name="DSCLoRA",
    detect=_detect_dsclora,
    load=_load_dsclora,
    signature=("conv_2.eval_conv.lora_A", "upsampler.0.lora_A", "conv_cat.weight", "upsampler.0.weight"),
    about="SPAN with low-rank branches, whose alpha no file stores: --lora-alpha 2r as published",
    training=_TRAINING,
)
