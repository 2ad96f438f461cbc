"""Which elements along one axis a window reads: convolutions, pooling, resizing, as ONNX defines its operators."""

from __future__ import annotations

from typing import Any, Mapping, Optional, Sequence, Tuple

import numpy as np

#: Lengths of input and output.
Ends = Tuple[int, int]


def window_taps(
    operator: str, attributes: Mapping[str, Any], weight: Optional[Sequence[int]], axis: int, ends: Ends
) -> Optional[np.ndarray]:
    """The inputs that each output of a convolution or pooling reads.

    Args:
        operator: "Conv", "ConvTranspose", "MaxPool" or "AveragePool".
        attributes: of the node.
        weight: kernel (height, width) where there is a weight.
        axis: 0 for rows, 1 for columns.
        ends: lengths of input and output.

    Returns:
        (outputs, taps), -1 for padding; None where the padding is left to the runtime (auto_pad).
    """
    if attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"", b"VALID"):
        return None
    kernel = attributes.get("kernel_shape", weight)[axis]
    stride = attributes.get("strides", (1, 1))[axis]
    dilation = attributes.get("dilations", (1, 1))[axis]
    before = attributes.get("pads", (0, 0, 0, 0))[axis]
    out, tap = np.arange(ends[1])[:, None], np.arange(kernel)[None, :] * dilation
    if operator == "ConvTranspose":
        place = out + before - tap
        source = np.where(place % stride == 0, place // stride, -1)
    else:
        source = out * stride - before + tap
    return np.where((source >= 0) & (source < ends[0]), source, -1)


def resize_taps(attributes: Mapping[str, Any], ends: Ends, around: Tuple[int, int]) -> np.ndarray:
    """The inputs that each output of a Resize may read, by its coordinate transformation.

    Args:
        attributes: of the node.
        ends: lengths of input and output.
        around: taps before and after the floor of the place that is sampled. For "nearest" both neighbours are given
            where the place lies between two: which is taken depends on the rounding.

    Returns:
        (outputs, taps), repeated at the border.
    """
    out = np.arange(ends[1], dtype=np.float64)
    step = ends[0] / ends[1]
    how = attributes.get("coordinate_transformation_mode", b"half_pixel").decode()
    if how == "asymmetric":
        place = out * step
    elif how == "align_corners":
        place = out * (ends[0] - 1) / max(ends[1] - 1, 1)
    else:
        place = (out + 0.5) * step - 0.5
    if attributes.get("mode", b"nearest") == b"nearest":
        taken = _rounded(place, attributes.get("nearest_mode", b"round_prefer_floor").decode())
        return np.clip(taken, 0, ends[0] - 1).astype(np.int64)[:, None]
    first = np.floor(place + 1e-9).astype(np.int64)
    taps = first[:, None] + np.arange(-around[0], around[1] + 1)[None, :]
    return np.clip(taps, 0, ends[0] - 1)


def _rounded(place: np.ndarray, how: str) -> np.ndarray:
    """The nearest whole place, as ``nearest_mode`` says."""
    if how == "floor":
        return np.floor(place + 1e-9)
    if how == "ceil":
        return np.ceil(place - 1e-9)
    if how == "round_prefer_ceil":
        return np.floor(place + 0.5 + 1e-9)
    return np.ceil(place - 0.5 - 1e-9)
