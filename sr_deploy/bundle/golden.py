"""Golden pictures: an input and what ONNX Runtime made of it on the PC, to hold an engine of the board against.

Files are ``golden/HxW_lr.npy`` and ``golden/HxW_sr.npy``, and ``golden/HxW_sr_NAME.npy`` of the precision plan NAME, as
the contract says, NumPy format 1.0. Single arrays and not
``.npz``: the bytes of a zip depend on the library that wrote it, those of an array do not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, Tuple

import numpy as np

from sr_deploy.bundle.layout import GOLDEN_FOLDER
from sr_deploy.core.contract import IOContract, Size, format_size, parse_size, round_up
from sr_deploy.core.errors import BadInput, UsageError

#: Element type of a contract → NumPy's description of it, little-endian.
_DTYPES = {"float32": "<f4", "uint8": "|u1"}


@dataclass(frozen=True)
class Golden:
    """One pair, of the size (height, width) of its input, in the value range.

    Attributes:
        lr: float32 (1, 3, H, W), or uint8 (1, H, W, 3) where the contract says so.
        sr: float32 (1, 3, scale·H, scale·W), or uint8 (1, scale·H, scale·W, 3).
        planned: name of a precision plan → what its graph makes of ``lr``, as ``sr``.
    """

    size: Size
    lr: np.ndarray
    sr: np.ndarray
    planned: Dict[str, np.ndarray] = field(default_factory=dict)


def golden_files(golden: Golden) -> Dict[str, bytes]:
    """The files of a pair, by their names in a bundle."""
    stem = f"{GOLDEN_FOLDER}/{format_size(golden.size)}"
    lower = {f"{stem}_sr_{name}.npy": _bytes_of(sr) for name, sr in golden.planned.items()}
    return {f"{stem}_lr.npy": _bytes_of(golden.lr), f"{stem}_sr.npy": _bytes_of(golden.sr), **lower}


def _bytes_of(array: np.ndarray) -> bytes:
    kind = _DTYPES[str(array.dtype)]
    return _header(array.shape, kind) + np.ascontiguousarray(array, kind).tobytes()


def _header(shape: Tuple[int, ...], kind: str) -> bytes:
    """The header of an array, NumPy format 1.0. By hand: the padding of NumPy's own changed with 1.23."""
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {tuple(shape)!r}, }}"
    length = round_up(len(text) + 11, 64) - 10
    return b"\x93NUMPY\x01\x00" + length.to_bytes(2, "little") + text.ljust(length - 1).encode("ascii") + b"\n"


def read_goldens(folder: Path, contract: IOContract, scale: int) -> Tuple[Golden, ...]:
    """The pairs of an unpacked bundle, smallest first; empty when the deployment has none.

    Raises:
        BadInput: half a pair, another type or shape, or values that no picture has.
    """
    pairs = []
    for path in (Path(folder) / GOLDEN_FOLDER).glob("*_lr.npy"):
        try:
            height, width = parse_size(path.name[: -len("_lr.npy")])
        except UsageError as error:
            raise BadInput(f"{path} is not named after a size", "HxW_lr.npy", "unpack the bundle again") from error
        size, larger = (height, width), (scale * height, scale * width)
        lr = _read(path, contract.shape(size), contract.dtype)
        sr = _read(path.with_name(f"{format_size(size)}_sr.npy"), contract.shape(larger), contract.dtype)
        if lr.min() < 0 or lr.max() > contract.value_range:
            raise BadInput(f"{path} has values outside 0…{contract.value_range:g}", "a picture", "pack it again")
        start = f"{format_size(size)}_sr_"
        planned = {
            other.stem[len(start) :]: _read(other, contract.shape(larger), contract.dtype)
            for other in sorted(path.parent.glob(f"{start}*.npy"))
        }
        pairs.append(Golden(size, lr, sr, planned))
    return tuple(sorted(pairs, key=lambda pair: pair.size[0] * pair.size[1]))


def _read(path: Path, shape: Tuple[int, ...], dtype: str) -> np.ndarray:
    """One array of exactly this shape. The length of the file is compared first, so a header cannot ask for more."""
    again = "unpack the bundle again, or pack it again"
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}", "a golden picture", again) from error
    kind = _DTYPES.get(dtype, "")
    front = _header(shape, kind)
    expected = len(front) + int(np.prod(shape, dtype=np.int64)) * int(kind[-1:] or 0)
    if not kind or len(raw) != expected or raw[: len(front)] != front:
        shown = "x".join(map(str, shape))
        raise BadInput(f"{path} is not a golden picture", f"{dtype} of shape {shown}", again)
    array = np.frombuffer(raw, kind, offset=len(front)).reshape(shape)
    if not np.isfinite(array).all():
        raise BadInput(f"{path} holds values that are not finite", "a picture", again)
    return array
