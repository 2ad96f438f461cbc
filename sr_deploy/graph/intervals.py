"""Intervals of rows (or columns) of a picture, one for each element of a tensor: see depends.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence, Tuple

import numpy as np

#: The interval of what depends on nothing: joined with any other it gives the other.
NOWHERE = 1 << 30


@dataclass(frozen=True)
class Depends:
    """Of each element of a tensor the first and the last row (or column) of the picture that it depends on.

    Attributes:
        first, last: int32; an axis along which nothing changes may have length 1. NOWHERE and -NOWHERE where an element
            depends on nothing.
        shape: of the tensor.
    """

    first: np.ndarray
    last: np.ndarray
    shape: Tuple[int, ...]

    @property
    def extent(self) -> int:
        """Rows from the first to the last, of the element that depends on most."""
        return int(np.max(self.last - self.first, initial=-1)) + 1

    def joined(self, axes: Tuple[int, ...]) -> Depends:
        """All along some axes joined into one element each, which keeps its axis."""
        shape = tuple(1 if axis in axes else length for axis, length in enumerate(self.shape))
        if not axes:
            return self
        return Depends(self.first.min(axis=axes, keepdims=True), self.last.max(axis=axes, keepdims=True), shape)

    def expanded(self, axes: Sequence[int]) -> Depends:
        """With the full length of some axes."""
        seen = tuple(
            length if axis in axes else have for axis, (length, have) in enumerate(zip(self.shape, self.first.shape))
        )
        return Depends(np.broadcast_to(self.first, seen), np.broadcast_to(self.last, seen), self.shape)

    def compact(self) -> Depends:
        """The same, with length 1 for the axes along which nothing changes."""
        first, last = self.first, self.last
        for axis in range(first.ndim):
            if first.shape[axis] > 1 and not np.any(np.diff(first, axis=axis)) and not np.any(np.diff(last, axis=axis)):
                first, last = first.take([0], axis), last.take([0], axis)
        return Depends(first, last, self.shape)

    def places(self) -> Tuple[int, ...]:
        """The axes along which the place in the picture changes, counted from the end (-1 is the last)."""
        rank = len(self.shape)
        return tuple(
            axis - rank
            for axis in range(rank)
            if self.first.shape[axis] > 1 and bool(np.any(self.first.max(axis=axis) > self.last.min(axis=axis)))
        )


def union(several: Sequence[Depends], shape: Tuple[int, ...]) -> Depends:
    """Joined element by element, broadcast to a shape."""
    first = last = None
    for one in several:
        seen = (1,) * (len(shape) - one.first.ndim) + one.first.shape
        ends = one.first.reshape(seen), one.last.reshape(seen)
        first = ends[0] if first is None else np.minimum(first, ends[0])
        last = ends[1] if last is None else np.maximum(last, ends[1])
    assert first is not None and last is not None, "something is joined"
    return Depends(first, last, shape)
