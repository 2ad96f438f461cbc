"""What became of pictures that were to be upscaled, for people and for JSON."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Tuple

from sr_deploy.core.errors import SrDeployError


@dataclass(frozen=True)
class Upscaled:
    """What became of the pictures.

    Attributes:
        written: results, in order.
        kept: results of this request that were there before and were left as they are.
        skipped: pictures without a result, and why.
        seconds: from the first picture to the last result.
    """

    written: Tuple[Path, ...]
    kept: Tuple[Path, ...]
    skipped: Tuple[Tuple[Path, SrDeployError], ...]
    seconds: float = 0.0

    def to_dict(self) -> Dict[str, Any]:
        """Plain values for JSON."""
        return {
            "written": [str(path) for path in self.written],
            "kept": [str(path) for path in self.kept],
            "skipped": [
                {"picture": str(path), "error": error.found, "wanted": error.wanted, "next": error.todo}
                for path, error in self.skipped
            ],
        }

    def summary(self) -> Tuple[str, ...]:
        """Lines that count what was made, and name what was kept and what was skipped; none for a picture alone."""
        every = len(self.written) + len(self.kept) + len(self.skipped)
        lines = []
        if len(self.written) > 1:
            lines.append(f"{len(self.written)} pictures in {self.seconds:.1f} s")
        if self.kept:
            lines.append(f"{len(self.kept)} results were there already and were kept as they are")
        if self.skipped:
            lines.append(f"{len(self.skipped)} of {every} pictures were skipped:")
            lines += [f"  {named(path, error)}" for path, error in self.skipped]
            lines.append("mend or remove them; the same command with --resume does only what is missing")
        return tuple(lines)


def named(path: Path, error: SrDeployError) -> str:
    """What is wrong with a picture, with its name once."""
    return error.found if str(path) in error.found else f"{path}: {error.found}"
