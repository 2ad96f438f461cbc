"""What a board may say: one description for every reply of the agent, and for the files that it writes for the PC.

A board is another's machine. Every word from it is read through these descriptions (core/schema.py); text that is
only shown is made harmless while it is read, so that nobody can forget to.
"""

from __future__ import annotations

import os
import urllib.parse
from dataclasses import dataclass
from typing import Any, ClassVar, Dict, Optional, Tuple

from pydantic import AfterValidator, Field
from typing_extensions import Annotated, Literal

from sr_deploy.core.confine import Identifier
from sr_deploy.core.quality.metrics import figure_types
from sr_deploy.core.schema import Count, Seconds, Sha256, described, described_in_part, with_fields
from sr_deploy.core.text import log_line

#: Text for people, one printable line.
Shown = Annotated[str, Field(max_length=1000), AfterValidator(log_line)]
#: A path on the board: absolute, without control characters.
BoardPath = Annotated[str, Field(max_length=4000, pattern=r"^/[^\x00-\x1f\x7f]*$")]
#: A path with its bytes written as in a URL, so that a name need not be UTF-8; NUL cannot be in it.
Quoted = Annotated[str, Field(max_length=12000, pattern=r"^(?:[A-Za-z0-9._~/-]|%[1-9A-F][0-9A-F]|%0[1-9A-F])+$")]
Word = Annotated[str, Field(max_length=4000, pattern=r"^[^\x00]*$")]
#: A word without spaces and markup.
Token = Annotated[str, Field(max_length=100, pattern=r"^[A-Za-z0-9_.+-]*$")]
#: An exit status, or minus a signal's number.
ExitCode = Annotated[int, Field(ge=-128, le=255)]

#: Bytes of one result's line in the listing, and what a status may have.
MOST_LINE, MOST_STATUS = 26_000, 1 << 16


@described
@dataclass(frozen=True)
class Fault:
    """An operation failed there: the system's error number, or 0 where the agent refused."""

    errno: Annotated[int, Field(ge=0, le=100_000)]
    error: Shown


@described
@dataclass(frozen=True)
class Holder:
    """Who holds the board's lock, as he wrote it; anybody who shares the board could have written it."""

    holder: Shown = ""
    since: Shown = ""
    command: Shown = ""
    job: Shown = ""
    pid: Count = 0
    mine: bool = False


@described
@dataclass(frozen=True)
class JobState:
    """How far a job is: ``absent``, ``running``, ``ended``, or ``died`` without an exit status."""

    id: Identifier
    state: Literal["absent", "running", "ended", "died"]
    fetched: bool
    since: Shown = ""


@described
@dataclass(frozen=True)
class Hello:
    """``missing``: SHA-256 → bytes of it that are there already. ``skipped``: programs that were not trusted."""

    operation: ClassVar[str] = "hello"
    workdir: BoardPath
    free_bytes: Count
    srdeploy: Optional[Annotated[Tuple[Word, ...], Field(min_length=1, max_length=100)]]
    skipped: Annotated[Tuple[Shown, ...], Field(max_length=10)]
    missing: Dict[Sha256, Count]
    busy: Optional[Holder]
    job: Optional[JobState]


@described
@dataclass(frozen=True)
class Doctor:
    """What ``srdeploy doctor --json`` said there."""

    operation: ClassVar[str] = "doctor"
    code: ExitCode
    out: Annotated[str, Field(max_length=1 << 16)]
    err: Annotated[str, Field(max_length=4000)]


@described
@dataclass(frozen=True)
class Commit:
    """``bad``: what has to be sent again."""

    operation: ClassVar[str] = "commit"
    bad: Tuple[Sha256, ...]
    free_bytes: Count


@described
@dataclass(frozen=True)
class Discard:
    """What is free once our incomplete files are gone."""

    operation: ClassVar[str] = "discard"
    free_bytes: Count


@described
@dataclass(frozen=True)
class Start:
    """The job that runs now, or who holds the board."""

    operation: ClassVar[str] = "start"
    job: Optional[JobState] = None
    busy: Optional[Holder] = None

    def __post_init__(self) -> None:
        if (self.job is None) == (self.busy is None):
            raise ValueError("one of job and busy is needed")


