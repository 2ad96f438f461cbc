"""Which precision a deployment runs in when nobody says: the one that its owner built last."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from sr_deploy.core.artifact import write_json
from sr_deploy.core.errors import BadDeployment
from sr_deploy.core.number_formats import EnginePrecision
from sr_deploy.core.schema import described, read_described

DEFAULT_NAME = "default.json"
SCHEMA = 1


@described
@dataclass(frozen=True)
class Default:
    """The owner's choice.

    Attributes:
        precision: of the engines that ``run``, ``verify`` and ``bench`` take without ``--precision``.
        plan: folder under ``precision/`` of the plan that they were built from; None: float32.
        schema: version of this layout.
    """

    precision: EnginePrecision
    plan: Optional[str] = None
    schema: int = SCHEMA


def save_default(folder: Path, default: Default) -> None:
    """Write the choice into a deployment, whole or not at all."""
    write_json(folder / DEFAULT_NAME, dataclasses.asdict(default))


def read_default(folder: Path) -> Optional[Default]:
    """What was chosen; None where nobody has.

    Raises:
        BadDeployment: the file is damaged.
    """
    path = folder / DEFAULT_NAME
    if not path.is_file():
        return None
    todo = f"remove it, or build again: srdeploy build {folder}"
    return read_described(Default, path, "record of the default precision", todo, BadDeployment)
