"""Reading widths and scales off a checkpoint's shapes, and refusing what the user asked for against them."""

from __future__ import annotations

import math
from typing import Iterable, Tuple

from sr_deploy.core.errors import BadCheckpoint, UsageError
from sr_deploy.models.base import Asked, Tensors


def width_of(tensors: Tensors, key: str, architecture: str, axis: int = 0) -> int:
    """The length of one axis of a stored tensor (axis 0 of a convolution's weight: its output channels).

    Raises:
        BadCheckpoint: no such key, or the tensor has fewer axes.
    """
    if key not in tensors or tensors[key].dim() <= axis:
        found = f"{key} is {tuple(tensors[key].shape)}" if key in tensors else f"missing {key}"
        raise BadCheckpoint(
            f"this checkpoint does not fit {architecture}: {found}",
            f"{key}, whose shape tells the width of {architecture}",
            "check that the file is whole and not of a variant; srdeploy inspect FILE lists its keys",
        )
    return int(tensors[key].shape[axis])


def shuffle_scale(tensors: Tensors, key: str, architecture: str) -> int:
    """The scale of a convolution in front of a pixel shuffle that gives three colours: 3·scale² output channels.

    Raises:
        BadCheckpoint: the number of output channels is not of that form.
    """
    channels = width_of(tensors, key, architecture)
    scale = math.isqrt(channels // 3)
    if channels == 0 or channels != 3 * scale * scale:
        raise BadCheckpoint(
            f"{key} has {channels} output channels, which is no RGB pixel shuffle of {architecture}",
            "3·scale² output channels: 12 for x2, 27 for x3, 48 for x4",
            "only RGB networks are supported; srdeploy inspect FILE lists its shapes",
        )
    return scale


def require_rgb(tensors: Tensors, key: str, architecture: str, more: Tuple[int, ...] = ()) -> int:
    """The input channels of the first convolution, refused unless they are RGB.

    Args:
        tensors: the checkpoint.
        key: the first convolution's weight.
        architecture: named in errors.
        more: other numbers that are right, of RGB rearranged from pixels to channels.

    Raises:
        BadCheckpoint: no such key, or another number of channels.
    """
    channels = width_of(tensors, key, architecture, axis=1)
    if channels not in (3, *more):
        raise BadCheckpoint(
            f"{key} takes {channels} channel{'s' if channels != 1 else ''}: this {architecture} is no RGB network",
            " or ".join(str(right) for right in (3, *more)) + " input channels",
            "take a checkpoint of the RGB network; networks of one channel (Y) or several frames are not supported",
        )
    return channels


def check_asked(asked: Asked, architecture: str, scale: int, uses: Tuple[str, ...] = ()) -> None:
    """Refuse values that this checkpoint contradicts or has no use for.

    Args:
        asked: the user's values.
        architecture: named in errors.
        scale: as the shapes tell.
        uses: which of ``lora_alpha``, ``res_scale`` and ``value_range`` this checkpoint has a use for.

    Raises:
        UsageError: another scale is asked for, or a value that nothing here uses.
    """
    if asked.scale is not None and asked.scale != scale:
        raise UsageError(
            f"--scale {asked.scale} was asked for, but this {architecture} checkpoint is x{scale} by its shapes",
            f"--scale {scale}, or none",
            "leave --scale out, or take the checkpoint of the other scale",
        )
    for name in ("lora_alpha", "res_scale", "value_range"):
        value, option = getattr(asked, name), "--" + name.replace("_", "-")
        if value is not None and name not in uses:
            raise UsageError(
                f"{option} {value} was given, but this {architecture} checkpoint has nothing that it applies to",
                f"no {option}",
                "leave it out, or check that this is the file you mean: srdeploy inspect FILE",
            )


def holds_all(tensors: Tensors, keys: Iterable[str]) -> bool:
    """Whether each of ``keys`` is there, of those joined by ``|`` one."""
    return all(any(option in tensors for option in key.split("|")) for key in keys)


def count_of(tensors: Tensors, prefix: str, first: int = 0) -> int:
    """How many numbered modules follow each other: ``prefix`` + "0.…", "1.…" and so on.

    Args:
        tensors: the checkpoint.
        prefix: in front of the number, for example "body." or "block_".
        first: the number of the first one.
    """
    numbers = {key[len(prefix) :].partition(".")[0] for key in tensors if key.startswith(prefix)}
    count = 0
    while str(first + count) in numbers:
        count += 1
    return count
