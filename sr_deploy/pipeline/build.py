"""Graph to engines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Callable, List, Optional, Tuple

from sr_deploy.core.contract import Size, format_size
from sr_deploy.core.deployment import Deployment, open_deployment
from sr_deploy.core.errors import UsageError
from sr_deploy.engine.manifest import EngineManifest
from sr_deploy.pipeline.runner import check_backend

#: What a dynamic engine takes when only some of its three sizes are given: (height, width).
DEFAULT_SIZE: Size = (360, 640)


@dataclass(frozen=True)
class BuildOptions:
    """What ``srdeploy build`` is asked for.

    Attributes:
        deployment: the folder.
        backend: onnxruntime, tensorrt or tensorrt-rtx; None takes the best this machine has.
        sizes: one engine of a fixed input for each (height, width).
        profile: (minimum, optimum, maximum) input of one dynamic engine; excludes ``sizes``.
        compute_capabilities: for which GPUs, as "8.6"; one engine each; empty takes this machine's GPU.
        workspace_bytes: limit of the builder's workspace; None leaves it to TensorRT.
        force: replace engines that exist.
    """

    deployment: Path
    backend: Optional[str] = None
    sizes: Tuple[Size, ...] = ()
    profile: Optional[Tuple[Optional[Size], Optional[Size], Optional[Size]]] = None
    compute_capabilities: Tuple[str, ...] = ()
    workspace_bytes: Optional[int] = None
    force: bool = False
