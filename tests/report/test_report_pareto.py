"""The front holds exactly what no other candidate beats."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sr_deploy.report.pareto import pareto_front


@pytest.mark.parametrize(("candidates", "front"), [
    ([], ()),
    ([(1, 30)], (0,)),
    ([(2, 31), (1, 30), (3, 32)], (1, 0, 2)),
    ([(1, 30), (2, 30)], (0,)),
    ([(1, 30), (1, 31)], (1,)),
    ([(1, 30), (1, 30)], (0, 1)),
    ([(1, 30), (2, 29.9), (3, math.inf)], (0, 2)),
])  # fmt: skip
def test_small_cases(candidates, front):
    assert pareto_front(candidates) == front


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12))
def test_front_is_what_is_not_beaten(candidates):
    front = pareto_front(candidates)

    def beaten(one):
        return any(c <= one[0] and g >= one[1] and (c, g) != one for c, g in candidates)

    assert sorted(front) == [i for i, one in enumerate(candidates) if not beaten(one)]
    assert [candidates[i][0] for i in front] == sorted(candidates[i][0] for i in front)
    assert bool(front) == bool(candidates)


def test_nan_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        pareto_front([(1, 30), (math.nan, 31)])
