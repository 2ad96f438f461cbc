"""What modules inside of a network give while it runs, for losses that compare features."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Callable, List, Sequence, Tuple

from torch import Tensor, nn

from sr_deploy.core.errors import UsageError

#: So many features are compared where nothing is said: of DSCLoRA, after FAKD, three.
DEFAULT_COUNT = 3


@dataclass(frozen=True)
class FeaturePairs:
    """Modules of the student and of the teacher that are compared, one by one.

    Attributes:
        student, teacher: names as ``named_modules`` has them, as many of each.
    """

    student: Tuple[str, ...]
    teacher: Tuple[str, ...]


class Watched:
    """The outputs of some modules of a network in its last run.

    Args:
        network: the network.
        names: of the modules.

    Raises:
        UsageError: a name that no module has; the message names some that are there.
    """

    def __init__(self, network: nn.Module, names: Sequence[str]) -> None:
        modules = dict(network.named_modules())
        for name in names:
            if name not in modules:
                raise UsageError(
                    f"--features: there is no module {name!r}",
                    "one of " + ", ".join(list(modules)[1:12]) + ", …",
                    "--features STUDENT_MODULE=TEACHER_MODULE, once for each pair",
                )
        self.names = tuple(names)
        self._last: List[Any] = [None] * len(names)
        for index, name in enumerate(names):
            modules[name].register_forward_hook(self._keeper(index))

    def features(self) -> List[Tensor]:
        """Of each module what it gave last, (N, C, H, W); of several outputs the first.

        Raises:
            UsageError: a module did not run, or gives no feature map.
        """
        found = []
        for name, output in zip(self.names, self._last):
            first = output[0] if isinstance(output, (tuple, list)) and output else output
            if not isinstance(first, Tensor) or first.dim() != 4:
                shape = tuple(first.shape) if isinstance(first, Tensor) else type(first).__name__
                raise UsageError(
                    f"--features: {name} gives {shape}", "a module whose output is (N, C, H, W)", "name another module"
                )
            found.append(first)
        return found

    def _keeper(self, index: int) -> Callable[[nn.Module, Any, Any], None]:
        def keep(_: nn.Module, __: Any, output: Any) -> None:
            self._last[index] = output

        return keep


def spread_over(network: nn.Module, pattern: str, count: int) -> Tuple[str, ...]:
    """``count`` of the modules whose names fit a pattern, evenly spread and with the last one; () where none fit."""
    names = [name for name, _ in network.named_modules() if pattern and re.fullmatch(pattern, name)]
    count = min(count, len(names))
    return tuple(names[round((index + 1) * len(names) / count) - 1] for index in range(count))


def pairs_of(texts: Sequence[str]) -> FeaturePairs:
    """What ``--features`` says: ``STUDENT=TEACHER`` each.

    Raises:
        UsageError: another form.
    """
    pairs = [text.partition("=") for text in texts]
    if not all(student and teacher for student, _, teacher in pairs):
        raise UsageError(
            f"--features {' '.join(texts)} names no pairs",
            "STUDENT_MODULE=TEACHER_MODULE",
            "such as --features cells.3=cells.3",
        )
    return FeaturePairs(tuple(one for one, _, _ in pairs), tuple(other for _, _, other in pairs))


def default_pairs(student: nn.Module, teacher: nn.Module, patterns: Tuple[str, str]) -> FeaturePairs:
    """As many features of both as there are, at most ``DEFAULT_COUNT``, evenly spread over their depth.

    Args:
        patterns: regular expressions of the names of modules, of the student and of the teacher.

    Raises:
        UsageError: of one of them no module is known.
    """
    counts = [len(spread_over(net, pattern, 1 << 30)) for net, pattern in zip((student, teacher), patterns)]
    count = min(DEFAULT_COUNT, *counts)
    if count == 0:
        whose = "student" if counts[0] == 0 else "teacher"
        raise UsageError(
            f"losses of features are asked for, and it is not known which modules of the {whose} to compare",
            "names of modules",
            "--features STUDENT_MODULE=TEACHER_MODULE, once for each pair",
        )
    return FeaturePairs(spread_over(student, patterns[0], count), spread_over(teacher, patterns[1], count))
