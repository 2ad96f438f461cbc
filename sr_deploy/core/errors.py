"""The error tree. Every error a user can cause says what was found, what was wanted and what to do next.

Exit codes: 0 good, 1 a check failed, 2 usage, 3 environment, 4 bad input, 5 measurement inconclusive.
"""

from __future__ import annotations

from typing import List


class SrDeployError(Exception):
    """A failure with an explanation, printed without a traceback.

    Args:
        found: what is wrong, naming the file, tensor, node or value.
        wanted: what would have been right.
        todo: what the user can do next, as a command where there is one.
    """

    exit_code = 1

    def __init__(self, found: str, wanted: str = "", todo: str = "") -> None:
        self.found, self.wanted, self.todo = found, wanted, todo
        super().__init__("\n".join(self.lines()))

    def lines(self) -> List[str]:
        """The message as lines: what was found, then what was wanted, then what to do."""
        out = [self.found]
        if self.wanted:
            out.append(f"wanted: {self.wanted}")
        if self.todo:
            out.append(f"next:   {self.todo}")
        return out


class CheckFailed(SrDeployError):
    """The work was done and its result is not good enough: a proof, a parity or a quality check failed."""

    exit_code = 1


class UsageError(SrDeployError):
    """The command line or an option file asks for something that does not exist or contradicts itself."""

    exit_code = 2


class EnvironmentFault(SrDeployError):
    """This machine lacks something: a package, a GPU, memory, a writable place."""

    exit_code = 3


class MissingPackage(EnvironmentFault):
    """A Python package that this command needs is not installed."""


class DiskFull(EnvironmentFault):
    """Nothing more can be written; what was there before is unchanged."""


class BadInput(SrDeployError):
    """A file or folder given by the user cannot be used as what it was given for."""

    exit_code = 4


class BadCheckpoint(BadInput):
    """A checkpoint that cannot be read, or whose tensors do not fit the network."""


class UnknownArchitecture(BadCheckpoint):
    """The tensors belong to no architecture that is known here."""


class BadImage(BadInput):
    """A picture that cannot be read, or has the wrong colour, depth or size."""


class BadDeployment(BadInput):
    """A deployment folder, graph or manifest that is missing, altered or unreadable."""


class ForeignEngine(BadInput):
    """An engine built for another device, runtime version or graph."""


class Inconclusive(SrDeployError):
    """The measurement does not allow a verdict."""

    exit_code = 5
