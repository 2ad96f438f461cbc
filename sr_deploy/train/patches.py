"""What training sees: squares cut out of low-resolution pictures, turned and mirrored; others kept back for judging.

Every step's squares follow from the seed and the step's number alone, so training can go on where it stopped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Optional, Sequence, Tuple

import numpy as np

from sr_deploy.core.errors import BadInput
from sr_deploy.core.text import counted

#: One picture in so many is kept back for judging, from the first on.
KEPT_BACK = 8
#: Squares kept back for judging, at most.
JUDGED = 8
#: What helps where a picture is smaller than a square.
_SMALLER = "leave it out, or make the squares smaller with --patch"


@dataclass(frozen=True)
class Pairs:
    """Pictures to train on.

    Attributes:
        pictures: (3, H, W) each, no smaller than the squares that are cut out of them.
        originals: of each picture, (3, s·H, s·W); None without originals.
    """

    pictures: Tuple[np.ndarray, ...]
    originals: Optional[Tuple[np.ndarray, ...]] = None


@dataclass(frozen=True)
class Pool:
    """Pictures to train on and squares to judge on.

    Attributes:
        trained: of the type and in the units of what was given.
        judged: (N, 3, side, side), of pictures that are not trained on.
        judged_originals: of each of them, (N, 3, s·side, s·side); None without originals.
    """

    trained: Pairs
    judged: np.ndarray
    judged_originals: Optional[np.ndarray] = None


def check_pictures(images: Sequence[np.ndarray], side: int, todo: str = _SMALLER, names: Sequence[str] = ()) -> None:
    """Refuse pictures that squares of ``side`` cannot be cut from; arguments are those of ``pool_of``.

    Raises:
        BadInput: one is smaller than the squares; the message names it.
    """
    small = [index for index, picture in enumerate(images) if min(picture.shape[2:]) < side]
    if small:
        height, width = images[small[0]].shape[2:]
        more = f", as {len(small) - 1} more are," if len(small) > 1 else ""
        raise BadInput(
            f"{names[small[0]] if names else 'a picture'} of {height}x{width}{more} is smaller than the squares of "
            f"{side} that are looked at",
            f"pictures of at least {side}x{side}",
            todo,
        )


def pool_of(
    images: Sequence[np.ndarray],
    side: int,
    judged_side: int,
    originals: Optional[Sequence[np.ndarray]] = None,
    multiple: int = 1,
    todo: str = _SMALLER,
    names: Sequence[str] = (),
) -> Pool:
    """Part the pictures into those trained on and those judged on.

    Args:
        images: (1, 3, H, W), float32 or uint8.
        side: of the squares that are trained on.
        judged_side: of those that are judged on; less where a picture is smaller.
        originals: of each image, (1, 3, s·H, s·W).
        multiple: of which the side of judged squares is one.
        todo: what helps where a picture is too small.
        names: of the images, for messages; () where they have none.

    Raises:
        BadInput: fewer than two pictures, or one smaller than the squares.
    """
    if len(images) < 2:
        raise BadInput(
            f"{counted(len(images), 'picture')} to train on",
            "at least 2: some are kept back for judging",
            "give more pictures",
        )
    check_pictures(images, side, todo, names)
    back = list(range(0, len(images), KEPT_BACK))[:JUDGED]
    judged_side = min(judged_side, *(min(images[index].shape[2:]) for index in back))
    judged_side -= judged_side % multiple
    centres, centres_of_originals = [], []
    for index in back:
        picture = images[index][0]
        top, left = (picture.shape[1] - judged_side) // 2, (picture.shape[2] - judged_side) // 2
        centres.append(picture[:, top : top + judged_side, left : left + judged_side])
        if originals is not None:
            scale = originals[index].shape[2] // picture.shape[1]
            rows, columns = (slice(scale * at, scale * (at + judged_side)) for at in (top, left))
            centres_of_originals.append(originals[index][0][:, rows, columns])
    used = [index for index in range(len(images)) if index not in back]
    pictures = tuple(np.ascontiguousarray(images[index][0]) for index in used)
    return Pool(
        trained=Pairs(pictures, None if originals is None else tuple(originals[index][0] for index in used)),
        judged=np.stack(centres),
        judged_originals=np.stack(centres_of_originals) if centres_of_originals else None,
    )


def squares_of(pairs: Pairs, seed: int, step: int, count: int, side: int) -> Tuple[np.ndarray, Optional[np.ndarray]]:
    """The squares of one step: each of any picture, anywhere, in one of the eight ways a square can lie.

    Returns:
        (count, 3, side, side), and their originals, (count, 3, s·side, s·side), or None.
    """
    rng = np.random.default_rng((seed, step))
    lows: List[np.ndarray] = []
    highs: List[np.ndarray] = []
    for _ in range(count):
        which = int(rng.integers(len(pairs.pictures)))
        picture = pairs.pictures[which]
        top, left = (int(rng.integers(length - side + 1)) for length in picture.shape[1:])
        turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
        lows.append(_turned(picture[:, top : top + side, left : left + side], turns, mirrored))
        if pairs.originals is not None:
            scale = pairs.originals[which].shape[1] // picture.shape[1]
            rows, columns = (slice(scale * at, scale * (at + side)) for at in (top, left))
            highs.append(_turned(pairs.originals[which][:, rows, columns], turns, mirrored))
    return np.stack(lows), np.stack(highs) if highs else None


def _turned(square: np.ndarray, turns: int, mirrored: bool) -> np.ndarray:
    square = np.rot90(square, turns, axes=(1, 2))
    return square[:, :, ::-1] if mirrored else square
