"""What a builder timed, kept on disk: a second build for the same GPU does not time the same layers again.

On a Jetson most of a build is timing. TensorRT keeps the timings of one GPU and version in one cache, for all networks,
sizes and precisions; it refuses another's. A cache only saves time, so nothing that is wrong with one stops a build.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any, Optional, Tuple

from sr_deploy.core.artifact import atomic_file
from sr_deploy.core.errors import DiskFull, EnvironmentFault


def cache_path(folder: Path, kind: str, flavour: str, version: str, device: str) -> Path:
    """Where the cache of one GPU and one version lies.

    Args:
        folder: of the engines.
        kind: "timing" or "runtime".
        flavour: "tensorrt" or "tensorrt-rtx".
        version: of TensorRT.
        device: name of the GPU.

    Example:
        >>> cache_path(Path("engines"), "timing", "tensorrt", "8.5.2.2", "NVIDIA Jetson Xavier NX (integrated)").name
        'tensorrt-8.5.2.2_nvidia-jetson-xavier-nx-integrated.timing.cache'
    """
    name = re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
    return Path(folder) / f"{flavour}-{version}_{name}.{kind}.cache"


def attach_timing_cache(config: Any, path: Path) -> Tuple[Optional[Any], Tuple[str, ...]]:
    """Give a build the timings of ``path``, or an empty cache where there are none that TensorRT takes.

    A file that is refused is moved aside, to the same name with ".refused": it may be something else altogether.

    Returns:
        The cache, to be saved after the build (None: TensorRT takes none at all), and what was wrong, in words.
    """
    try:
        stored = path.read_bytes() if path.exists() else b""
    except OSError as error:
        return None, (f"the timing cache {path} cannot be read ({error.strerror}); all is timed, nothing is kept",)
    cache = _taken(config, stored)
    if cache is not None:
        return cache, ()
    aside = path.with_name(path.name + ".refused")
    with contextlib.suppress(OSError):
        path.replace(aside)
    told = f"the timing cache {path} is damaged, or of another TensorRT or GPU"
    return _taken(config, b""), (f"{told}; it is {aside.name} now, and a new one is begun",)


def _taken(config: Any, stored: bytes) -> Optional[Any]:
    """The cache made of these bytes and set, or None when TensorRT refuses it.

    It refuses in three ways: no cache, one that cannot be set, or a warning in its log and one that is empty.
    """
    try:
        cache = config.create_timing_cache(stored)
        if cache is None or not config.set_timing_cache(cache, False):
            return None
        empty = bytes(config.create_timing_cache(b"").serialize()) if stored else stored
        return None if empty and bytes(cache.serialize()) == empty != stored else cache
    except (TypeError, ValueError, RuntimeError):
        # pybind11's exceptions for a null pointer and for what C++ throws.
        return None


def save_timing_cache(cache: Any, path: Path) -> Tuple[str, ...]:
    """Write the timings; the file is whole or unchanged. Gives what was wrong, in words."""
    try:
        with atomic_file(path) as temporary:
            temporary.write_bytes(bytes(cache.serialize()))
    except (DiskFull, EnvironmentFault) as error:
        return (f"the timing cache was not kept: {error.found}",)
    return ()
