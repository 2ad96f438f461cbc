"""A checkpoint file to named tensors. Nothing in the file is ever run."""

from __future__ import annotations

import errno
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Optional, Tuple

import torch

from sr_deploy.checkpoint.archive import Opened, open_legacy, open_safetensors, open_zip
from sr_deploy.checkpoint.budget import OverBudget
from sr_deploy.checkpoint.canonical import Found, in_float32, state_dict_in, strip_prefixes, without_bookkeeping
from sr_deploy.checkpoint.described import AsksToRun, printable
from sr_deploy.checkpoint.folder import file_in
from sr_deploy.checkpoint.recognise import HEAD_BYTES, container_of
from sr_deploy.checkpoint.tensors import tensors_from
from sr_deploy.core.artifact import sha256_of
from sr_deploy.core.errors import BadCheckpoint, EnvironmentFault

#: What Python, its zip reader and torch raise on damaged bytes. The bytes decide which, so all mean "damaged".
_DAMAGE = (
    ValueError, TypeError, LookupError, AttributeError, ArithmeticError, EOFError, RuntimeError, MemoryError,
    struct.error, zlib.error, zipfile.BadZipFile,
)  # fmt: skip
_OPENERS = {"zip": open_zip, "legacy": open_legacy, "safetensors": open_safetensors}
_WANTED = "a PyTorch checkpoint (.pth .pt .pth.tar .ckpt) or a .safetensors file"


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a network as a file holds them.

    Attributes:
        path: the file.
        sha256: of the file.
        container: "zip" (torch.save), "legacy" (torch.save before PyTorch 1.6) or "safetensors".
        tensors: a flat state dict without wrapper prefixes, on the CPU. Floating tensors are float32; integers,
            booleans and complex numbers are as in the file. NaN and shapes are not checked here.
        found_under: "params_ema", "deploy", "model.state_dict", …; "" for the top level; "whole module" for a file
            that is one pickled module.
        stripped_prefix: what stood before every key, for example "module.".
        notes: what a user should know: choices made, entries ignored, classes kept as stand-ins, dtypes changed.
    """

    path: Path
    sha256: str
    container: str
    tensors: Dict[str, torch.Tensor]
    found_under: str
    stripped_prefix: str
    notes: Tuple[str, ...] = ()


def checkpoint_from_file(path: Path, under: Optional[str] = None) -> Checkpoint:
    """Read a checkpoint of any supported kind; its content decides which, not its name.

    Args:
        path: the file, or a folder that a training framework saved, see folder.py.
        under: take the tensors under this name ("params" where both "params_ema" and "params" are there); None takes
            the first of ``canonical.NESTED_UNDER`` and notes the choice.

    Raises:
        BadCheckpoint: missing, empty, cut off, damaged, of another kind, without tensors, asking to run code, or asking
            for more work or memory than ``budget`` allows.
        UsageError: nothing under ``under``.
        EnvironmentFault: not allowed to read it. MissingPackage: safetensors is not installed.
    """
    given = Path(path)
    path, head = _head(given)
    container = container_of(path, head)
    try:
        opened = _OPENERS[container](path)
        found, notes = state_dict_in(opened.root, under, str(path))
        weights, left_out = without_bookkeeping(found.tensors)
        entries, prefix = strip_prefixes(weights)
        tensors, converted = in_float32(tensors_from(opened, entries))
    except AsksToRun as error:
        raise BadCheckpoint(
            f"{path} asks to run {printable(error.name)}, as loading a hostile file would; nothing was run",
            "a checkpoint that holds tensors and no calls",
            "do not load this file anywhere; get the weights from a source that you trust",
        ) from error
    except OverBudget as error:
        raise BadCheckpoint(
            f"{path} asks for more than any checkpoint needs: {error.found}",
            error.wanted,
            "do not trust this file; if it is your own, save nothing but the weights: "
            "torch.save(model.state_dict(), FILE)",
        ) from error
    except OSError as error:
        if error.errno in (None, errno.EINVAL, errno.EOVERFLOW):
            # The bytes named a place in the file that cannot be.
            raise _damaged(path, container, head, error) from error
        raise EnvironmentFault(
            f"cannot read {path}: {error.strerror}", "a file that you may read", "check the path and who may read it"
        ) from error
    except _DAMAGE as error:
        raise _damaged(path, container, head, error) from error
    return Checkpoint(
        path=path,
        sha256=sha256_of(path),
        container=opened.container,
        tensors=tensors,
        found_under=found.under,
        stripped_prefix=prefix,
        notes=(*_folder_note(given, path), *_stand_in_note(opened, found), *notes, *left_out, *converted),
    )


def _head(given: Path) -> Tuple[Path, bytes]:
    """The file, which may lie in a folder that was given, and its first bytes; or the reason why there are none."""
    path = given
    try:
        path = file_in(given) if given.is_dir() else given
        if path.exists() and not path.is_file():
            raise BadCheckpoint(f"{path} is no regular file", _WANTED, "name a file on a disk")
        with open(path, "rb") as stream:
            return path, stream.read(HEAD_BYTES)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadCheckpoint(f"{path} does not exist", _WANTED, "check the path") from error
    except OSError as error:
        raise EnvironmentFault(
            f"cannot read {path}: {error.strerror}", "a file that you may read", "check the path and who may read it"
        ) from error


def _damaged(path: Path, container: str, head: bytes, error: Exception) -> BadCheckpoint:
    """The error for bytes that cannot be understood."""
    size = path.stat().st_size
    detail = printable(error, 200) or type(error).__name__
    if container == "legacy" and head[:1] != b"\x80":
        found, todo = "is no checkpoint of a kind known here", f"file {path} tells what it is; get the checkpoint again"
        return BadCheckpoint(f"{path} ({size} bytes) {found}", _WANTED, todo)
    name = {"zip": "zip archive", "legacy": "PyTorch file of the old kind, or another pickle"}.get(container, container)
    return BadCheckpoint(
        f"{path} ({size} bytes) begins as a {name}, but is cut off or damaged: {detail}",
        "the whole file",
        "compare its size with the original and get it again",
    )


def _folder_note(given: Path, path: Path) -> Tuple[str, ...]:
    return () if given == path else (f"took {path.relative_to(given)} of the folder {given.name}",)


def _stand_in_note(opened: Opened, found: Found) -> Tuple[str, ...]:
    """Which classes were not made."""
    kinds = [kind for kind in opened.kinds if not kind.startswith("torch.nn.modules.")]
    listed = ", ".join(printable(kind.replace("__main__.", "")) for kind in kinds[:6])
    more = f" and {len(kinds) - 6} more" if len(kinds) > 6 else ""
    if found.is_module:
        return (f"whole-module pickle: classes {listed}{more} kept as inert stand-ins; only tensors were read",)
    return (f"{listed}{more} kept as inert stand-ins, not run",) if kinds else ()
