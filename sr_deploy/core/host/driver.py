"""Whether the NVIDIA driver is new enough for the packages that are installed: by the CUDA that each was made for.

A package of CUDA 13 on a driver of CUDA 12 fails with cudaErrorInsufficientDriver at its first call, long after it was
installed; packages of an older CUDA run on every newer driver.
"""

from __future__ import annotations

import importlib.metadata
import re
from typing import Dict, Mapping, Optional, Sequence

#: Major release of CUDA → the oldest driver branch that runs it. NVIDIA, "CUDA compatibility", table of minor version
#: compatibility: https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html
OLDEST_DRIVER = {11: 450, 12: 525, 13: 580}

#: Distributions that call CUDA, where their name or their version, or one that they require, tells its major release.
CUDA_PACKAGES = (
    "tensorrt",
    "tensorrt-cu12",
    "tensorrt-cu13",
    "tensorrt-rtx",
    "tensorrt-rtx-cu12",
    "tensorrt-rtx-cu13",
    "cuda-python",
    "cuda-bindings",
    "onnxruntime-gpu",
)
#: Their version is CUDA's.
_BINDINGS = ("cuda-python", "cuda-bindings")


def cuda_of(distribution: str) -> Optional[int]:
    """The major release of CUDA that an installed distribution was made for; None when nothing tells."""
    try:
        found = importlib.metadata.distribution(distribution)
        version, needed = found.version, found.requires or []
    except Exception:
        # PackageNotFoundError, or one of several errors that damaged metadata of somebody else's package gives.
        return None
    return cuda_in(distribution, version, needed)


def cuda_in(name: str, version: str, needed: Sequence[str]) -> Optional[int]:
    """The same from the metadata: a distribution's name, version and ``Requires-Dist`` lines.

    Example:
        >>> cuda_in("tensorrt", "11.4.0.106", ["tensorrt_cu13==11.4.0.106"])
        13
        >>> cuda_in("onnxruntime-gpu", "1.31.1", ['nvidia-cuda-runtime~=13.0; extra == "cuda"'])
        13
        >>> cuda_in("cuda-python", "12.9.10", [])
        12
    """
    if name in _BINDINGS:
        return int(version.split(".")[0]) if version.split(".")[0].isdigit() else None
    for text in (name, *needed):
        found = re.match(r"[\w.-]+?[-_]cu(\d\d)\b", text) or re.match(r"nvidia-cuda-runtime\W*(\d\d)\.", text)
        if found:
            return int(found.group(1))
    return None


def cuda_packages() -> Dict[str, int]:
    """Major release of CUDA of each distribution of CUDA_PACKAGES that is installed and tells it."""
    found = {name: cuda_of(name) for name in CUDA_PACKAGES}
    return {name: cuda for name, cuda in found.items() if cuda is not None}


def newest_cuda(driver: Optional[str]) -> Optional[int]:
    """The newest major release of CUDA that a driver runs, such as 12 for "550.54.14"; 0 for one older than all here.

    None when the driver's version is not known.
    """
    branch = re.match(r"(\d+)", driver or "")
    if not branch:
        return None
    return max((cuda for cuda, oldest in OLDEST_DRIVER.items() if int(branch.group(1)) >= oldest), default=0)


def too_new(packages: Mapping[str, int], driver: Optional[str]) -> Dict[str, int]:
    """Those of ``packages`` (name → CUDA) that a driver cannot run; none when its version is not known."""
    newest = newest_cuda(driver)
    return {} if newest is None else {name: cuda for name, cuda in packages.items() if cuda > newest}
