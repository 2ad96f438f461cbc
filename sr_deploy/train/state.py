"""The state of a training as a file: whole or not there, and refused where it is not of the same training."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping

import numpy as np
import torch

from sr_deploy.core.artifact import atomic_file
from sr_deploy.core.errors import BadInput, SrDeployError, UsageError

#: Of the file. A state of another form is refused: what it holds would be guessed.
FORM = 2
#: What reading a damaged state ends in.
DAMAGED = (RuntimeError, LookupError, ValueError, TypeError, AttributeError, EOFError, pickle.PickleError, OSError)


@dataclass(frozen=True)
class Keeping:
    """Where the state of a training is kept, and which training it is of.

    Attributes:
        file: the state.
        key: of ``key_of``: a state with another is of another training.
        settings: what the user may have given another value since; named when the key differs. Plain values.
        going_on: how the user goes on with it.
        anew: how the user begins again without it.
        seconds: at most so long until it is written again; it is after the first step and the last, too.
    """

    file: Path
    key: str
    settings: Mapping[str, Any]
    going_on: str
    anew: str
    seconds: float = 30.0


@dataclass(frozen=True)
class State:
    """How far a training is.

    Attributes:
        step: steps that are behind.
        seconds: spent on them.
        losses: of the steps since the last judgement.
        learner: what the learner needs to go on: tensors and plain values.
    """

    step: int
    seconds: float
    losses: List[float]
    learner: Dict[str, Any]


def key_of(settings: Any, arrays: Iterable[np.ndarray], *more: bytes) -> str:
    """A hash of all that decides what a training gives.

    Args:
        settings: plain values, as JSON has them.
        arrays: pictures and weights.
        more: files or graphs.
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for part in more:
        digest.update(hashlib.sha256(part).digest())
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def keep(keeping: Keeping, state: State) -> None:
    """Write the state; what was there before stays until it is whole.

    Raises:
        DiskFull, EnvironmentFault: it cannot be written.
    """
    stream = io.BytesIO()
    about = {"form": FORM, "key": keeping.key, "settings": dict(keeping.settings)}
    kept = {"step": state.step, "seconds": state.seconds, "losses": state.losses, "learner": state.learner}
    torch.save({**about, **kept}, stream)
    with atomic_file(keeping.file) as temporary:
        temporary.write_bytes(stream.getvalue())


def kept_state(keeping: Keeping) -> State:
    """The state that was kept, its tensors on the CPU.

    Raises:
        UsageError: there is none, or it is of another training; the message names what differs.
        BadInput: it is damaged, or of another version of srdeploy.
    """
    if not keeping.file.is_file():
        raise UsageError(f"there is no state to resume at {keeping.file}", "", "start without --resume")
    try:
        found = torch.load(str(keeping.file), map_location="cpu", weights_only=True)
        if found.get("form") != FORM:
            raise BadInput(
                f"{keeping.file} was kept by another version of srdeploy",
                "a state that this version kept",
                keeping.anew,
            )
        if found["key"] != keeping.key:
            raise _of_another_run(keeping, found["settings"])
        losses = [float(value) for value in found["losses"]]
        return State(int(found["step"]), float(found["seconds"]), losses, dict(found["learner"]))
    except SrDeployError:
        raise
    except DAMAGED:
        raise damaged(keeping) from None


def damaged(keeping: Keeping) -> BadInput:
    """The error for a state that cannot be gone on from."""
    return BadInput(f"{keeping.file} is damaged", "the state as it was kept", keeping.anew)


def _of_another_run(keeping: Keeping, kept: Mapping[str, Any]) -> UsageError:
    differing = [
        f"{name} {kept[name]!r}, now {value!r}"
        for name, value in keeping.settings.items()
        if name in kept and kept[name] != value
    ]
    return UsageError(
        f"{keeping.file} is of another run: " + ("; ".join(differing) or "another plan or other pictures"),
        "what that run was started with",
        f"give the same again, or {keeping.anew}",
    )
