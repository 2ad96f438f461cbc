"""Percentiles that were measured."""

from __future__ import annotations

from typing import Sequence


def nearest_rank(samples: Sequence[float], percent: int) -> float:
    """The smallest sample that at least ``percent`` percent of all samples do not exceed (``percent`` in 1…100)."""
    return sorted(samples)[-(-percent * len(samples) // 100) - 1]