@described
@dataclass(frozen=True)
class Status:
    """Jobs whose ids begin as asked; last the one that runs, else the newest that is not home."""

    operation: ClassVar[str] = "status"
    jobs: Annotated[Tuple[JobState, ...], Field(max_length=100)]


@described
@dataclass(frozen=True)
class Fetched:
    """Noted."""

    operation: ClassVar[str] = "fetched"


@described
@dataclass(frozen=True)
class Stop:
    """Whether nothing of the job runs any more."""

    operation: ClassVar[str] = "stop"
    stopped: bool


@described
@dataclass(frozen=True)
class Ended:
    """``status.json`` of a job: its exit status, and how many result files it has with how many bytes."""

    exit_code: ExitCode
    seconds: Seconds
    ended: Shown
    files: Count = 0
    bytes: Count = 0
    error: Optional[Shown] = None


@described
@dataclass(frozen=True)
class ResultFile:
    """One line of a job's ``files``: where a result lies there, and its place inside the folder of results here."""

    path: Quoted
    to: Quoted
    size: Count
    sha256: Sha256

    @property
    def there(self) -> bytes:
        """The path on the board; SFTP takes bytes."""
        return urllib.parse.unquote_to_bytes(self.path)

    @property
    def home(self) -> str:
        """The place here; bytes that are not UTF-8 as surrogates, as Python has them in paths."""
        return os.fsdecode(urllib.parse.unquote_to_bytes(self.to))


@described_in_part
@dataclass(frozen=True)
class Found:
    """One finding of doctor; see core/host/device.py."""

    level: Literal["ok", "missing", "warning"]
    what: Shown
    found: Shown
    how_to_get: Shown = ""


@described_in_part
@dataclass(frozen=True)
class Packages:
    """Versions there."""

    srdeploy: Optional[Shown] = None


@described_in_part
@dataclass(frozen=True)
class Environment:
    """``jetson``: what it is, where it is one."""

    jetson: Optional[Dict[str, Any]] = None
    packages: Packages = Packages()


@described_in_part
@dataclass(frozen=True)
class DoctorReport:
    """What doctor prints, as far as it is looked at here."""

    findings: Annotated[Tuple[Found, ...], Field(max_length=1000)]
    environment: Environment


@described_in_part
@dataclass(frozen=True)
class EngineSettings:
    """``strips``: row strips it runs in."""

    strips: Annotated[str, Field(pattern=r"^[0-9]{1,6}$")] = "1"


@described_in_part
@dataclass(frozen=True)
class EngineRow:
    """An engine's manifest as ``build --json`` prints it, as far as its table shows it."""

    file: Shown
    precision: Token
    compute_capabilities: Annotated[Tuple[Token, ...], Field(max_length=100)]
    activation_bytes: Optional[Count]
    weights_bytes: Optional[Count]
    build_seconds: Optional[Seconds]
    settings: EngineSettings = EngineSettings()


@described_in_part
@dataclass(frozen=True)
@with_fields(dict.fromkeys(figure_types(), float))
class QualityRow:
    """One picture of ``verify --json``, or the mean; beside these a field for each metric of METRICS."""

    name: Shown = ""
    difference: Optional[float] = None


@described_in_part
@dataclass(frozen=True)
class RanRow:
    """One file that ran, as far as the table of quality shows it."""

    runtime: Shown
    device: Shown
    file: Shown


@described_in_part
@dataclass(frozen=True)
class QualityReport:
    """What ``verify --json`` prints, as far as its table shows it."""

    images: Tuple[QualityRow, ...]
    mean: QualityRow
    ran: Annotated[Tuple[RanRow, ...], Field(max_length=1000)] = ()
    precision: Optional[Shown] = None
    convention: Optional[Shown] = None
    largest_difference: Optional[float] = None
    tolerance: Optional[float] = None
    loss_db: Optional[float] = None
    tolerance_db: Optional[float] = None
    worst_loss_db: Optional[float] = None
    worst_loss_picture: Optional[Shown] = None
    largest_off_share: Optional[float] = None
    largest_structure: Optional[float] = None


@described_in_part
@dataclass(frozen=True)
class CommandFault:
    """What a command with --json prints when it fails."""

    error: Shown
    exit_code: ExitCode
