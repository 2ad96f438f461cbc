"""Do two runtimes give the same picture? Used by export, verify and the tests."""

from __future__ import annotations

from typing import Dict, Iterable, Mapping, Optional, Union

import numpy as np

from sr_deploy.core.contract import IOContract, Size, format_size
from sr_deploy.core.errors import CheckFailed
from sr_deploy.core.media.sample import Picture, sample_for, sample_input
from sr_deploy.core.media.surface import rgb_of_surface, surface_difference
from sr_deploy.core.tolerance import Tolerance, difference_beyond_rounding, largest_difference
from sr_deploy.run.base import Runner, upscale


def compare(
    runner: Runner,
    reference: Union[Runner, Mapping[Size, np.ndarray]],
    sizes: Iterable[Size],
    contract: IOContract,
    reference_range: Optional[float] = None,
    picture: Picture = sample_input,
) -> Dict[Size, float]:
    """Largest difference on a picture of each size.

    Args:
        runner: what is checked.
        reference: another runner, or its results by input size: float32 (1, 3, scale·H, scale·W) for
            ``picture(size, reference_range)``.
        sizes: inputs (height, width).
        contract: gives the value range. Where it is clamped, the reference is limited to the range first, so that a
            PyTorch network without the clamp can serve.
        reference_range: the value of white for a reference of float32; None: the contract's.
        picture: makes what is fed.

    Returns:
        Size → largest absolute difference in 8-bit steps; infinity for NaN, infinite values or another output size.
        Where the contract is of bytes, what rounding does not explain of it, see ``difference_beyond_rounding``.
    """
    differences: Dict[Size, float] = {}
    white = contract.value_range if reference_range is None else reference_range
    for size in sizes:
        if isinstance(reference, Mapping):
            expected = reference[size]
        elif contract.yuv is not None and reference.io_dtype == "float32":
            surface = sample_for(contract, size, picture)
            wanted = upscale(reference, as_floats(surface, contract, white))
            differences[size] = planes_difference(upscale(runner, surface), wanted, contract, white)
            continue
        elif reference.io_dtype != "float32":
            expected = upscale(reference, sample_for(contract, size, picture))
        else:
            expected = upscale(reference, picture(size, white))
        if contract.clamped and expected.dtype != np.uint8:
            expected = np.clip(expected, 0.0, white)
        differences[size] = difference_of(upscale(runner, sample_for(contract, size, picture)), expected, white)
    return differences


def as_floats(surface: np.ndarray, contract: IOContract, white: float) -> np.ndarray:
    """A video's planes as a float graph takes the same picture: (1, 3, H, W) in 0…white, not rounded."""
    return np.ascontiguousarray(rgb_of_surface(surface, contract).transpose(2, 0, 1)[None] * np.float32(white))


def planes_difference(actual: np.ndarray, expected: np.ndarray, contract: IOContract, white: float) -> float:
    """``difference_of`` for a graph of planes against the floats (1, 3, H, W) in 0…white that another gave."""
    if not np.isfinite(expected).all():
        return float("inf")
    return surface_difference(actual, expected[0].transpose(1, 2, 0) / np.float32(white), contract)


def difference_of(actual: np.ndarray, expected: np.ndarray, reference_range: float) -> float:
    """Two runners' results in 8-bit steps, whatever their types; infinity where the sizes differ or for NaN.

    Args:
        actual: uint8 (1, H, W, 3), or float32 (1, 3, H, W).
        expected: float32 (1, 3, H, W); or as ``actual``.
        reference_range: the value of white in ``expected`` where that is float32.
    """
    if actual.dtype == np.uint8 and expected.dtype != np.uint8:
        expected = expected.transpose(0, 2, 3, 1) * (255.0 / reference_range)
    if actual.shape != expected.shape:
        return float("inf")
    if actual.dtype == np.uint8:
        return difference_beyond_rounding(actual, expected)
    return largest_difference(actual, expected, reference_range)


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
