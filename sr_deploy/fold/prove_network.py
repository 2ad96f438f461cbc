"""Prove that the folded network is the original, and find the block that is to blame when it is not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import List, Mapping, Optional, Tuple

import torch

from sr_deploy.core.contract import Size, format_size
from sr_deploy.core.errors import BadInput, CheckFailed
from sr_deploy.core.media.natural import natural_input
from sr_deploy.core.tolerance import FOLD_FLOAT32_RELATIVE, FOLD_FLOAT64_RELATIVE
from sr_deploy.fold.affine import ROUNDING, relative_error
from sr_deploy.fold.double import copy_as, evaluate
from sr_deploy.fold.repeatable import check_repeats

Replacements = Mapping[str, torch.nn.Module]
#: A deep network magnifies rounding; in float32 the folded one may lose this many times what the original loses.
ROUNDING_ALLOWED = 8.0
#: Half the distance of float32 numbers around 1: what the original's loss over this says is how much it magnifies.
FLOAT32_ROUNDING = 2.0**-24
_USED_OTHERWISE = (
    "use the network without folding, and report the block: its own proof passed, so the network uses it in a way that "
    "a convolution does not offer (its attributes, its memory, or which tensor it gives)"
)


@dataclass(frozen=True)
class WholeProof:
    """How far the folded network is from the original in float64; see FoldReport.

    Attributes:
        noise_overflows: the original's output is finite on photographs and not on noise: it was proved on these.
    """

    error_float32: float
    error_original_float32: float
    error_float64: Optional[float]
    sizes: Tuple[Size, ...]
    noise_overflows: bool = False


@dataclass(frozen=True)
class _Case:
    """One input and what the original makes of it.

    Attributes:
        x: float32.
        reference: the output in float64 (the float32 one where the network does not run in float64).
        exact: the reference is in float64.
        rounding: relative error of the float32 output; without a float64 one, its change when the input changes by one
            rounding.
    """

    x: torch.Tensor
    reference: torch.Tensor
    exact: bool
    rounding: float


def with_replacements(module: torch.nn.Module, replacements: Replacements, dtype: torch.dtype) -> torch.nn.Module:
    """A copy of ``module`` in ``dtype`` with the sub-modules at the given paths replaced, wherever they stand."""
    if "" in replacements:
        return copy_as(replacements[""], dtype)
    folded = copy_as(module, dtype)
    by_id = {id(folded.get_submodule(path)): copy_as(new, dtype) for path, new in replacements.items()}
    for parent in list(folded.modules()):
        # Not named_children(): it gives a module that stands in two places of one parent only once.
        for name, child in list(parent._modules.items()):
            if id(child) in by_id:
                setattr(parent, name, by_id[id(child)])
    return folded


def prove_network(
    network32: torch.nn.Module,
    network64: torch.nn.Module,
    replacements: Replacements,
    shape: Tuple[int, ...],
    value_range: float,
) -> WholeProof:
    """Compare the network with ``replacements`` with the original at ``shape``, at an even and at an odd size.

    Twice: in float64, where a wrong replacement cannot hide in rounding (Fourier units, whose coefficients are already
    float32, stay as they were), and in float32 against the original in float64. Both bounds widen where the original
    itself magnifies rounding. A size other than the given one at which the original does not run is left out.

    Args:
        network32, network64: the original in both types.
        replacements: path → module, float64 convolutions and float32 Fourier units.
        shape: (N, C, H, W) of the input that the network is known to take.
        value_range: inputs span ``0…value_range``.

    Raises:
        BadInput: the original's output is not one finite tensor, or is another one on a second run.
        CheckFailed: the folded network differs too much or does not run; the message names the block to blame.
    """
    height, width = shape[2:]
    sizes = [(height, width)]
    if replacements:  # without any, the network is the original, and one size tells its rounding
        sizes += [(height + height % 2, width + width % 2), (height | 1, width | 1)]
    cases, overflows = _cases(network32, network64, shape[:2], tuple(dict.fromkeys(sizes)), value_range)
    before = max(case.rounding for case in cases)
    proved = tuple(dict.fromkeys((case.x.shape[2], case.x.shape[3]) for case in cases))
    if not replacements:
        return WholeProof(before, before, 0.0 if cases[0].exact else None, proved, overflows)
    error64 = None
    if cases[0].exact:
        exact = {path: new for path, new in replacements.items() if isinstance(new, torch.nn.Conv2d)}
        error64 = _error_of(network64, exact, cases, torch.float64)
        allowed = max(FOLD_FLOAT64_RELATIVE, ROUNDING * before / FLOAT32_ROUNDING)
        if error64 > allowed:
            raise _blame(network64, exact, cases, torch.float64, error64, allowed, _USED_OTHERWISE)
    error32 = _error_of(network32, replacements, cases, torch.float32)
    allowed = max(FOLD_FLOAT32_RELATIVE, ROUNDING_ALLOWED * before)
    if error32 > allowed:
        todo = _USED_OTHERWISE
        if error64 is not None and math.isfinite(error32):
            todo = (
                f"in float64 the convolutions are right to {error64:.1e} and the original's own float32 output is "
                f"{before:.1e} off: see whether its weights and the value range are what they should be"
            )
        raise _blame(network32, replacements, cases, torch.float32, error32, allowed, todo)
    return WholeProof(error32, before, error64, proved, overflows)


def _cases(
    network32: torch.nn.Module,
    network64: torch.nn.Module,
    channels: Tuple[int, ...],
    sizes: Tuple[Size, ...],
    value_range: float,
) -> Tuple[List[_Case], bool]:
    """Inputs of (batch, channels) ``channels`` at those of ``sizes`` that the original takes, and what it gives.

    Random ones, and a photograph at the first size. Where noise overflows, photographs at all sizes.

    Returns:
        (cases, whether noise overflows).
    """
    random = torch.Generator().manual_seed(24)
    cases: List[_Case] = []
    overflows = False
    for size in sizes:
        noise = torch.rand((*channels, *size), generator=random) * value_range
        photograph = _photograph(channels, size, value_range)
        try:
            own = _finite_output(network32, photograph if overflows else noise)
        except Exception:  # it may have rules for its sizes; the first one is known to run
            if not cases:
                raise
            continue
        if own is None and not overflows:
            overflows, own = True, _finite_output(network32, photograph)
        if own is None:
            where = f"neither on noise nor on a photograph of {format_size(size)}"
            raise BadInput(f"the network's own output is not finite, {where}", "finite values", "check its weights")
        if not cases:
            check_repeats(network32, photograph)
            if not overflows:
                natural = _finite_output(network32, photograph)
                if natural is None:
                    where = f"on a photograph of {format_size(size)}"
                    raise BadInput(f"the network's own output {where} is not finite", "finite values", "check it")
                cases.append(_case(network32, network64, photograph, natural))
        cases.append(_case(network32, network64, photograph if overflows else noise, own))
    return cases, overflows


def _photograph(channels: Tuple[int, ...], size: Size, value_range: float) -> torch.Tensor:
    """Parts of the photograph that ships, (batch, channels, height, width) in ``0…value_range``."""
    parts = [torch.from_numpy(natural_input(size, value_range, part)[0]) for part in range(channels[0])]
    return torch.stack([part[[plane % 3 for plane in range(channels[1])]] for part in parts])


def _finite_output(network: torch.nn.Module, x: torch.Tensor) -> Optional[torch.Tensor]:
    """The output, None where it is not finite; what the network raises is passed on."""
    own = evaluate(network, x.clone())
    if not isinstance(own, torch.Tensor):
        where = f"on a picture of {format_size((x.shape[2], x.shape[3]))}"
        raise BadInput(f"the network gives a {type(own).__name__} {where}", "one tensor", "wrap it to give one")
    return own if bool(torch.isfinite(own).all()) else None


def _case(network32: torch.nn.Module, network64: torch.nn.Module, x: torch.Tensor, own: torch.Tensor) -> _Case:
    reference = _in_float64(network64, x)
    if reference is None:
        rounding = relative_error(evaluate(network32, x * (1 + 2 * FLOAT32_ROUNDING)), own)
    else:
        rounding = relative_error(own, reference)
    return _Case(x, own if reference is None else reference, reference is not None, rounding)


def _in_float64(network64: torch.nn.Module, x: torch.Tensor) -> Optional[torch.Tensor]:
    """The original's output in float64, None where it insists on float32 somewhere."""
    try:
        return evaluate(network64, x.double())
    except Exception:  # its blocks are still proved one by one, and the whole in float32
        return None


