"""Which layers can stay in 8 bits at the least noise: by their errors as pictures, every pair swapped.

    python tests/benchmarks/quiet_sets.py --deployments FOLDER --only span_ch26_x4.pth --share 0.5

Each layer alone in INT8 and in FP8, weights fitted with all of them in it, everything else float32: what it changes of
the unrounded luma of two pictures is its error. Where errors add up, the noise of any set is the sum over its pairs of
the errors' inner products. The set of least noise with the wanted share of the multiply-accumulates is sought by taking
the quietest and swapping each layer of it for each left out, and each pair for each pair, until no swap makes it
quieter; then it is fitted, and judged as ``auto`` judges. Data is found through SRDEPLOY_ASSETS (default ../shared).
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path
from typing import Dict, List, Sequence, Tuple

import numpy as np

from sr_deploy.core.media.image import to_network
from sr_deploy.pipeline.precision.deployed_plan import PrecisionOptions
from sr_deploy.pipeline.precision.int8 import everywhere, gather, improved, narrow_of
from sr_deploy.pipeline.precision.plan_inputs import Workbench, workbench
from sr_deploy.pipeline.precision.plan_needs import plannable
from sr_deploy.precision.choose.plan_from_ranges import NarrowChoice, narrow_plan
from sr_deploy.precision.evaluate import SHRUNK, computing
from sr_deploy.precision.lower.typed_graph import typed_graph
from tests.benchmarks.number_types import deployed
from tests.benchmarks.precision_quality import photographs

#: Luma of BT.601 from RGB in 0…255.
_LUMA = np.array([65.481, 128.553, 24.966]) / 255


def say(text: str) -> None:
    """Progress to stderr."""
    print(text, file=sys.stderr, flush=True)


def errors(bench: Workbench, material, names: Sequence[str], kind: str) -> np.ndarray:
    """What each layer alone in one format changes, (layers, pixels), in 8-bit steps of the luma."""
    formats = dict.fromkeys(names, kind)
    _, weights, _ = everywhere(bench, material, PrecisionOptions("int8"), formats, say)
    inputs = [to_network(one.lr, bench.contract) for one in bench.scenes if one.kind == SHRUNK][:2]
    owned = {node.name: set(node.input) for node in bench.model.graph.node}

    def luma(compute) -> np.ndarray:
        white = bench.contract.value_range
        return np.concatenate(
            [np.tensordot(_LUMA, np.clip(compute(one)[0], 0, white) * (255 / white), 1).ravel() for one in inputs]
        )

    exact = luma(computing(bench.model))
    found = []
    for name in names:
        own = {constant: value for constant, value in weights.items() if constant in owned[name]}
        alone = NarrowChoice((name,), formats, skips=False, rest="float32")
        plan = narrow_plan(bench.model, bench.kinds, "", material.scales, alone, own)
        found.append(luma(computing(typed_graph(bench.model, plan, own))) - exact)
    return np.stack(found)


def quietest(gram: np.ndarray, work: np.ndarray, least: float) -> Tuple[List[int], int]:
    """Indices of a set with that much work which no swap of one or two layers makes quieter, and the swaps tried."""
    chosen: List[int] = []
    for index in np.argsort(np.diag(gram) / work):
        if work[chosen].sum() < least:
            chosen.append(int(index))
    tried = 0
    while True:
        outside = [index for index in range(len(work)) if index not in chosen]
        swaps = [
            [index for index in chosen if index not in gone] + list(come)
            for size in (1, 2)
            for gone in itertools.combinations(chosen, size)
            for come in itertools.combinations(outside, size)
        ]
        tried += len(swaps)
        enough = [other for other in swaps if work[other].sum() >= least]
        best = min(enough, key=lambda other: gram[np.ix_(other, other)].sum(), default=chosen)
        if gram[np.ix_(best, best)].sum() >= gram[np.ix_(chosen, chosen)].sum() - 1e-9:
            return chosen, tried
        chosen = best


def main() -> None:
    """See the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deployments", type=Path, default=Path("types"))
    parser.add_argument("--only", nargs="*", default=("span_ch26_x4.pth", "efdn_x2.pth"))
    parser.add_argument("--share", type=float, default=0.5)
    parser.add_argument("--photographs", type=int, default=100)
    asked = parser.parse_args()
    for checkpoint in asked.only:
        deployment = deployed(asked.deployments, checkpoint)
        options = PrecisionOptions("int8", images=photographs(asked.deployments, asked.photographs))
        bench = workbench(deployment, plannable(deployment), options, say)
        material = gather(deployment, bench, options, say)
        names = [name for name in bench.kinds.candidates if name not in bench.kinds.wide]
        work = np.array([bench.kinds.candidates[name] / bench.kinds.macs for name in names])
        each = {kind: errors(bench, material, names, kind) for kind in ("int8", "float8")}
        formats: Dict[str, str] = {
            name: min(each, key=lambda kind: float(np.mean(each[kind][index] ** 2))) for index, name in enumerate(names)
        }
        chosen_errors = np.stack([each[formats[name]][index] for index, name in enumerate(names)])
        gram = chosen_errors @ chosen_errors.T / chosen_errors.shape[1]
        diagonal = np.diag(gram)
        related = np.abs(gram / np.sqrt(np.outer(diagonal, diagonal)) - np.eye(len(names))).max()
        chosen, tried = quietest(gram, work, asked.share)
        narrow = tuple(names[index] for index in sorted(chosen))
        plan, weights = improved(bench, narrow_of(bench, material, NarrowChoice(narrow, formats)), material, True)
        judged = bench.judged(plan, weights)
        loss = [one.loss for one in judged.each if one.kind == SHRUNK]
        print(
            f"{checkpoint}: {len(names)} layers, errors related by {related:.2f} at most; {len(narrow)} of them with "
            f"{work[chosen].sum():.0%} of the work make {gram[np.ix_(chosen, chosen)].sum():.3f} (8-bit steps)² of "
            f"noise together ({diagonal[chosen].sum():.3f} one by one; {tried} swaps tried); fitted they lose "
            f"{np.mean(loss):+.4f} dB on shrunk photographs, and {judged.worst.loss:+.4f} in {judged.worst.name}"
        )


if __name__ == "__main__":
    main()
