"""Which channels must stay or go together: a union-find over numbers, one number a channel of a tensor."""

from __future__ import annotations

from typing import List, Optional

import numpy as np

#: The class of all channels that must stay: those of the picture, and what an operator ties to them.
FROZEN = 0


class Labels:
    """Classes of channels. A label is a number; labels of one class stay or go together."""

    def __init__(self) -> None:
        self._parent: List[int] = [FROZEN]

    def fresh(self, count: int) -> np.ndarray:
        """Labels of ``count`` channels that are tied to nothing yet, int64 (count,)."""
        first = len(self._parent)
        self._parent.extend(range(first, first + count))
        return np.arange(first, first + count)

    def find(self, labels: np.ndarray) -> np.ndarray:
        """The class of each label: one of its labels, the same for all of them; FROZEN for those that must stay."""
        return np.array([self._root(int(label)) for label in labels.reshape(-1)], np.int64).reshape(labels.shape)

    def unite(self, first: np.ndarray, second: np.ndarray) -> None:
        """Tie two tensors' channels to each other, one by one; the shapes are the same."""
        for one, other in zip(first.reshape(-1), second.reshape(-1)):
            low, high = sorted((self._root(int(one)), self._root(int(other))))
            self._parent[high] = low

    def freeze(self, labels: Optional[np.ndarray]) -> None:
        """These channels must stay."""
        if labels is not None:
            self.unite(labels, np.full(labels.shape, FROZEN))

    def _root(self, label: int) -> int:
        while self._parent[label] != label:
            self._parent[label] = self._parent[self._parent[label]]
            label = self._parent[label]
        return label
