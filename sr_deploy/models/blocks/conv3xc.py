"""Conv3XC, the 3x3 convolution of the SPAN family, and which of its two forms a file holds.

Facts from hongyuanyu/SPAN: as trained it is a chain 1x1, 3x3, 1x1 beside a 1x1 skip, and the file also stores its fold,
which may be stale: the branches are the truth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import nn

from sr_deploy.models.base import LoadedModel, Tensors
from sr_deploy.models.loading import load_strictly
from sr_deploy.models.shapes import width_of

#: A stored fold that differs more than this, relative to the largest folded weight, is called stale.
STALE = 1e-3


class Conv3XC(nn.Module):
    """A 3x3 convolution; as trained, a chain 1x1, 3x3, 1x1 beside a 1x1 skip.

    Args:
        c_in, c_out: channels.
        gain: widening inside the chain; None: folded, one convolution ``eval_conv``.
    """

    def __init__(self, c_in: int, c_out: int, gain: Optional[int]) -> None:
        super().__init__()
        self.folded = gain is None
        if gain is None:
            self.eval_conv = nn.Conv2d(c_in, c_out, 3, padding=1)
            return
        self.sk = nn.Conv2d(c_in, c_out, 1)
        self.conv = nn.Sequential(
            nn.Conv2d(c_in, c_in * gain, 1),
            nn.Conv2d(c_in * gain, c_out * gain, 3),
            nn.Conv2d(c_out * gain, c_out, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, c_in, H, W) to (N, c_out, H, W). The input is what is zero-padded: the border sees the 1x1's bias."""
        if self.folded:
            return self.eval_conv(x)
        return self.conv(F.pad(x, (1, 1, 1, 1))) + self.sk(x)


@dataclass(frozen=True)
class StoredForm:
    """What a file holds of its Conv3XC.

    Attributes:
        gain: widening inside the chains of the training form; None: the folded form.
        live: the tensors of the network in that form.
        stored_folds: the folds that lie beside the branches and are not used, empty in the folded form.
    """

    gain: Optional[int]
    live: Tensors
    stored_folds: Tensors

    @property
    def is_training(self) -> bool:
        """Whether the branches are there."""
        return self.gain is not None


def stored_form(tensors: Tensors, first: str, architecture: str) -> StoredForm:
    """Which form of its Conv3XC a file holds.

    Args:
        tensors: the checkpoint.
        first: the path of a Conv3XC that takes RGB, for example "conv_1".
        architecture: named in errors.

    Raises:
        BadCheckpoint: its skip is there, its chain is not.
    """
    if f"{first}.sk.weight" not in tensors:
        return StoredForm(None, tensors, {})
    gain = max(1, width_of(tensors, f"{first}.conv.0.weight", architecture) // 3)
    folds = (".eval_conv.weight", ".eval_conv.bias")
    stored_folds = {key: value for key, value in tensors.items() if key.endswith(folds)}
    live = {key: value for key, value in tensors.items() if key not in stored_folds}
    return StoredForm(gain, live, stored_folds)


def loaded_in_form(
    network: nn.Module, form: StoredForm, architecture: str, scale: int, hyperparameters: Mapping[str, object]
) -> LoadedModel:
    """A network of Conv3XC, of pictures in 0…1, with the tensors of the form that its file holds.

    Args:
        network: built for that form.
        form: of the file.
        architecture: its name.
        scale: output size over input size.
        hyperparameters: that the keys and shapes gave; the gain of a training form is added.

    Raises:
        BadCheckpoint: see ``load_strictly``.
    """
    module = load_strictly(network, form.live, architecture)
    return LoadedModel(
        module=module,
        architecture=architecture,
        form="training" if form.is_training else "folded",
        scale=scale,
        value_range=1.0,
        hyperparameters={**hyperparameters, **({"gain": form.gain} if form.is_training else {})},
        parameters=sum(tensor.numel() for tensor in form.live.values()),
        notes=notes_on_stale_folds(module, form),
    )


def notes_on_stale_folds(network: nn.Module, form: StoredForm) -> Tuple[str, ...]:
    """What to say of the stored folds of ``network``, which has the branches' weights; () when they agree with them."""
    stale = _stale(network, form.stored_folds)
    if not stale:
        return ()
    count = sum(isinstance(module, Conv3XC) for module in network.modules())
    where = "everywhere" if len(stale) == count else "in " + ", ".join(stale)
    return (f"stored eval_conv is stale, the branches are used ({where})",)


def _folded(block: Conv3XC) -> Dict[str, torch.Tensor]:
    """Weight and bias, in float64, of the one 3x3 convolution that a Conv3XC's branches are."""
    convolutions = (*block.conv, block.sk)
    first, middle, last, skip = (_weight(conv).double() for conv in convolutions)
    first_bias, middle_bias, last_bias, skip_bias = (conv.bias.double() for conv in convolutions)
    weight = torch.einsum("om,mnhw,ni->oihw", last[:, :, 0, 0], middle, first[:, :, 0, 0])
    weight[:, :, 1, 1] += skip[:, :, 0, 0]
    bias = last[:, :, 0, 0] @ (middle.sum((2, 3)) @ first_bias + middle_bias) + last_bias + skip_bias
    return {"weight": weight, "bias": bias}


def _weight(conv: Any) -> torch.Tensor:
    """The weight a convolution runs with, with its low-rank branch where it has one (``architectures/span.py``)."""
    merged = getattr(conv, "merged_weight", None)
    weight: torch.Tensor = conv.weight if merged is None else merged()
    return weight


def _stale(network: nn.Module, stored: Tensors) -> List[str]:
    """The Conv3XC whose stored ``eval_conv`` is not the fold of its branches."""

    def agrees(key: str, own: torch.Tensor) -> bool:
        value = stored.get(key)
        if value is None or value.shape != own.shape:
            return False
        return bool((value.double() - own).abs().max() <= STALE * own.abs().max())

    blocks = [(path, block) for path, block in network.named_modules() if isinstance(block, Conv3XC)]
    return [
        path
        for path, block in blocks
        if f"{path}.eval_conv.weight" in stored
        and not all(agrees(f"{path}.eval_conv.{part}", own) for part, own in _folded(block).items())
    ]
