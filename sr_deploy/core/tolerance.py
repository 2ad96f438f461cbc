"""How different two results may be, named once and used by the product and its tests.

All differences of pictures are in 8-bit steps: the value range of the network is scaled to 0…255 first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Tolerance:
    """A bound on the largest absolute difference between two pictures.

    Attributes:
        name: how messages call it.
        steps: largest allowed difference, in 8-bit steps (of 255).
    """

    name: str
    steps: float


@dataclass(frozen=True)
class LossyTolerance:
    """What a lower precision may cost. A single pixel says little there: rounding moves some by many steps.

    Attributes:
        name: how messages call it.
        decibels: mean PSNR-Y over a set of photographs that may be lost against the float32 network.
        rms_steps: root-mean-square difference of an engine on the sample picture, in 8-bit steps, from what the graph
            of its plan gives, or where that is not known, from float32.
    """

    name: str
    decibels: float
    rms_steps: float


#: PyTorch against the published code's output.
TORCH_FP32 = Tolerance("PyTorch float32", 0.01)
#: An exported FP32 graph in any runtime against PyTorch.
GRAPH_FP32 = Tolerance("graph float32", 0.05)
#: A picture in tiles against the whole one, of a local network in float32: 1e-5 of white. ONNX Runtime on the CPU is
#: equal to the last bit; a runtime that takes another algorithm for another size rounds otherwise.
TILES = Tolerance("tiles", 255e-5)

#: The float32 graph with channels divided in front of convolutions and weights multiplied to match: factors are powers
#: of two, which no float type rounds.
CHANNEL_FACTORS = Tolerance("channel factors", 0.0)

#: A float16 graph or engine against float32.
HALF = LossyTolerance("float16", decibels=0.01, rms_steps=0.5)
#: One in bfloat16: 3 bits less than float16 has, over all of float32's range.
BF16 = LossyTolerance("bfloat16", decibels=0.05, rms_steps=1.5)
#: One of FP8.
FP8 = LossyTolerance("FP8", decibels=0.60, rms_steps=6.0)
#: One of INT8, or of several formats. ``build`` holds the budget that was given; this tells a right from a broken one.
INT8 = LossyTolerance("INT8", decibels=0.60, rms_steps=6.0)

#: How much further from the original than float32 the mean of any 8x8 window of a picture may be with a lower
#: precision: beyond it a patch is seen as another colour or line, not as grain. ``auto`` keeps no plan beyond it.
STRUCTURE = Tolerance("visible structure", 16.0)
#: dB that a plan may lose in its worst picture before ``build`` without a budget warns.
LOUD_LOSS = 0.3
#: Mean difference of a colour channel over a picture: beyond it ``build`` warns of shifted colours, and with a budget
#: of every picture ``auto`` keeps no plan.
COLOUR_SHIFT = Tolerance("colour shift", 0.25)

#: A folded block against the block it replaces, in float64: largest difference over the largest output magnitude.
FOLD_FLOAT64_RELATIVE = 1e-9
#: The same for a part of a graph. Its constants were rounded to float32 one by one, so that two which were made of the
#: same numbers, a bias and the border that is filled with it, agree only so far.
FOLD_ROUNDED_RELATIVE = 1e-6
#: The same in float32, border included; also for the whole network.
FOLD_FLOAT32_RELATIVE = 1e-5
#: A graph without some channels against the whole one that does not read them, in float64: largest difference over the
#: largest value of the output. Sums of other lengths are added in another order, and nothing else may differ.
SLICED_FLOAT64_RELATIVE = 1e-9
#: The same of a graph that casts to float32 inside. Rounding grows where values do that no training has seen.
SLICED_FLOAT32_RELATIVE = 1e-3


def largest_difference(a: np.ndarray, b: np.ndarray, value_range: float) -> float:
    """Largest absolute difference of two pictures in 8-bit steps; NaN anywhere gives infinity.

    Args:
        a, b: arrays of one shape, in ``0…value_range`` (values outside count as they are).
        value_range: the value that white has, 1.0 or 255.0.

    Raises:
        ValueError: the shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"shapes differ: {a.shape} and {b.shape}")
    difference = np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64))
    if not np.isfinite(difference).all():
        return float("inf")
    return float(difference.max() * 255.0 / value_range)


def rms_difference(a: np.ndarray, b: np.ndarray, value_range: float) -> float:
    """Root-mean-square difference of two pictures in 8-bit steps; infinity for NaN or different shapes.

    Args:
        a, b: uint8, or float32 in ``0…value_range``.
        value_range: the value that white has, 1.0 or 255.0; of no meaning for uint8.
    """
    if a.shape != b.shape:
        return float("inf")
    steps = 1.0 if a.dtype == np.uint8 else 255.0 / value_range
    mean = float(np.mean((np.asarray(a, np.float64) - np.asarray(b, np.float64)) ** 2))
    return mean**0.5 * steps if np.isfinite(mean) else float("inf")


def difference_beyond_rounding(pixels: np.ndarray, reference: np.ndarray) -> float:
    """How far two pictures of 8 bits were apart before they were rounded, in 8-bit steps.

    A value that lies near the middle of two steps may be rounded to either, so one step of difference says little by
    itself. Against an unrounded reference, the value was at most half a step from what it became: what is beyond that
    half is a difference. Against a rounded one, both moved: one step is possible, and values that differ by d in the
    mean round differently in a share d of the places, so the mean difference measures d.

    Args:
        pixels: uint8, any shape.
        reference: of that shape; uint8, or floats in 0…255 that have not been rounded.

    Returns:
        The part that rounding does not explain; infinity for NaN.

    Raises:
        ValueError: the shapes differ.
    """
    largest = largest_difference(pixels, reference, 255.0)
    if reference.dtype != np.uint8:
        return max(largest - 0.5, 0.0)
    mean = float(np.mean(np.abs(pixels.astype(np.int16) - reference.astype(np.int16))))
    return max(largest - 1.0, mean)
