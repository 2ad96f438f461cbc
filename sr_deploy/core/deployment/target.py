"""What a plan and its engine are for, a runtime and GPUs, and which number formats these have."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Iterable, Optional, Tuple

from pydantic import Field
from typing_extensions import Annotated

from sr_deploy.core.errors import UsageError
from sr_deploy.core.number_formats import FORMAT, FORMATS, NumberFormat
from sr_deploy.core.schema import ShortText, described

Capability = Annotated[str, Field(pattern=r"^[0-9]{1,3}\.[0-9]{1,2}$")]


@described
@dataclass(frozen=True)
class Target:
    """Where an engine is to run.

    Attributes:
        runtime: a name of engine/runtimes.py.
        version: of the runtime; "" where it is not known.
        compute_capabilities: the GPUs that it must run on, such as ("8.9", "12.0"); empty where it needs none.
    """

    runtime: ShortText
    version: ShortText = ""
    compute_capabilities: Tuple[Capability, ...] = ()

    def __str__(self) -> str:
        gpus = ", ".join(self.compute_capabilities)
        return f"{self.runtime} {self.version}".strip() + (f" for compute capability {gpus}" if gpus else "")


def reason_against(target: Target, one: NumberFormat) -> Optional[str]:
    """Why a target does not have a format; None where it does.

    ONNX Runtime on the CPU has every format, as what it computes otherwise is rounded to it.
    """
    have = re.match(r"(\d+)\.(\d+)", target.version)
    first = dict(one.since).get(target.runtime, (0, 0))
    if have and (int(have.group(1)), int(have.group(2))) < first:
        return f"{one.label} came with {target.runtime} {first[0]}.{first[1]}, and this is {target.version}"
    short = [gpu for gpu in target.compute_capabilities if _number(gpu) < _number(one.capability or "0.0")]
    if short:
        return f"{one.label} needs compute capability {one.capability} or later, not {', '.join(short)}"
    return None


def formats_of(target: Target) -> Tuple[str, ...]:
    """Names of the formats that a target has, narrowest first."""
    return tuple(one.name for one in FORMATS if reason_against(target, one) is None)


def check_formats(target: Target, formats: Iterable[str], what: str) -> None:
    """Refuse formats that a target does not have, before anything long is begun.

    Args:
        target: what is built for.
        formats: names.
        what: that has them, for the message.

    Raises:
        UsageError: naming each format and why.
    """
    wanted = [FORMAT[name] for name in dict.fromkeys(formats)]
    reasons = [why for why in (reason_against(target, one) for one in wanted) if why]
    if reasons:
        labels = ", ".join(FORMAT[name].label for name in formats_of(target))
        raise UsageError(
            f"{what} is not for {target}: {'; '.join(reasons)}",
            f"a type that the target has: {labels}",
            "--precision auto takes of these what suits each layer; --remake-plan makes a plan that is there again",
        )


def _number(capability: str) -> Tuple[int, int]:
    major, minor = capability.split(".")
    return int(major), int(minor)
