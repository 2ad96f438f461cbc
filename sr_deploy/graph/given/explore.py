"""The first runs of a given graph, in a process of its own whose memory and time have an end.

What a graph asks for shows only when it runs: a number in a tensor may make a picture of a terabyte or a product of a
year. So the process that runs it first may be refused memory and stopped; only a graph that came through is run here.

    python -m sr_deploy.graph.given.explore MODEL.onnx [only|too HEIGHT WIDTH]     prints one line of JSON
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple, Union

import numpy as np
import onnx

from sr_deploy.core.contract import Size, SizeRules, format_size
from sr_deploy.core.temporary import temporary_folder
from sr_deploy.graph.given.ends import LR
from sr_deploy.models.probing import NoSize, scale_and_sizes
from sr_deploy.models.resemblance import PICTURE_SIZE, RANGES, Evidence, Run, evidence_of

#: Address space of the process, bytes, and seconds until it is stopped. A network of 40 million weights at 48x64 takes
#: a tenth of both.
MOST_MEMORY, MOST_SECONDS = 6 << 30, 150


class Unrunnable(Exception):
    """The graph does not run, or not as a super-resolution network; the text says what happened.

    Args:
        whatever: whatever the layout of its ends, it would be the same.
    """

    def __init__(self, problem: str, whatever: bool = False) -> None:
        self.whatever = whatever
        super().__init__(problem)


@dataclass(frozen=True)
class Explored:
    """What running a graph told.

    Attributes:
        scale: output size over input size.
        sizes: the inputs it takes.
        evidence: of ``RANGES``.
    """

    scale: int
    sizes: SizeRules
    evidence: Evidence


def explore_apart(model: onnx.ModelProto, only: Optional[Size] = None, too: Optional[Size] = None) -> Explored:
    """``explore`` in a process of its own.

    Args:
        model: float32 (1, 3, H, W) "lr" to one output.
        only, too: see ``explore``.

    Raises:
        Unrunnable: it fails, gives no enlarged picture, or asks for more memory or time than any network.
    """
    with temporary_folder() as folder:
        path = folder / "given.onnx"
        path.write_bytes(model.SerializeToString())
        size = ["only", *map(str, only)] if only else ["too", *map(str, too)] if too else []
        words = [sys.executable, "-m", __name__, str(path), *size]
        try:
            done = subprocess.run(words, capture_output=True, timeout=MOST_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise Unrunnable(f"it was not done after {MOST_SECONDS} seconds", whatever=True) from None
    lines = done.stdout.decode("utf-8", "replace").strip().splitlines()
    if done.returncode != 0 or not lines:
        raise Unrunnable(
            f"it ended with the code {done.returncode}: more memory than {MOST_MEMORY >> 30} GiB, or a fault"
        )
    told: Dict[str, Any] = json.loads(lines[-1])
    if "problem" in told:
        raise Unrunnable(told["problem"])
    errors = {one: float("inf") if error is None else error for one, error in zip(RANGES, told["errors"])}
    return Explored(told["scale"], SizeRules(told["minimum"], told["multiple"]), Evidence(errors))


def runner_of(graph: Union[Path, onnx.ModelProto]) -> Run:
    """A graph or its file as a function of a picture, unoptimised, so that opening it computes nothing."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = str(graph) if isinstance(graph, Path) else graph.SerializeToString()
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return lambda lr: np.asarray(session.run(None, {LR: lr})[0])


def explore(run: Run, only: Optional[Size] = None, too: Optional[Size] = None) -> Explored:
    """Find scale, sizes and value range by running a network.

    Args:
        run: float32 (1, 3, H, W) to its output.
        only: the only input (height, width) it takes; None: any.
        too: an input that must work besides those that are tried.

    Raises:
        Unrunnable: see ``explore_apart``.
    """

    def shape_of(at: Size) -> Tuple[int, ...]:
        return run(np.zeros((1, 3, *at), np.float32)).shape

    if only is not None:
        scale, rules = _scale_at(shape_of, only), SizeRules()
    else:
        try:
            scale, rules = scale_and_sizes(shape_of)
        except NoSize as error:
            raise Unrunnable(str(error)) from error
        if too is not None and _scale_at(shape_of, (rules.fit(too[0]), rules.fit(too[1]))) != scale:
            raise Unrunnable("it enlarges larger pictures by another factor")
    picture_size = only or (rules.fit(PICTURE_SIZE[0]), rules.fit(PICTURE_SIZE[1]))
    return Explored(scale, rules, evidence_of(dict.fromkeys(RANGES, run), picture_size, scale))


def _scale_at(shape_of: Callable[[Size], Tuple[int, ...]], size: Size) -> int:
    try:
        shape = shape_of(size)
    except Exception as error:
        raise Unrunnable(f"running it failed: {type(error).__name__}: {error}".splitlines()[0]) from error
    scale = shape[-1] // size[1] if len(shape) == 4 else 0
    if scale < 1 or shape != (1, 3, scale * size[0], scale * size[1]):
        raise Unrunnable(f"it gives {shape} for an input of {format_size(size)}")
    return scale


def main(words: List[str]) -> None:
    """The process: one line of JSON."""
    _limit_memory()
    sizes = {words[1]: (int(words[2]), int(words[3]))} if len(words) > 3 else {}
    try:
        found = explore(runner_of(Path(words[0])), sizes.get("only"), sizes.get("too"))
    except Unrunnable as error:
        answer: Dict[str, Any] = {"problem": str(error)[:2000]}
    except Exception as error:  # ONNX Runtime's exceptions have no common base below Exception
        answer = {"problem": f"ONNX Runtime cannot open it: {error}"[:2000].splitlines()[0]}
    else:
        errors = [found.evidence.errors[reading] for reading in RANGES]
        answer = {
            "scale": found.scale,
            "minimum": found.sizes.minimum,
            "multiple": found.sizes.multiple,
            "errors": [error if np.isfinite(error) else None for error in errors],
        }
    print(json.dumps(answer))


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limit; the time is limited all the same
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = MOST_MEMORY if hard == resource.RLIM_INFINITY else min(MOST_MEMORY, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))


if __name__ == "__main__":
    main(sys.argv[1:])
