"""What each target accepts: ONNX operator set, operators, and why.

Sources: docs/operators.md of onnx/onnx-tensorrt, branch release/8.5-GA; the TensorRT 8.5 developer guide (opset <= 17).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import FrozenSet, Iterable, Optional, Tuple

from sr_deploy.core.deployment.target import Target as RunsOn
from sr_deploy.core.errors import CheckFailed
from sr_deploy.core.names import row_named

#: Operators no TensorRT before 11.2 has, and those the 8.5 parser lacks.
NO_TENSORRT = frozenset({"DFT", "STFT"})
NO_TENSORRT_8_5 = NO_TENSORRT | frozenset(
    {"LayerNormalization", "GroupNormalization", "HardSwish", "Mod", "Gelu", "QLinearConv", "QLinearMatMul"}
    | {"DynamicQuantizeLinear", "BlackmanWindow", "HammingWindow", "HannWindow", "MelWeightMatrix", "CenterCropPad"}
)


@dataclass(frozen=True)
class Target:
    """A place a graph will run.

    Attributes:
        name: as written after ``--target``.
        opset: the ONNX operator set to write.
        forbidden: operators that the target's parser does not have.
        about: what it stands for.
        runs_on: the runtime and GPU there, which number formats depend on; None: any.
    """

    name: str
    opset: int
    forbidden: FrozenSet[str]
    about: str
    runs_on: Optional[RunsOn] = None


TARGETS: Tuple[Target, ...] = (
    Target("any", 17, NO_TENSORRT, "ONNX Runtime, TensorRT 8.6 to 11, TensorRT-RTX"),
    Target(
        "xavier-nx", 16, NO_TENSORRT_8_5, "Jetson Xavier NX and AGX Xavier, JetPack 5: TensorRT 8.5",
        RunsOn("tensorrt", "8.5.2", ("7.2",)),
    ),
    Target(
        "orin", 17, NO_TENSORRT, "Jetson Orin, JetPack 6 and 7: TensorRT 8.6 to 10", RunsOn("tensorrt", "", ("8.7",)),
    ),
)  # fmt: skip


def target_named(name: str) -> Target:
    """The target of that name.

    Raises:
        UsageError: there is none; the message lists them.
    """
    return row_named("target", name, TARGETS)


def check_operators(operators: Iterable[str], target: Target, graph_name: str) -> None:
    """Refuse a graph that holds an operator which the target's parser lacks.

    Raises:
        CheckFailed: naming the operators.
    """
    bad = sorted(set(operators) & target.forbidden)
    if bad:
        raise CheckFailed(
            f"{graph_name} holds {', '.join(bad)}, which {target.about} cannot parse",
            "a graph of operators that the target has",
            "for a Fourier unit leave --spectral at its default (fold) or use --spectral dft; "
            "else choose another --target",
        )
