"""From descriptions of tensors to tensors: every offset, size and stride is checked against the bytes that exist."""

from __future__ import annotations

import math
from typing import Dict, Mapping, Union

import torch

from sr_deploy.checkpoint.archive import STORAGE_DTYPES, Opened, element_bytes
from sr_deploy.checkpoint.budget import TENSOR_BYTES, TENSOR_TIMES, OverBudget
from sr_deploy.checkpoint.described import Malformed, TensorRef

Leaf = Union[torch.Tensor, TensorRef]


def elements_of(leaf: Leaf) -> int:
    """How many numbers a tensor has, or says that it has."""
    return leaf.numel() if isinstance(leaf, torch.Tensor) else math.prod(leaf.size)


def tensors_from(opened: Opened, wanted: Mapping[str, Leaf]) -> Dict[str, torch.Tensor]:
    """Read the tensors of a state dict.

    Args:
        opened: the container they lie in.
        wanted: by key, ``TensorRef`` or torch tensors.

    Returns:
        Tensors on the CPU that share memory with nothing, in the dtype of the file.

    Raises:
        OverBudget: they would take far more memory than the file has bytes.
        Malformed: a tensor reaches beyond its storage, or a storage has another length than it says. The key is named.
        KeyError: a storage is not in the file.
    """
    described = {key: ref for key, ref in wanted.items() if isinstance(ref, TensorRef)}
    storages = {ref.storage.key: ref.storage for ref in described.values()}
    _check_amount(described, opened.file_bytes)
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


def _check_amount(refs: Mapping[str, TensorRef], file_bytes: int) -> None:
    """Refuse what would need absurd memory, before any number is read: one element can be said to be a million."""
    need = 0
    for key, ref in refs.items():
        dtype = _dtype_of(key, ref)
        converted = 4 if dtype.is_floating_point and dtype != torch.float32 else 0
        need += math.prod(ref.size) * (dtype.itemsize + converted)
    limit = TENSOR_BYTES + TENSOR_TIMES * file_bytes
    if need > limit:
        # Shown in GB: the number itself may have thousands of digits.
        said = f"{need / 1e9:,.1f} GB" if need < 10**18 else "more than 10^9 GB"
        raise OverBudget(
            f"its tensors say that they take {said}, and it has {file_bytes:,} bytes", f"at most {limit:,}"
        )


def _dtype_of(key: str, ref: TensorRef) -> torch.dtype:
    # vars, not getattr: torch imports modules when asked for some of its names.
    dtype = vars(torch).get(ref.dtype) if ref.dtype else STORAGE_DTYPES.get(ref.storage.dtype)
    if not isinstance(dtype, torch.dtype):
        raise Malformed(f"tensor {key} has the dtype {ref.dtype or ref.storage.dtype}, which is not known here")
    return dtype


def _tensor(key: str, ref: TensorRef, raw: bytearray) -> torch.Tensor:
    """One tensor out of the bytes of its storage."""
    dtype = _dtype_of(key, ref)
    if math.prod(ref.size) == 0:
        return torch.empty(ref.size, dtype=dtype)
    stored = len(raw) // dtype.itemsize
    last = ref.offset + sum((length - 1) * step for length, step in zip(ref.size, ref.stride))
    if last >= stored:
        raise Malformed(f"tensor {key} of shape {ref.size} ends at element {last + 1} of a storage that has {stored}")
    flat = torch.frombuffer(raw, dtype=dtype, count=stored)
    return flat.as_strided(ref.size, ref.stride, ref.offset).clone(memory_format=torch.contiguous_format)