def _error_of(network: torch.nn.Module, replacements: Replacements, cases: List[_Case], dtype: torch.dtype) -> float:
    """Largest relative error of the network with ``replacements``; infinity where it raises or gives another shape."""
    folded = with_replacements(network, replacements, dtype)
    worst = 0.0
    for case in cases:
        try:
            out = evaluate(folded, case.x.to(dtype, copy=True))
        except Exception:  # whatever a stranger's code raises when a part of it was replaced
            return math.inf
        if not isinstance(out, torch.Tensor) or out.shape != case.reference.shape:
            return math.inf
        worst = max(worst, relative_error(out, case.reference))
    return worst


def _blame(
    network: torch.nn.Module,
    replacements: Replacements,
    cases: List[_Case],
    dtype: torch.dtype,
    error: float,
    allowed: float,
    todo: str,
) -> CheckFailed:
    """The error to raise: each replacement alone is put into the original; the one that differs most is named."""
    alone = {path: _error_of(network, {path: new}, cases, dtype) for path, new in replacements.items()}
    worst = max(alone, key=lambda path: alone[path])
    what = "does not run or gives another shape" if math.isinf(error) else f"differs from the original by {error:.1e}"
    return CheckFailed(
        f"the folded network {what} (relative, {str(dtype)[6:]}, {len(replacements)} blocks replaced); "
        f"the block {worst or '(root)'} alone brings {alone[worst]:.1e}",
        f"at most {allowed:.1e}",
        todo,
    )
