"""Do two runtimes give the same picture? Used by export, verify and the tests."""

from __future__ import annotations

from typing import Dict, Iterable, Mapping, Union

import numpy as np

from sr_deploy.core.contract import IOContract, Size, format_size
from sr_deploy.core.errors import CheckFailed
from sr_deploy.core.sample import sample_input
from sr_deploy.core.tolerance import Tolerance, largest_difference
from sr_deploy.run.base import Runner, upscale


def compare(
    runner: Runner, reference: Union[Runner, Mapping[Size, np.ndarray]], sizes: Iterable[Size], contract: IOContract
) -> Dict[Size, float]:
    """Largest difference on the sample picture of each size.

    Args:
        runner: what is checked.
        reference: another runner, or its results by input size: float32 (1, 3, scale·H, scale·W) for
            ``sample_input(size, contract.value_range)``.
        sizes: inputs (height, width).
        contract: gives the value range. Where it is clamped, the reference is limited to the range first, so that a
            PyTorch network without the clamp can serve.

    Returns:
        Size → largest absolute difference in 8-bit steps; infinity for NaN, infinite values or another output size.
    """
    differences: Dict[Size, float] = {}
    for size in sizes:
        lr = sample_input(size, contract.value_range)
        expected = reference[size] if isinstance(reference, Mapping) else upscale(reference, lr)
        if contract.clamped:
            expected = np.clip(expected, 0.0, contract.value_range)
        actual = upscale(runner, lr)
        same = actual.shape == expected.shape
        differences[size] = largest_difference(actual, expected, contract.value_range) if same else float("inf")
    return differences


def check_parity(differences: Mapping[Size, float], tolerance: Tolerance, what: str, todo: str = "") -> float:
    """The largest of ``compare``'s differences, when it is within ``tolerance``.

    Args:
        differences: from ``compare``.
        tolerance: from core/tolerance.py.
        what: how the message calls what was checked, such as "model.onnx".
        todo: what the user can do when it fails.

    Raises:
        CheckFailed: naming the worst size and its difference.
    """
    size = max(differences, key=lambda key: differences[key])
    if not differences[size] <= tolerance.steps:
        raise CheckFailed(
            f"{what} differs from its reference by {differences[size]:.4g} of 255 at {format_size(size)}",
            f"at most {tolerance.steps} ({tolerance.name})",
            todo,
        )
    return differences[size]
