"""Which architectures are known, and which of them a checkpoint is."""

from __future__ import annotations

from typing import Optional, Tuple

from sr_deploy.core.errors import BadCheckpoint, MissingPackage, UnknownArchitecture, UsageError
from sr_deploy.core.names import proposal
from sr_deploy.models.architectures.compact import COMPACT
from sr_deploy.models.architectures.disp import DISP
from sr_deploy.models.architectures.dscf import DSCF
from sr_deploy.models.architectures.ecbsr import ECBSR
from sr_deploy.models.architectures.edsr import EDSR
from sr_deploy.models.architectures.efdn import EFDN
from sr_deploy.models.architectures.esrgan import ESRGAN
from sr_deploy.models.architectures.f2srgan import F2SRGAN, F2SRGAN_STUDENT
from sr_deploy.models.architectures.imdn import IMDN
from sr_deploy.models.architectures.rfdn import RFDN
from sr_deploy.models.architectures.rlfn import RLFN
from sr_deploy.models.architectures.safmn import SAFMN
from sr_deploy.models.architectures.span import DSCLORA, SPAN
from sr_deploy.models.architectures.spanf import SPANF
from sr_deploy.models.architectures.spanv2 import SPANV2
from sr_deploy.models.architectures.swinir import SWINIR
from sr_deploy.models.base import Architecture, Asked, LoadedModel, Tensors
from sr_deploy.models.growth import LimitedGrowth
from sr_deploy.models.shapes import check_asked
from sr_deploy.models.zoo import model_from_spandrel

#: Every known architecture, in detection order: DSCLoRA's keys include SPAN's.
ARCHITECTURES: Tuple[Architecture, ...] = (
    DSCLORA,
    SPAN,
    SPANF,
    SPANV2,
    DSCF,
    DISP,
    EFDN,
    RFDN,
    RLFN,
    F2SRGAN,
    F2SRGAN_STUDENT,
    EDSR,
    SWINIR,
    SAFMN,
    IMDN,
    ESRGAN,
    ECBSR,
    COMPACT,
)

#: How many keys a message shows.
SHOWN_KEYS = 6


def architecture_named(name: str) -> Architecture:
    """The architecture that users call ``name``; upper and lower case count the same.

    Raises:
        UsageError: there is none of that name; the message lists all.
    """
    for architecture in ARCHITECTURES:
        if architecture.name.lower() == name.lower():
            return architecture
    names = [architecture.name for architecture in ARCHITECTURES]
    others = "leave --arch out to have it found, or hand in your own network with --model pkg.module:factory"
    raise UsageError(
        f"--arch {name}: there is no architecture of that name",
        "one of " + ", ".join(names),
        ", or ".join(filter(None, (proposal(name, names), others))),
    )


def detect_architecture(tensors: Tensors) -> Optional[Architecture]:
    """The first architecture that recognises these keys and shapes; None when none does."""
    return next((architecture for architecture in ARCHITECTURES if architecture.detect(tensors)), None)


def nearest_architecture(tensors: Tensors) -> Tuple[str, float]:
    """The architecture most of whose typical keys are here.

    A key counts when it stands alone or behind a prefix that nothing stripped, such as ``net.g.head.weight``.

    Returns:
        (name, share of its typical keys, 0…1); the first in order among equals.
    """
    best, best_share = ARCHITECTURES[0].name, -1.0
    for architecture in ARCHITECTURES:
        share = sum(_holds(tensors, key) for key in architecture.signature) / len(architecture.signature)
        if share > best_share:
            best, best_share = architecture.name, share
    return best, best_share


def _holds(tensors: Tensors, key: str) -> bool:
    """Whether one of the alternatives that ``key`` joins by ``|`` ends a stored key."""
    endings = tuple(f".{option}" for option in key.split("|"))
    return any(f".{stored}".endswith(endings) for stored in tensors)


def model_from_tensors(tensors: Tensors, asked: Asked, arch_name: Optional[str]) -> LoadedModel:
    """Build the network that a checkpoint belongs to, and load its weights.

    Args:
        tensors: the checkpoint, unwrapped.
        asked: values that no file stores.
        arch_name: the architecture that the user insists on; None: found from keys and shapes, then through spandrel
            where that is installed.

    Raises:
        UsageError: no architecture of that name; a value of ``asked`` is needed, contradicts the file, or is not used.
        UnknownArchitecture: no architecture recognises the tensors, nor spandrel; or spandrel is not there to be asked.
        BadCheckpoint: the tensors do not fit, or describe a network far larger than they are.
    """
    architecture = architecture_named(arch_name) if arch_name else detect_architecture(tensors)
    if architecture is not None:
        try:
            with LimitedGrowth(tensors):
                return architecture.load(tensors, asked)
        except (KeyError, IndexError) as error:
            raise BadCheckpoint(
                f"this checkpoint does not fit {architecture.name}: {_described(tensors)}; it stumbled over {error}",
                f"the keys and shapes of {architecture.name}, such as {', '.join(architecture.signature[:2])}",
                "leave --arch out to have it found" if arch_name else "check that the file is whole",
            ) from error
    try:
        with LimitedGrowth(tensors):
            loaded = model_from_spandrel(tensors)
    except MissingPackage as missing:
        # The keys are what the user must see; that one more place could not be searched goes with them.
        raise _unknown(tensors, f"{missing.found}; for more architectures: {missing.todo}") from missing
    if loaded is None:
        raise _unknown(tensors, "spandrel does not know it either")
    check_asked(asked, loaded.architecture, loaded.scale)
    return loaded


def _unknown(tensors: Tensors, spandrel: str) -> UnknownArchitecture:
    name, share = nearest_architecture(tensors)
    if share > 0:
        nearest = f"nearest is {name}: {share:.0%} of its typical keys are here"
    else:
        nearest = "none of the typical keys of any known architecture are here"
    known = ", ".join(architecture.name for architecture in ARCHITECTURES)
    return UnknownArchitecture(
        f"this checkpoint is of no known architecture: {_described(tensors)}; {nearest}",
        f"one of {known} ({spandrel})",
        "--arch NAME tells what does not fit; --model pkg.module:factory takes a network of your own",
    )


def _described(tensors: Tensors) -> str:
    """What the keys look like: their number, and the first ones with their shapes."""
    first = [f"{key} {tuple(tensors[key].shape)}" for key in list(tensors)[:SHOWN_KEYS]]
    more = ", …" if len(tensors) > SHOWN_KEYS else ""
    return f"{len(tensors)} tensors: {', '.join(first)}{more}"
