"""Networks that spandrel knows, such as SAFMN, RCAN and DAT. Optional: ``pip install 'srdeploy[zoo]'``."""

from __future__ import annotations

from typing import Optional

import torch

from sr_deploy.core.contract import SizeRules
from sr_deploy.core.errors import BadCheckpoint, MissingPackage
from sr_deploy.core.host.install import pip_install
from sr_deploy.core.host.packages import importable
from sr_deploy.models.base import LoadedModel, Tensors


def model_from_spandrel(tensors: Tensors) -> Optional[LoadedModel]:
    """Build and load a network through spandrel.

    Args:
        tensors: the checkpoint.

    Returns:
        The network, with 0…1 as value range; None when spandrel does not know these keys.

    Raises:
        MissingPackage: spandrel, or torchvision that it needs, is not there or does not import.
        BadCheckpoint: spandrel knows the keys but cannot load them, or the network is no RGB super-resolution.
    """
    spandrel = _import_spandrel()
    try:
        # spandrel moves keys about in the dictionary that it is given.
        found = spandrel.ModelLoader(device="cpu").load_from_state_dict(dict(tensors))
    except spandrel.UnsupportedModelError:
        return None
    except Exception as error:
        # Each of its architectures reads shapes its own way; whatever goes wrong there, the file is at fault.
        raise BadCheckpoint(
            f"spandrel cannot load this checkpoint: {type(error).__name__}: {_first_line(error)}",
            "a whole checkpoint of an architecture that spandrel knows",
            "check that the file is whole; or hand in the network itself with --model pkg.module:factory",
        ) from error
    name = found.architecture.name
    _check_purpose(spandrel, found, name)
    module = found.model.float().eval().requires_grad_(False)
    rules = found.size_requirements
    sizes = SizeRules(minimum=max(rules.minimum, 1), multiple=rules.multiple_of)
    _check_output(module, sizes, found.scale, name)
    return LoadedModel(
        module=module,
        architecture=name,
        form="training",
        scale=found.scale,
        value_range=1.0,
        sizes=sizes,
        hyperparameters={"spandrel": list(found.tags)},
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        notes=("the network is spandrel's; which of its branches fold is found by probing",),
    )


def _import_spandrel():
    if not importable("spandrel"):
        raise MissingPackage(
            "spandrel is not installed", "it, for architectures beyond the known ones", pip_install("zoo")
        )
    try:
        import spandrel
    except Exception as error:
        # Besides ImportError: torchvision built for another torch ends in a RuntimeError about an operator.
        raise MissingPackage(
            f"spandrel is installed but does not import: {type(error).__name__}: {_first_line(error)}",
            "spandrel and a torchvision that belongs to the installed torch",
            "install torch and torchvision from the same source and of matching versions",
        ) from error
    return spandrel


def _check_purpose(spandrel, found, name: str) -> None:
    """Refuse networks that do not enlarge one RGB picture of any shape."""
    problem = ""
    if not isinstance(found, spandrel.ImageModelDescriptor):
        problem = "takes more than one picture"
    elif found.purpose != "SR" or found.scale < 2:
        problem = f"is for {found.purpose}, with scale {found.scale}"
    elif (found.input_channels, found.output_channels) != (3, 3):
        problem = f"takes {found.input_channels} and gives {found.output_channels} channels"
    elif found.size_requirements.square:
        problem = "takes square pictures only"
    if problem:
        raise BadCheckpoint(
            f"this checkpoint is {name}, which {problem}",
            "a network for RGB super-resolution, from one picture to one larger picture",
            "take another checkpoint; pictures of one channel or several frames are not supported",
        )


def _check_output(module: torch.nn.Module, sizes: SizeRules, scale: int, name: str) -> None:
    """Run the smallest sensible picture and look at the shape that comes out."""
    height = sizes.fit(16)
    width = height + sizes.multiple
    with torch.no_grad():
        output = module(torch.zeros(1, 3, height, width))
    expected = (1, 3, scale * height, scale * width)
    got = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
    if got != expected:
        raise BadCheckpoint(
            f"{name} through spandrel gives {got} for an input of {(1, 3, height, width)}",
            f"a tensor {expected}",
            "hand in the network itself with --model pkg.module:factory",
        )


def _first_line(error: BaseException) -> str:
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)
