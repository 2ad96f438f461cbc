"""From descriptions of tensors to tensors: every offset, size and stride is checked against the bytes that exist."""

from __future__ import annotations

import math
from typing import Dict, List, Mapping, Union

import torch

from sr_deploy.checkpoint.archive import STORAGE_DTYPES, Opened, element_bytes
from sr_deploy.checkpoint.described import Malformed, TensorRef

Leaf = Union[torch.Tensor, TensorRef]

#: Tensors may repeat the elements of their storages (tied weights, torch's ``expand``): all together they may have
#: this many times the elements in the file, or this many elements more than the file, whichever is more.
REPEATED_TIMES = 16
REPEATED_ELEMENTS = 1 << 24
MAX_DIMENSIONS = 64


def tensors_from(opened: Opened, wanted: Mapping[str, Leaf]) -> Dict[str, torch.Tensor]:
    """Read the tensors of a state dict.

    Args:
        opened: the container they lie in.
        wanted: by key, ``TensorRef`` or torch tensors.

    Returns:
        Tensors on the CPU that share memory with nothing, in the dtype of the file.

    Raises:
        Malformed: a tensor reaches beyond its storage, or a storage has another length than it says. The key is named.
        KeyError: a storage is not in the file.
    """
    described = {key: ref for key, ref in wanted.items() if isinstance(ref, TensorRef)}
    storages = {ref.storage.key: ref.storage for ref in described.values()}
    _check_amount(list(described.values()), sum(ref.count for ref in storages.values()))
    data = {key: bytearray(raw) for key, raw in opened.numbers(storages.values()).items()}
    for ref in storages.values():
        if len(data[ref.key]) != ref.count * element_bytes(ref):
            raise Malformed(
                f"storage {ref.key} should have {ref.count} elements of {element_bytes(ref)} bytes, "
                f"and has {len(data[ref.key])} bytes"
            )
    return {
        key: _tensor(key, leaf, data[leaf.storage.key]) if isinstance(leaf, TensorRef) else leaf
        for key, leaf in wanted.items()
    }


def _check_amount(refs: List[TensorRef], stored: int) -> None:
    """Refuse what would need absurd memory, before any number is read."""
    if any(len(ref.size) > MAX_DIMENSIONS for ref in refs):
        raise Malformed(f"a tensor has more than {MAX_DIMENSIONS} dimensions")
    # A storage without a type counts bytes; every element has at least one, so the bound holds for it too.
    elements = sum(math.prod(ref.size) for ref in refs)
    if elements > max(REPEATED_TIMES * stored, stored + REPEATED_ELEMENTS):
        raise Malformed(f"its tensors say that they have {elements} elements, and the file has {stored}")


def _tensor(key: str, ref: TensorRef, raw: bytearray) -> torch.Tensor:
    """One tensor out of the bytes of its storage."""
    # vars, not getattr: torch imports modules when asked for some of its names.
    dtype = vars(torch).get(ref.dtype) if ref.dtype else STORAGE_DTYPES[ref.storage.dtype]
    if not isinstance(dtype, torch.dtype):
        raise Malformed(f"tensor {key} has the dtype {ref.dtype}, which this PyTorch does not know")
    if math.prod(ref.size) == 0:
        return torch.empty(ref.size, dtype=dtype)
    stored = len(raw) // dtype.itemsize
    last = ref.offset + sum((length - 1) * step for length, step in zip(ref.size, ref.stride))
    if last >= stored:
        raise Malformed(f"tensor {key} of shape {ref.size} ends at element {last + 1} of a storage that has {stored}")
    flat = torch.frombuffer(raw, dtype=dtype, count=stored)
    return flat.as_strided(ref.size, ref.stride, ref.offset).clone(memory_format=torch.contiguous_format)
