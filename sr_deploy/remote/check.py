"""Whether a board can do what it is asked, from what its own ``srdeploy doctor --json`` says."""

from __future__ import annotations

from typing import Any, Sequence, Tuple

from sr_deploy import __version__
from sr_deploy.core.errors import BadInput, EnvironmentFault
from sr_deploy.core.schema import value_from
from sr_deploy.core.text import log_line
from sr_deploy.engine.runtimes import GRAPH_RUNTIME, RUNTIMES
from sr_deploy.remote.replies import Doctor, DoctorReport

#: Findings of core/host/device.py by what a command needs of TensorRT.
BUILD_TENSORRT, RUN_TENSORRT, RUN_CPU = "build TensorRT engines", "run TensorRT engines", "run on the CPU"


def check_doctor(name: str, reply: Doctor, arguments: Sequence[str]) -> Tuple[str, ...]:
    """Judge the board before anything is copied.

    Args:
        name: the board's.
        reply: of the agent's ``doctor``.
        arguments: of srdeploy there; the first is the command.

    Returns:
        What the user should know: warnings (power mode, numpy) and another version of srdeploy.

    Raises:
        EnvironmentFault: doctor does not run there, or something lacks that this command needs.
    """
    try:
        told = value_from(DoctorReport, reply.out, f"{name}: what doctor prints", said_as="report of srdeploy doctor")
    except BadInput as error:
        last = (reply.err.strip().splitlines() or [error.found])[-1]
        raise EnvironmentFault(
            f"{name}: srdeploy doctor does not run there (exit code {reply.code}): {log_line(last[:1000])}",
            "a working srdeploy on the board",
            "install it anew there: pip install --force-reinstall 'srdeploy[jetson]'",
        ) from error
    findings = {finding.what: finding for finding in told.findings}
    backend = _backend(arguments)
    # A Jetson is there for its GPU: without TensorRT the command would quietly fall back to its processor.
    asked = RUNTIMES.get(backend)
    wants_tensorrt = (asked is not None and asked.for_one_gpu) or (backend is None and bool(told.environment.jetson))
    no_tensorrt = RUN_TENSORRT in findings and findings[RUN_TENSORRT].level == "missing"
    for what in _needs(arguments[0], backend, wants_tensorrt, no_tensorrt):
        finding = findings.get(what)
        if finding is not None and finding.level == "missing":
            raise EnvironmentFault(
                f"{name} cannot {what}, which {arguments[0]} needs there: {finding.found}",
                what + (f" (--backend {backend})" if backend else ", or --backend onnxruntime"),
                f"there: {finding.how_to_get}" if finding.how_to_get else "",
            )
    notes = [f"{f.what}: {f.found}; {f.how_to_get}" for f in told.findings if f.level == "warning"]
    version = told.environment.packages.srdeploy
    if version and version != __version__:
        notes.append(f"srdeploy {version} there, {__version__} here")
    return tuple(notes)


def _needs(command: str, backend: Any, wants_tensorrt: bool, no_tensorrt: bool) -> Tuple[str, ...]:
    if wants_tensorrt:
        return (BUILD_TENSORRT,) if command == "build" else (RUN_TENSORRT,)
    return (RUN_CPU,) if backend == GRAPH_RUNTIME or (backend is None and no_tensorrt) else ()


def _backend(arguments: Sequence[str]) -> Any:
    for index, word in enumerate(arguments[:-1]):
        if word == "--backend":
            return arguments[index + 1]
    return None
