"""How to reach a TensorRT and hear what it says: importing a flavour, and its one logger.

Used to build (engine/tensorrt.py) and to run (run/tensorrt.py).
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import re
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from typing_extensions import Literal

from sr_deploy.core.errors import MissingPackage
from sr_deploy.core.host.install import pip_install
from sr_deploy.core.names import check_name
from sr_deploy.core.signals import held_back
from sr_deploy.engine.listing_parse import is_listing

FlavourName = Literal["tensorrt", "tensorrt-rtx"]

#: Flavour (as ``--backend`` names it) → import names, the usual one first; the RTX bindings alone do as well.
MODULES: Dict[FlavourName, Tuple[str, ...]] = {
    "tensorrt": ("tensorrt",),
    "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}

#: The builder's own account of device memory, in bytes.
_MEMORY = re.compile(r"Total (Activation|Weights) Memory: (\d+)")

#: Told the builder's phase, the steps done and the steps in all.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Flavour:
    """A TensorRT that imports here: ``name`` is "tensorrt" or "tensorrt-rtx"."""

    name: str
    version: str


def flavours() -> Tuple[Flavour, ...]:
    """The TensorRT flavours that import on this machine. Raises nothing."""
    found = ((name, flavour_version(name)) for name in MODULES)
    return tuple(Flavour(name, version) for name, version in found if version is not None)


def flavour_version(flavour: str) -> Optional[str]:
    """Version of a flavour; None when it does not import."""
    try:
        return str(import_flavour(flavour).__version__)
    except MissingPackage:
        return None


def check_flavour(flavour: str) -> FlavourName:
    """The flavour; raises UsageError where there is no such one."""
    return check_name("TensorRT flavour", flavour, MODULES)


def tensorrt_version() -> Optional[str]:
    """Version of TensorRT; None when it does not import."""
    return flavour_version("tensorrt")


def tensorrt_rtx_version() -> Optional[str]:
    """Version of TensorRT-RTX; None when it does not import."""
    return flavour_version("tensorrt-rtx")


def import_flavour(flavour: str) -> Any:
    """The Python module of a flavour.

    Raises:
        UsageError: there is no such flavour.
        MissingPackage: it is not installed, or its libraries do not load.
    """
    modules = MODULES[check_flavour(flavour)]
    problems = []
    for module in modules:
        try:
            with held_back():
                trt = importlib.import_module(module)
            trt.Builder  # noqa: B018 - a half-removed installation imports as an empty namespace
        except Exception as error:
            # Besides ImportError: OSError of a missing library, AttributeError of np.bool (8.5 with numpy 1.24), ….
            problems.append(f"{type(error).__name__}: {error}")
        else:
            return trt
    raise MissingPackage(
        f"{flavour} does not import: {problems[0]}",
        f"the Python module {modules[0]}",
        f"see srdeploy doctor; on a Jetson it comes with JetPack, elsewhere {pip_install(flavour)}",
    )


@dataclass
class Messages:
    """What TensorRT said during one piece of work: (severity, text), without the verbose chatter; and what of that is
    wanted: device memory in bytes by kind, and the messages that list the engine's layers."""

    lines: List[Tuple[str, str]] = dataclasses.field(default_factory=list)
    memory: Dict[str, int] = dataclasses.field(default_factory=dict)
    listings: List[str] = dataclasses.field(default_factory=list)

    def errors(self) -> List[str]:
        """The error messages, in order."""
        return [text for severity, text in self.lines if severity in ("ERROR", "INTERNAL_ERROR")]

    def warnings(self) -> Tuple[str, ...]:
        """The warnings, each once."""
        return tuple(dict.fromkeys(text for severity, text in self.lines if severity == "WARNING"))

    def explain(self) -> str:
        """The errors in one line; a graph's fault is told first, follow-up errors after it."""
        return " | ".join(" ".join(text.split()) for text in self.errors()[:4]) or "TensorRT gave no reason"


@functools.lru_cache(maxsize=None)
def logger_of(flavour: str) -> Any:
    """The logger of a flavour. One per process: TensorRT ignores a second one while objects of the first live."""
    trt = import_flavour(flavour)

    class Collector(trt.ILogger):  # type: ignore[misc, name-defined]
        """Keeps messages for ``collected``."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.messages = Messages()

        def log(self, severity: Any, text: str) -> None:
            """Called by TensorRT from any thread."""
            found = _MEMORY.search(text)
            if found:
                kind, size = found.group(1), int(found.group(2))
                self.messages.memory[kind] = max(size, self.messages.memory.get(kind, 0))
            if severity != trt.ILogger.VERBOSE:
                self.messages.lines.append((severity.name, text))
            elif is_listing(text):
                self.messages.listings.append(text)

    return Collector()


@contextlib.contextmanager
def collected(flavour: str) -> Iterator[Messages]:
    """Collect what TensorRT says inside the block."""
    logger = logger_of(flavour)
    logger.messages = Messages()
    yield logger.messages


def monitor_of(trt: Any, progress: Optional[Progress]) -> Optional[Any]:
    """A progress monitor that calls ``progress``; None without one, or where the flavour has none (before 10.0)."""
    if progress is None or not hasattr(trt, "IProgressMonitor"):
        return None
    tell = progress

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # a class that only the installed TensorRT has
        """An exception must not cross TensorRT's frames: it is kept, the build is stopped, and it is raised after."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: Dict[str, int] = {}
            self.failure: Optional[BaseException] = None

        def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None:
            """A phase begins."""
            self.steps[phase_name] = num_steps
            self._tell(phase_name, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            """One step is done; False stops the build."""
            self._tell(phase_name, step + 1)
            return self.failure is None

        def phase_finish(self, phase_name: str) -> None:
            """A phase ends."""
            self._tell(phase_name, self.steps.pop(phase_name, 0))

        def _tell(self, phase_name: str, done: int) -> None:
            if self.failure is None:
                try:
                    tell(phase_name, done, self.steps.get(phase_name, done))
                except BaseException as error:
                    # Also KeyboardInterrupt: it is raised again as soon as the builder has returned.
                    self.failure = error

    return Monitor()
