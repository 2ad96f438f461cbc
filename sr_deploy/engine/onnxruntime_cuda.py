"""ONNX Runtime's CUDA provider: when it is taken, its libraries, TensorFloat-32, and what its failures mean."""

from __future__ import annotations

import contextlib
import io
import os
import re
from typing import Any, Optional, Sequence, Tuple

from sr_deploy.core.errors import EnvironmentFault
from sr_deploy.core.host.install import pip_install
from sr_deploy.core.host.machine import this_machine

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"

#: TensorFloat-32 off, as for TensorRT: its 10-bit mantissa is not the float32 that the graph was proved with.
CUDA_OPTIONS = {"use_tf32": "0"}

#: What only CUDA, cuDNN and their libraries say.
_CUDA_FAULT = re.compile(r"\bCUDA\b (failure|error)|CUDNN_|CUBLAS_|libcu\w+\.so|use_tf32", re.IGNORECASE)


def default_provider(here: Sequence[str]) -> Tuple[str, str]:
    """The provider to take where none is asked for, and why: CUDA where this build has it and there is a GPU.

    Args:
        here: the providers of this build.

    CUDA_VISIBLE_DEVICES without a device (empty, or -1) asks for the CPU, as it does of every CUDA program.
    """
    if CUDA not in here:
        return CPU, f"this build of ONNX Runtime has no {CUDA}"
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return CPU, "CUDA_VISIBLE_DEVICES hides every GPU"
    if not this_machine().gpus:
        return CPU, "this machine has no NVIDIA GPU"
    return CUDA, "the fastest provider here"


def preload_cuda(ort: Any) -> str:
    """Load the CUDA and cuDNN that pip installed, which no search path names.

    ONNX Runtime has ``preload_dlls`` for it from 1.21 on. It raises nothing: what it could not load it prints, and that
    is given back for the message of the session that then does not start.
    """
    preload = getattr(ort, "preload_dlls", None)
    said = io.StringIO()
    if preload is not None:
        with contextlib.redirect_stdout(said):
            preload()
    return " ".join(said.getvalue().split())


def is_cuda_fault(text: str) -> bool:
    """Whether this message is of CUDA or its libraries, not of the graph."""
    return bool(_CUDA_FAULT.search(text))


def no_start(provider: str, text: str, preloaded: str) -> EnvironmentFault:
    """The error of a provider that does not start; ``preloaded`` is from ``preload_cuda``."""
    return EnvironmentFault(
        f"{provider} does not start on this machine; {text}" + (f" ({preloaded})" if preloaded else ""),
        "an NVIDIA driver, and the CUDA and cuDNN that this onnxruntime-gpu (1.18 or newer) was built for",
        f"{pip_install('onnxruntime-gpu')} brings them (see srdeploy doctor); CUDA_VISIBLE_DEVICES= for the CPU",
    )


def tf32_of(session: Any) -> Optional[str]:
    """ "on" or "off" as the session itself tells; None where it computes without CUDA or does not tell."""
    told = session.get_provider_options().get(CUDA, {}).get("use_tf32")
    return {"0": "off", "1": "on"}.get(str(told))
