"""What a loaded network is, and what an architecture file provides."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Mapping, Optional, Tuple

import torch
from typing_extensions import Literal

from sr_deploy.core.contract import SizeRules

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Asked:
    """Values that no checkpoint stores; the user gives them.

    Attributes:
        scale: output size over input size, where keys and shapes leave it open.
        lora_alpha: LoRA's alpha: a number for all layers, or a multiple of each layer's rank such as "2r".
        res_scale: EDSR's residual scaling.
        value_range: the value of white, 1.0 or 255.0, of an architecture whose files are of both kinds.
    """

    scale: Optional[int] = None
    lora_alpha: Optional[str] = None
    res_scale: Optional[float] = None
    value_range: Optional[float] = None


@dataclass(frozen=True)
class LoadedModel:
    """A network with its weights, ready to run, exactly as it was trained.

    Attributes:
        module: in eval mode, float32, on the CPU. Takes (N, 3, H, W) RGB in ``0…value_range`` and gives
            (N, 3, scale·H, scale·W) in the same range, for every H and W that ``sizes`` allows. The output may leave
            the range; the exporter clamps it.
        architecture: the registry's name, for example "EFDN".
        form: "training" when the file holds branches that folding removes, else "folded".
        scale: output size over input size.
        value_range: the value of white at both ends, 1.0 or 255.0.
        sizes: the input sizes it takes.
        hyperparameters: widths, depths and the like, found from keys and shapes, or given (``Asked``).
        parameters: number of weights as published counts them: those the forward pass uses, in the checkpoint's form.
        notes: what the user should know: dead weights, switched-off observers, a stale stored fold.
        file_names: keys of the module's state → what files call them, where that differs.
    """

    module: torch.nn.Module
    architecture: str
    form: Literal["training", "folded"]
    scale: int
    value_range: float
    sizes: SizeRules = field(default_factory=SizeRules)
    hyperparameters: Dict[str, Any] = field(default_factory=dict)
    parameters: int = 0
    notes: Tuple[str, ...] = ()
    file_names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Training:
    """What a training must know of an architecture.

    Attributes:
        fresh: ``fresh(scale, **sizes)`` makes the network with random weights, see ``start.py``; every size has a
            default. None: it is trained from a checkpoint only.
        features: a regular expression of the modules whose outputs losses of features compare; "": none are known.
        deep: how the names of the deep-feature part begin, between the first convolution and the upsampling.
        fixed: parts of names of parameters that are stored and never trained.
        file_names: what files call the tensors of a fresh network, where that differs: see ``renaming.py``.
    """

    fresh: Optional[Callable[..., torch.nn.Module]] = None
    features: str = ""
    deep: Tuple[str, ...] = ()
    fixed: Tuple[str, ...] = ()
    file_names: Tuple[Tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Architecture:
    """One row of the registry.

    Attributes:
        name: as users write it after ``--arch``.
        detect: True when these keys and shapes are this architecture's. Cheap, never raises.
        load: builds the network and loads the tensors strictly. Raises BadCheckpoint (missing or unexpected keys,
            wrong shapes, each named) or UsageError (a value of ``Asked`` is needed or does not fit).
        signature: a few keys (no regular expressions) that this architecture's files have, used to name the nearest
            architecture when nothing is detected. ``a|b`` stands for either key.
        about: one line for the README's table and for ``--help``.
        training: what a training must know of it.
    """

    name: str
    detect: Callable[[Tensors], bool]
    load: Callable[[Tensors, Asked], LoadedModel]
    signature: Tuple[str, ...]
    about: str
    training: Training = Training()
