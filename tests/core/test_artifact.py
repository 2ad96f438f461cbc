"""Places that cannot be written are the environment's fault, never a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from sr_deploy.core.artifact import atomic_file, atomic_folder
from sr_deploy.core.errors import EnvironmentFault


@pytest.mark.parametrize("place", [atomic_file, atomic_folder])
@pytest.mark.parametrize("target", ["/proc/x", "/proc/x/y/z"])
def test_proc_takes_no_file_and_no_folder(place, target):
    with pytest.raises(EnvironmentFault, match=f"cannot write {target}"), place(Path(target)):
        pass


def test_a_missing_file_elsewhere_is_not_blamed_on_the_target(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "a" / "b.json"):
        (tmp_path / "other" / "c.json").read_text()
