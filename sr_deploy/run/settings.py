"""How a device is driven while it is timed. trtexec changed its defaults in version 11, so nothing here is implied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from sr_deploy.core.errors import UsageError
from sr_deploy.core.names import check_name

#: "auto" leaves it to CUDA: it spins while there are more processors than contexts.
WAITS = ("auto", "spin", "block")


@dataclass(frozen=True)
class DeviceSettings:
    """What a measurement asks of a runner beyond its defaults.

    Attributes:
        cuda_graph: launch one captured graph instead of one kernel after the other.
        wait: how the host waits for the device, one of WAITS.
        streams: how many streams run at once; the runs of one follow each other.
    """

    cuda_graph: bool = False
    wait: str = "auto"
    streams: int = 1

    def __post_init__(self) -> None:
        """Refuse what no runner can do.

        Raises:
            UsageError: another way to wait, or no stream.
        """
        check_name("wait", self.wait, WAITS)
        if self.streams < 1:
            raise UsageError(f"{self.streams} streams cannot run anything", "1")


def refuse_settings(
    settings: DeviceSettings, runner: str, cuda_graph: bool = False, wait: bool = False, why: Optional[str] = None
) -> None:
    """Refuse what a runner cannot do; the flags say what it can.

    Args:
        settings: what is asked for.
        runner: how the message calls the runner.
        cuda_graph, wait: whether it can capture graphs, and choose how to wait.
        why: one more sentence for the user.

    Raises:
        UsageError: naming the first setting that it cannot do.
    """
    asked = (
        (settings.cuda_graph and not cuda_graph, "a CUDA graph"),
        (settings.wait != "auto" and not wait, f"the wait {settings.wait!r}"),
        (settings.streams != 1, f"{settings.streams} streams"),
    )
    for refused, what in asked:
        if refused:
            raise UsageError(
                f"{runner} cannot be timed with {what}",
                "settings that this runtime has; it uses one stream" if settings.streams != 1 else "the defaults",
                why or "leave the option out, or time a TensorRT engine",
            )
