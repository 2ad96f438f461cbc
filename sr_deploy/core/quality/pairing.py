"""Which low-resolution picture belongs to which original, by their file names."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List, Tuple

from sr_deploy.core.errors import BadImage
from sr_deploy.core.media.image import find_images


def pair_images(lr_folder: Path, hr_folder: Path, scale: int) -> Tuple[Tuple[str, Path, Path], ...]:
    """Find each low-resolution picture's original: "babyx4.png" or "baby.png" belongs to "baby.png".

    Args:
        lr_folder, hr_folder: folders (or single files).
        scale: the number in the low-resolution names' suffix, "x4" or "X4".

    Returns:
        (name, low-resolution file, original) for each, by name.

    Raises:
        BadImage: a picture without partner, or two with the same name; all of them are named.
    """
    lows = _by_name(find_images([lr_folder]), lr_folder)
    highs = _by_name(find_images([hr_folder]), hr_folder)
    pairs: Dict[str, Tuple[str, Path, Path]] = {}
    for name, low in lows.items():
        original = name
        if name not in highs and name.lower().endswith(f"x{scale}"):
            original = name[: -len(f"x{scale}")]
        if original in pairs:
            raise BadImage(
                f"{pairs[original][1]} and {low} both belong to {original}",
                "one picture for each original",
                "take one of them out of the folder",
            )
        if original in highs:
            pairs[original] = (original, low, highs[original])
    used = {low for _, low, _ in pairs.values()}
    alone = [str(low) for low in lows.values() if low not in used] + [
        str(high) for name, high in highs.items() if name not in pairs
    ]
    if alone:
        raise BadImage(
            f"{len(alone)} pictures have no partner: " + ", ".join(alone[:5]) + ("…" if len(alone) > 5 else ""),
            f"for each original NAME.png a low-resolution NAMEx{scale}.png or NAME.png",
            "check that the folders belong together and are of this scale",
        )
    return tuple(pairs[name] for name in sorted(pairs))


def _by_name(files: Tuple[Path, ...], folder: Path) -> Dict[str, Path]:
    """Files by name without suffix; two of one name cannot be told apart."""
    out: Dict[str, Path] = {}
    twice: List[str] = []
    for file in files:
        if file.stem in out:
            twice.append(f"{out[file.stem].name} and {file.name}")
        out[file.stem] = file
    if twice:
        raise BadImage(
            f"{folder} has two pictures of one name: " + ", ".join(twice),
            "one file for each picture",
            "take one of them out of the folder",
        )
    return out
