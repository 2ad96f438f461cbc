"""Names that users give are held against those that exist."""

from __future__ import annotations

import pytest

from sr_deploy.core.errors import UsageError
from sr_deploy.core.names import check_name, row_named
from sr_deploy.graph.target import TARGETS


def test_a_name_that_is_there():
    check_name("precision", "int8", ("fp16", "int8"))
    assert row_named("target", "orin", TARGETS).name == "orin"


@pytest.mark.parametrize(
    ("name", "todo", "proposed"),
    [
        ("imt8", "", "perhaps int8"),
        ("INT8", "", "perhaps int8"),
        ("fp1", "", "perhaps fp16"),
        ("int9", "", ""),
        ("fp8", "", ""),
        ("zzz", "", ""),
        ("imt8", "see --help", "see --help"),
        ("", "", ""),
    ],
)
def test_one_that_is_not_is_refused_with_what_is_alike(name, todo, proposed):
    with pytest.raises(UsageError) as caught:
        check_name("precision", name, ("fp16", "int8"), todo)
    error = caught.value
    assert (error.found, error.wanted, error.todo) == (f"there is no precision {name!r}", "one of fp16, int8", proposed)


def test_a_row_that_is_not_names_the_table():
    with pytest.raises(UsageError, match="one of any, xavier-nx, orin"):
        row_named("target", "xavier", TARGETS)
