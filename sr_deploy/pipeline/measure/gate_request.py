"""What ``srdeploy gate`` is asked for, which of its options belong together, and the budget that comes of it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Tuple

from sr_deploy.bench.interleave import InterleaveOptions
from sr_deploy.core.contract import Size
from sr_deploy.core.errors import UsageError
from sr_deploy.report.budget import Budget, read_budget

#: The four things that the gate does.
IN_TURN, FILES, ALONE, UPDATE = "--interleave", "two results", "one result", "--update-baseline"
_JUDGED = (IN_TURN, FILES, ALONE)

#: In which of them an option has an effect; elsewhere it is refused. Options that are not here have one everywhere.
EFFECTIVE: Dict[str, Tuple[str, ...]] = {
    "--size": (IN_TURN,),
    "--threads": (IN_TURN,),
    "--max-seconds": (IN_TURN,),
    "--seed": (IN_TURN,),
    "--threshold": (IN_TURN, FILES),
    "--floor-us": (IN_TURN, FILES),
    "--run-noise": (FILES,),
    "--budget": _JUDGED,
    "--quality": _JUDGED,
    "--junit": _JUDGED,
    "--markdown": _JUDGED,
    "--github": _JUDGED,
    "--baselines": (UPDATE,),
}
#: Options that choose among what a deployment holds; a result file is what it is.
CHOOSING = ("--backend", "--precision", "--scope")


@dataclass(frozen=True)
class GateRequest:
    """What ``srdeploy gate`` is asked for.

    Attributes:
        candidate: a result file, or a deployment folder.
        baseline: the same; None judges the candidate by the budget alone.
        budget: a TOML file, see report/budget.py; None for the defaults and no absolute bounds.
        threshold_percent, floor_us, run_noise_percent: in place of the budget's; None leaves those.
        quality: the JSON report of ``srdeploy verify`` for the candidate; None takes the one kept in its deployment.
        in_turn: run both deployments, A B B A …, in this process.
        sizes: inputs (height, width) to run in turn.
        backend, precision, threads: of both, see ``runner_for``.
        scope: what one sample spans.
        rounds: of running in turn.
        watch: mark sessions invalid in which the machine throttled or changed its clocks.
    """

    candidate: Path
    baseline: Optional[Path] = None
    budget: Optional[Path] = None
    threshold_percent: Optional[float] = None
    floor_us: Optional[float] = None
    run_noise_percent: Optional[float] = None
    quality: Optional[Path] = None
    in_turn: bool = False
    sizes: Tuple[Size, ...] = ()
    backend: Optional[str] = None
    precision: Optional[str] = None
    threads: Optional[int] = None
    scope: str = "compute"
    rounds: InterleaveOptions = InterleaveOptions()
    watch: bool = True


def mode_of(count: int, in_turn: bool, update: bool) -> str:
    """IN_TURN, FILES, ALONE or UPDATE.

    Args:
        count: results or deployments that were given.
        in_turn, update: whether --interleave and --update-baseline were.

    Raises:
        UsageError: more than two, or both options.
    """
    if count > 2:
        raise UsageError(f"{count} results are given", "a baseline and a candidate, or a candidate alone")
    if in_turn and update:
        raise UsageError("--update-baseline judges nothing, so nothing is run for it", "it without --interleave")
    if in_turn:
        return IN_TURN
    return UPDATE if update else FILES if count == 2 else ALONE


def check_options(mode: str, given: Mapping[str, Any], paths: Tuple[Path, ...]) -> None:
    """Refuse options without effect.

    Args:
        mode: IN_TURN, FILES, ALONE or UPDATE.
        given: options by name; None, False and () are not given.
        paths: the results or deployments.

    Raises:
        UsageError: naming the option, and what it belongs to.
    """
    asked = [name for name, value in given.items() if value not in (None, False, ())]
    for name in asked:
        modes = EFFECTIVE.get(name, (mode,))
        if mode not in modes:
            raise UsageError(
                f"{name} has no effect with {mode}", f"{name} with {' or '.join(modes)}, or without it", _advice(name)
            )
    files = [path for path in paths if not Path(path).is_dir()]
    if len(files) == len(paths):
        for name in (one for one in CHOOSING if one in asked):
            raise UsageError(
                f"{name} has no effect on result files", "deployment folders, of which it chooses, or none of it"
            )


def _advice(name: str) -> str:
    return "srdeploy gate BASELINE CANDIDATE --interleave" if EFFECTIVE[name] == (IN_TURN,) else "srdeploy gate --help"


def budget_of(request: GateRequest) -> Budget:
    """The budget file's, with what the request puts in its place.

    Raises:
        UsageError: a negative bound, or one result alone without a budget.
        BadInput: see ``read_budget``.
    """
    if request.baseline is None and request.budget is None:
        raise UsageError(
            f"{request.candidate} is given alone, and without a budget there is nothing to hold it against",
            "a baseline or a budget",
            "srdeploy gate BASELINE CANDIDATE, or srdeploy gate --budget FILE CANDIDATE",
        )
    budget = Budget() if request.budget is None else read_budget(request.budget)
    names = ("threshold_percent", "floor_us", "run_noise_percent")
    asked = {name: getattr(request, name) for name in names if getattr(request, name) is not None}
    for name, value in asked.items():
        if not 0 <= value < float("inf"):
            raise UsageError(f"--{name.replace('_', '-')} {value}", "a number that is not negative")
    return dataclasses.replace(budget, **asked)
