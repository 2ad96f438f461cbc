"""Rewriting the exported graph into one that computes the same with less: an ordered tuple of passes."""

from __future__ import annotations

from typing import Mapping, Sequence, Tuple

import onnx

from sr_deploy.core.errors import UsageError
from sr_deploy.graph.rewrite import (
    affine,
    around,
    columns,
    compose,
    crop,
    deconvolve,
    dense,
    lanes,
    max_min,
    overwrite,
    pairs,
    parity,
    prelu,
    regroup,
    share,
    shuffle,
)
from sr_deploy.graph.rewrite.base import Pass, PassResult, RewriteOptions
from sr_deploy.graph.rewrite.fold.apply import PASS as FOLD

__all__ = ["PASSES", "Pass", "PassResult", "RewriteOptions", "passes_named", "rewrite"]

#: Every pass, in the order they run.
PASSES: Tuple[Pass, ...] = (
    overwrite.PASS,
    FOLD,
    share.PASS,
    compose.PASS,
    shuffle.PASS,
    dense.PASS,
    around.PASS,
    lanes.PASS,
    crop.PASS,
    prelu.PASS,
    parity.PASS,
    affine.PASS,
    regroup.PASS,
    regroup.FEWEST,
    columns.PASS,
    deconvolve.PASS,
    pairs.PASS,
    max_min.PASS,
)

#: What each target is given: ``--rewrite`` takes these names too, ``tune`` tries them, and a build the one of its
#: runtime's row (engine/runtimes.py). "cpu" is ONNX Runtime there. Of TensorRT 8.5 to 11 no listing could be had, so
#: it is given single convolutions with their functions behind them, which NVIDIA documents as fused.
TARGETS: Mapping[str, Tuple[str, ...]] = {
    "cpu": ("default", "around", "lanes", "crop", "prelu"),
    "tensorrt": ("default",),
    "tensorrt-rtx": ("default", "affine", "fewest", "columns", "deconvolve", "pairs", "maxmin"),
}


def passes_named(text: str, folding: bool = True) -> Tuple[Pass, ...]:
    """The passes that ``--rewrite`` asks for, in the order of PASSES.

    Args:
        text: "default", "none", or names separated by commas, among which "default" stands for all default ones, and
            a name of ``TARGETS`` for all of that target.
        folding: False leaves the pass that folds out of the default ones (``--no-fold``).

    Raises:
        UsageError: a name does not exist; the message lists them. Or the pass that folds is named, and not wanted.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    asked = [name for part in parts for name in TARGETS.get(part, (part,))]
    known = {one.name for one in PASSES}
    for name in asked:
        if name not in known | {"default", "none"}:
            raise UsageError(
                f"--rewrite {text}: there is no pass {name!r}",
                "default, none, or a list of " + ", ".join(sorted(known | set(TARGETS))),
            )
    if "none" in asked and len(asked) > 1:
        raise UsageError(f"--rewrite {text}: none excludes the others", "default, none, or a list of passes")
    if FOLD.name in asked and not folding:
        raise UsageError(f"--rewrite {text} asks for the pass {FOLD.name}, and --no-fold not to fold", "one of the two")
    default = [one.name for one in PASSES if one.default and (folding or one is not FOLD)]
    return tuple(one for one in PASSES if one.name in asked or ("default" in asked and one.name in default))


def rewrite(
    model: onnx.ModelProto, passes: Sequence[Pass], options: RewriteOptions
) -> Tuple[onnx.ModelProto, Tuple[Tuple[Pass, PassResult], ...]]:
    """Run ``passes`` one after the other.

    Returns:
        The last graph, and each pass with its result, so that a caller can count what each one did.
    """
    steps = []
    for one in passes:
        result = one.apply(model, options)
        model = result.model
        steps.append((one, result))
    return model, tuple(steps)
