"""Whether a board can do what it is asked, from what its own ``srdeploy doctor --json`` says."""

from __future__ import annotations

import json
from typing import Any, Dict, Sequence, Tuple

from sr_deploy import __version__
from sr_deploy.core.errors import EnvironmentFault

#: Findings of core/device.py by what a command needs of TensorRT.
BUILD_TENSORRT, RUN_TENSORRT, RUN_CPU = "build TensorRT engines", "run TensorRT engines", "run on the CPU"


def check_doctor(name: str, reply: Dict[str, Any], arguments: Sequence[str]) -> Tuple[str, ...]:
    """Judge the board before anything is copied.

    Args:
        name: the board's.
        reply: of the agent's ``doctor``: ``code``, ``out``, ``err``.
        arguments: of srdeploy there; the first is the command.

    Returns:
        What the user should know: warnings (power mode, numpy) and another version of srdeploy.

    Raises:
        EnvironmentFault: doctor does not run there, or something lacks that this command needs.
    """
    try:
        told = json.loads(reply["out"])
        findings = {finding["what"]: finding for finding in told["findings"]}
        environment = told["environment"]
    except (ValueError, KeyError, TypeError) as error:
        last = (reply["err"].strip().splitlines() or ["no message"])[-1]
        raise EnvironmentFault(
            f"{name}: srdeploy doctor does not run there (exit code {reply['code']}): {last}",
            "a working srdeploy on the board",
            "install it anew there: pip install --force-reinstall 'srdeploy[jetson]'",
        ) from error
    backend = _backend(arguments)
    # A Jetson is there for its GPU: without TensorRT the command would quietly fall back to its processor.
    wants_tensorrt = (backend or "").startswith("tensorrt") or (backend is None and environment.get("jetson"))
    no_tensorrt = findings.get(RUN_TENSORRT, {}).get("level") == "missing"
    for what in _needs(arguments[0], backend, bool(wants_tensorrt), no_tensorrt):
        finding = findings.get(what)
        if finding is not None and finding["level"] == "missing":
            raise EnvironmentFault(
                f"{name} cannot {what}, which {arguments[0]} needs there: {finding['found']}",
                what + (f" (--backend {backend})" if backend else ", or --backend onnxruntime"),
                f"there: {finding['how_to_get']}" if finding["how_to_get"] else "",
            )
    notes = [f"{f['what']}: {f['found']}; {f['how_to_get']}" for f in told["findings"] if f["level"] == "warning"]
    version = environment.get("packages", {}).get("srdeploy")
    if version and version != __version__:
        notes.append(f"srdeploy {version} there, {__version__} here")
    return tuple(notes)


def _needs(command: str, backend: Any, wants_tensorrt: bool, no_tensorrt: bool) -> Tuple[str, ...]:
    if wants_tensorrt:
        return (BUILD_TENSORRT,) if command == "build" else (RUN_TENSORRT,)
    return (RUN_CPU,) if backend == "onnxruntime" or (backend is None and no_tensorrt) else ()


def _backend(arguments: Sequence[str]) -> Any:
    for index, word in enumerate(arguments[:-1]):
        if word == "--backend":
            return arguments[index + 1]
    return None
