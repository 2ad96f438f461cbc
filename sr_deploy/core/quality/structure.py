"""Whether the difference of two pictures can be seen as something: a patch that is off, not grain."""

from __future__ import annotations

import cv2
import numpy as np

#: Side of the window in which a mean difference counts as structure, pixels of the result.
WINDOW = 8
#: A pixel is off where a channel differs by more than this, 8-bit steps.
OFF_STEPS = 8


def off_share(pixels: np.ndarray, reference: np.ndarray) -> float:
    """Share of the pixels that are off by more than OFF_STEPS in a channel, 0…1.

    Args:
        pixels, reference: uint8 of one shape, (H, W, 3) or (H, W, 1).
    """
    difference = np.abs(pixels.astype(np.int16) - reference.astype(np.int16)).max(axis=2)
    return float(np.mean(difference > OFF_STEPS))


def new_structure(pixels: np.ndarray, reference: np.ndarray, original: np.ndarray) -> float:
    """By how much a window of WINDOW² is further from the original in the mean of a channel than the reference is, at
    most over all windows, in 8-bit steps; 0 where none is.

    Grain cancels out in such a window; a coloured comb, a shifted patch or a lost line does not. Where the reference
    shows one that the result has not, that is no fault of the result. A picture smaller than the window is one window.

    Args:
        pixels, reference, original: uint8 of one size; of 3 channels, or where one has 1, that for all.
    """
    off, known = (_window_means(picture, original) for picture in (pixels, reference))
    return max(0.0, float((np.abs(off) - np.abs(known)).max()))


def largest_error(pixels: np.ndarray, original: np.ndarray) -> float:
    """The largest mean error of a channel over a window of WINDOW², 8-bit steps.

    Args:
        pixels, original: uint8 of one size; of 3 channels, or where one has 1, that for all.
    """
    return float(np.abs(_window_means(pixels, original)).max())


def _window_means(picture: np.ndarray, original: np.ndarray) -> np.ndarray:
    """Mean difference over each window, (H - 7, W - 7) or with channels behind."""
    difference = picture.astype(np.float32) - original.astype(np.float32)
    height, width = (min(WINDOW, length) for length in difference.shape[:2])
    means: np.ndarray = cv2.blur(difference, (width, height), anchor=(0, 0), borderType=cv2.BORDER_REFLECT)
    return means[: difference.shape[0] - height + 1, : difference.shape[1] - width + 1]
