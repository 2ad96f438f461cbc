"""A folder that a training framework saved: which file in it holds the network."""

from __future__ import annotations

from pathlib import Path
from typing import List, Tuple

from sr_deploy.core.errors import BadCheckpoint
from sr_deploy.core.text import plain

#: Where frameworks put a network, by their own documentation: Accelerate's ``save_state`` and ``save_model`` (and
#: Hugging Face's ``save_pretrained``), then Lightning's checkpoints in its own folders. The first row that is there
#: counts.
PLACES: Tuple[Tuple[str, ...], ...] = (
    ("model.safetensors", "pytorch_model.bin", "pytorch_model.safetensors"),
    ("*.ckpt", "checkpoints/*.ckpt", "version_*/checkpoints/*.ckpt", "lightning_logs/version_*/checkpoints/*.ckpt"),
)
_WANTED = (
    "a folder of Accelerate (model.safetensors, pytorch_model.bin) or Lightning (checkpoints/*.ckpt) with one network"
)


def is_checkpoint_folder(folder: Path) -> bool:
    """Whether there is a file in the folder that may be a network."""
    return bool(_files_in(folder))


def file_in(folder: Path) -> Path:
    """The file with the network.

    Raises:
        BadCheckpoint: none, or several; they are named.
    """
    files = _files_in(folder)
    if len(files) == 1:
        return files[0]
    inside: List[str] = sorted(entry.name for entry in folder.iterdir())[:4]
    if not files:
        listed = f" with {', '.join(map(plain, inside))}" if inside else ", and empty"
        raise BadCheckpoint(
            f"{folder} is a folder{listed}",
            _WANTED,
            "name the file; a folder with manifest.json is a deployment and needs no checkpoint",
        )
    names = ", ".join(plain(str(file.relative_to(folder))) for file in files[:6])
    raise BadCheckpoint(f"{folder} holds {len(files)} networks: {names}", _WANTED, f"name one, such as {files[-1]}")


def _files_in(folder: Path) -> List[Path]:
    for patterns in PLACES:
        files = sorted(file for pattern in patterns for file in folder.glob(pattern) if file.is_file())
        if files:
            return files
    return []
