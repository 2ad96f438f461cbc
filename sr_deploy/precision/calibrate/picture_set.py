"""Calibration sets: which pictures, by hash, cut how, under which licence. ``calibration/*.toml`` is their form.

The pictures themselves are never stored: whoever has them can prove that they are the same ones.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Mapping, Sequence, Tuple

from pydantic import Field
from typing_extensions import Annotated

from sr_deploy.core.artifact import atomic_file, sha256_of
from sr_deploy.core.confine import FileName
from sr_deploy.core.errors import BadImage, UsageError
from sr_deploy.core.schema import Count, Edge, Sha256, described, read_described_toml
from sr_deploy.precision.calibrate.collect import PATCH, PATCHES

SCHEMA = 1
_TEXTS = ("about", "source", "licence", "how_to_get")


@described
@dataclass(frozen=True)
class Crop:
    """What is cut out of each picture.

    Attributes:
        side: of the squares, pixels.
        each: squares from one picture.
        seed: of their places.
    """

    side: Edge = PATCH
    each: Edge = PATCHES
    seed: Count = 0


@described
@dataclass(frozen=True)
class CalibrationSet:
    """The pictures of a set.

    Attributes:
        images: file name → sha256 of the file, in the order they are used.
        crop: see ``Crop``.
        white: the value of white in the files, 255 or 65535; what the network takes follows from its own contract.
        about, source, licence, how_to_get: for people.
        schema: version of this layout.
    """

    images: Annotated[Dict[FileName, Sha256], Field(min_length=1)]
    crop: Crop = Crop()
    white: Annotated[int, Field(ge=1, le=65535)] = 255
    about: str = ""
    source: str = ""
    licence: str = ""
    how_to_get: str = ""
    schema: int = SCHEMA

    @property
    def sha256(self) -> str:
        """One hash over all files, in order; names do not count."""
        return images_sha256(list(self.images.values()))


def images_sha256(hashes: Sequence[str]) -> str:
    """One hash over the hashes of files, in order."""
    return hashlib.sha256("\n".join(hashes).encode("ascii")).hexdigest()


def hashes_of(files: Sequence[Path]) -> Dict[Path, str]:
    """File → sha256 of its bytes."""
    return {path: sha256_of(path) for path in files}


def open_set(path: Path) -> CalibrationSet:
    """Read a set's manifest.

    Raises:
        BadInput: missing, not TOML, or not as described.
    """
    return read_described_toml(CalibrationSet, path, "calibration set", "see calibration/README.md")


def save_set(path: Path, chosen: CalibrationSet) -> None:
    """Write a set's manifest, whole or not at all."""
    with atomic_file(Path(path)) as temporary:
        temporary.write_text(set_text(chosen), encoding="utf-8")


def set_text(chosen: CalibrationSet) -> str:
    """A set's manifest as TOML."""
    lines = [f"schema = {SCHEMA}"]
    lines += [f"{key} = {_quoted(getattr(chosen, key))}" for key in _TEXTS]
    lines += ["", "# The value of white in the files; a network's own range follows from its contract."]
    lines += [f"white = {chosen.white}", "", "# Squares cut out of each picture, in pixels."]
    crop = chosen.crop
    lines += ["[crop]", f"side = {crop.side}", f"each = {crop.each}", f"seed = {crop.seed}", ""]
    lines += ["# File name and sha256 of the file, in the order of use.", "[images]"]
    lines += [f"{_quoted(name)} = {_quoted(digest)}" for name, digest in chosen.images.items()]
    return "\n".join(lines) + "\n"


def files_of(chosen: CalibrationSet, available: Sequence[Path], manifest: Path) -> Tuple[Path, ...]:
    """The set's files among those at hand, in its order.

    Raises:
        BadImage: one is missing, or is not the file that the manifest names; the message says which.
    """
    by_name = {path.name: path for path in available}
    missing = [name for name in chosen.images if name not in by_name]
    if missing:
        raise BadImage(
            f"{len(missing)} pictures of {manifest} are not there: " + ", ".join(missing[:3]) + _more(missing),
            f"all {len(chosen.images)} pictures of the set",
            chosen.how_to_get or "look at the manifest for where to get them",
        )
    altered = [name for name, digest in chosen.images.items() if sha256_of(by_name[name]) != digest]
    if altered:
        raise BadImage(
            f"{len(altered)} pictures are not the files of {manifest}: " + ", ".join(altered[:3]) + _more(altered),
            "files with the sha256 that it names",
            "get the originals again, or calibrate without --manifest",
        )
    return tuple(by_name[name] for name in chosen.images)


def set_of(hashes: Mapping[Path, str], crop: Crop, white: int) -> CalibrationSet:
    """A set of these files, to be written; its texts ask to be filled in.

    Raises:
        UsageError: two files have one name.
    """
    images: Dict[str, str] = {}
    for path, digest in hashes.items():
        if path.name in images:
            raise UsageError(f"two pictures are called {path.name}", "different names in one set", "rename one of them")
        images[path.name] = digest
    unknown = "unknown: fill it in before you share this file"
    return CalibrationSet(images, crop, white, "", unknown, unknown, "")


def _more(names: Sequence[str]) -> str:
    return "…" if len(names) > 3 else ""


def _quoted(text: str) -> str:
    """A TOML string; JSON escapes what TOML does, but for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
