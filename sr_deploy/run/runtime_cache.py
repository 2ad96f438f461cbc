"""Kernels that TensorRT-RTX compiled on this machine, kept for the next start.

TensorRT-RTX compiles an engine's kernels when it first runs, for the GPU at hand. It takes the result of an earlier
start of the same GPU, version and driver, and refuses any other; then it compiles again. Not run on a GPU: written
against the docstrings of TensorRT-RTX 1.7.1.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Optional

from sr_deploy.core.artifact import atomic_file
from sr_deploy.core.errors import DiskFull, EnvironmentFault


class RuntimeCache:
    """One file of compiled kernels.

    Attributes:
        state: "none" (the flavour has no such cache), "new", "read" or "refused" (a new one replaces it).
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.state = "none"
        self._kernels: Optional[Any] = None
        self._stored = b""

    def load(self, kernels: Any) -> None:
        """Fill an empty ``IRuntimeCache`` from the file; warns of one that is refused. The CUDA context is current."""
        self._kernels, self.state = kernels, "new"
        try:
            self._stored = self.path.read_bytes() if self.path.exists() else b""
            taken = not self._stored or kernels.deserialize(self._stored)
        except (OSError, RuntimeError, TypeError, ValueError):
            taken = False
        if self._stored:
            self.state = "read" if taken else "refused"
        if not taken:
            why = "it cannot be read, is damaged, or is of another version, GPU or driver"
            warnings.warn(f"the runtime cache {self.path} is refused: {why}; a new one is begun", stacklevel=2)

    def save(self) -> None:
        """Write what was compiled, when that is more than was read; warns when it cannot be written."""
        if self._kernels is None:
            return
        compiled = bytes(self._kernels.serialize())
        self._kernels = None
        if not compiled or compiled == self._stored:
            return
        try:
            with atomic_file(self.path) as temporary:
                temporary.write_bytes(compiled)
        except (DiskFull, EnvironmentFault) as error:
            warnings.warn(f"the runtime cache was not kept: {error.found}", stacklevel=2)
