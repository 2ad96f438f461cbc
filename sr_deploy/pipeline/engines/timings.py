"""The timing cache of a deployment's builds: which file."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

from sr_deploy.core.deployment.manifest import Deployment
from sr_deploy.core.errors import UsageError
from sr_deploy.engine.runtimes import RUNTIMES

#: Asked for in place of a file: time every layer, keep nothing.
NONE = Path("none")


def check_timings(backend: str, asked: Optional[Path]) -> None:
    """Raises UsageError for a file of timings where the builder takes none."""
    if not RUNTIMES[backend].times_layers and asked is not None:
        raise UsageError(f"{backend} times nothing while it builds", "--timing-cache with --backend tensorrt only")


def timings_file(deployment: Deployment, backend: str, asked: Optional[Path] = None) -> Optional[Path]:
    """The timing cache of a build for this machine's GPU; None where the builder has none, or shall not use one.

    Args:
        deployment: in whose ``engines`` it lies.
        backend: of the build.
        asked: another file, or NONE.

    Raises:
        EnvironmentFault: there is no GPU to build for.
    """
    from sr_deploy.engine.flavour import import_flavour
    from sr_deploy.engine.tensorrt import targets_of
    from sr_deploy.engine.timing_cache import cache_path

    if not RUNTIMES[backend].times_layers or asked == NONE:
        return None
    if asked is not None:
        return asked
    device, version = targets_of(backend)[1], import_flavour(backend).__version__
    return cache_path(deployment.engines_folder, "timing", backend, version, device or "gpu")
