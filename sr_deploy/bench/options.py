"""What is timed, how long, and how the device is driven meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple

from sr_deploy.bench.load import LoadOptions
from sr_deploy.core.errors import UsageError
from sr_deploy.core.names import check_name
from sr_deploy.run.settings import DeviceSettings

#: What one sample spans. "compute": compute() and synchronize(), the input already on the device. "enqueue": the
#: host's time until compute() returns; the device is waited for between samples. "end-to-end": upload(), compute() and
#: download(), so both transfers too. trtexec calls them GPU compute time (plus the launch), enqueue time and latency.
SCOPES = ("compute", "enqueue", "end-to-end")

#: "host": the process's clock around the calls. "events": the device's own clock, from an event before the first kernel
#: to one after the last, for the scope compute. "auto": events where the runner has them, else the host.
TIMERS = ("auto", "host", "events")


@dataclass(frozen=True)
class BenchOptions:
    """How long to measure and what. Times are in seconds.

    A measurement ends when both minimums are reached and the median is known to ``precision``, or ``precision_seconds``
    have passed without. The upper bounds win over all: a network that takes a minute for one picture is measured
    ``max_seconds`` long and not ``min_iterations`` often, and the point says so (``cut_short``).

    Attributes:
        scope: one of SCOPES.
        value_range: the value of white in the contract, 1.0 or 255.0; the input is spread evenly over 0…value_range.
        seed: of the input's pseudo-random numbers.
        warmup_iterations, warmup_seconds: the warm-up takes at least both.
        warmup_window: at least so many samples make one of the two windows whose medians are compared.
        warmup_max_seconds: the warm-up ends here even when it is not stable.
        min_iterations, min_seconds: the measurement takes at least both.
        max_iterations, max_seconds: the measurement ends at the first of these.
        precision: wanted half-width of the median's interval, relative to the median; None asks for none.
        confidence: of that interval.
        precision_seconds: so long the measurement goes on for the sake of ``precision``.
        timer: one of TIMERS.
        cuda_graph, wait, streams: see DeviceSettings of run/settings.py.
        preset: name of the published protocol that all this follows, for the record.
        loads: measured after the samples, in this order; see load.py.
    """

    scope: str = "compute"
    value_range: float = 1.0
    seed: int = 0
    warmup_iterations: int = 5
    warmup_seconds: float = 1.0
    warmup_window: int = 5
    warmup_max_seconds: float = 20.0
    min_iterations: int = 10
    min_seconds: float = 3.0
    max_iterations: int = 20000
    max_seconds: float = 60.0
    precision: Optional[float] = 0.01
    confidence: float = 0.95
    precision_seconds: float = 12.0
    timer: str = "auto"
    cuda_graph: bool = False
    wait: str = "auto"
    streams: int = 1
    preset: Optional[str] = None
    loads: Tuple[LoadOptions, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be measured.

        Raises:
            UsageError: an unknown scope or timer, a count below one, a negative time, or a bound below its minimum.
        """
        check_name("timing scope", self.scope, SCOPES)
        check_name("timer", self.timer, TIMERS)
        if self.timer == "events" and self.scope != "compute":
            raise UsageError(
                f"device events cannot time the scope {self.scope}, which is the host's", "--scope compute"
            )
        for name in ("warmup_iterations", "warmup_window", "min_iterations", "max_iterations"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}", "at least 1")
        times = ("warmup_seconds", "warmup_max_seconds", "min_seconds", "max_seconds", "precision_seconds")
        for name in ("value_range", *times):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name} is {getattr(self, name)}", "a number that is not negative")
        if self.loads and self.scope == "enqueue":
            raise UsageError("with the scope enqueue nobody waits for a picture", "a load of compute or end-to-end")
        if self.precision is not None and not 0 < self.precision < 1:
            raise UsageError(f"precision is {self.precision}", "a part of the median, between 0 and 1")
        if not 0.5 <= self.confidence < 1:
            raise UsageError(f"confidence is {self.confidence}", "from 0.5 to below 1")
        for low, high in (
            ("warmup_seconds", "warmup_max_seconds"),
            ("min_iterations", "max_iterations"),
            ("min_seconds", "max_seconds"),
        ):
            if getattr(self, low) > getattr(self, high):
                raise UsageError(
                    f"{low} is {getattr(self, low)} and {high} only {getattr(self, high)}", f"{high} at least {low}"
                )
        self.device_settings()

    def device_settings(self) -> DeviceSettings:
        """What the runner is asked for; raises UsageError."""
        return DeviceSettings(self.cuda_graph, self.wait, self.streams)
