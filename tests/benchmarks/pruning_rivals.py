"""Torch-Pruning on the networks of compress_table.py: what it can prune, and how much of the network is left after it.

    python tests/benchmarks/pruning_rivals.py --python TP/bin/python            every network
    python tests/benchmarks/pruning_rivals.py --python TP/bin/python --only span

TP is an environment with this project, its torch, and ``pip install --no-deps torch-pruning``; without it this says so,
and that nothing was measured. Torch-Pruning (Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023) is
given the folded network in PyTorch, as a user would: the layers that make the picture are left out. What is asked for
is a share of the channels; the one whose multiply-accumulates are nearest below the budget is searched. Every network
and way runs in a process of its own, which is ended after ``--limit`` seconds of CPU. One thread. Fidelity: PSNR to the
whole network on the photographs that compress keeps back. Data is found through SRDEPLOY_ASSETS (default ../shared).
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import resource
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, List, Optional, Sequence, Tuple

ROOT = Path(__file__).resolve().parents[2]
ASSETS = Path(os.environ.get("SRDEPLOY_ASSETS", ROOT.parent / "shared"))
PHOTOGRAPHS = ASSETS / "images" / "calibration" / "DIV2K_test_LRx4"
#: File, share of multiply-accumulates that may be left.
NETWORKS = (
    ("f2srgan_x4_student.pt", 0.599),
    ("span_ch26_x4.pth", 0.7),
    ("efdn_x4.pth", 0.7),
    ("f2srgan_x4.pt", 0.6),
)
WAYS = ("l1", "lamp", "random")
#: Halvings of the range of shares of channels.
SEARCHES = 7
SIDE, JUDGED = 48, 96


@dataclass(frozen=True)
class Row:
    """What came of one network and one way; ``error`` is "" where something did."""

    macs: float = 0.0
    share: float = 0.0
    parameters: int = 0
    touched: str = ""
    fidelity: float = 0.0
    psnr: Tuple[float, ...] = ()
    error: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, help="of the environment with Torch-Pruning")
    parser.add_argument("--only", default="", help="networks with this in their name")
    parser.add_argument("--limit", type=float, default=200.0, help="seconds of CPU for a network and a way")
    parser.add_argument("--worker", nargs=3, metavar=("FILE", "WAY", "SHARE"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        print(json.dumps(pruned(asked.worker[0], asked.worker[1], float(asked.worker[2])).__dict__))
        return
    version = _version(asked.python)
    if not version:
        found = f"{asked.python} has no torch_pruning" if asked.python else "no interpreter was named"
        print(f"nothing was measured: {found}; --python takes one that has it")
        return
    print(f"Torch-Pruning {version}\n")
    print("| network | way | MACs a pixel | parameters | convolutions made narrower | dB to the whole | Set5 / Set14 |")
    print("|---|---|---|---|---|---|---|")
    for file, share in NETWORKS:
        for way in WAYS if asked.only in file else ():
            row = _measured(asked, (file, way, str(share)))
            cells = [row.error, *[""] * 4] if row.error else [
                f"{row.macs:,.0f} ({row.share:.3f})", f"{row.parameters:,}", row.touched, f"{row.fidelity:.2f}",
                " / ".join(f"{value:.3f}" for value in row.psnr),
            ]  # fmt: skip
            print("| " + " | ".join([file.split(".")[0], way, *cells]) + " |", flush=True)


def _version(python: Optional[Path]) -> str:
    if python is None or not python.exists():
        return ""
    told = subprocess.run(
        [str(python), "-c", "import torch_pruning; from importlib.metadata import version as v; "
         "print(v('torch-pruning'))"], capture_output=True, text=True,
    )  # fmt: skip
    return told.stdout.strip()


def _measured(asked: argparse.Namespace, words: Sequence[str]) -> Row:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "SRDEPLOY_ASSETS": str(ASSETS)}
    command = [str(asked.python), str(Path(__file__).resolve()), "--worker", *words]
    limits = (int(asked.limit), int(asked.limit) + 5)
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, limits),
    )  # fmt: skip
    if done.returncode == -signal.SIGXCPU:
        return Row(error=f"did not end within {asked.limit:g} s of CPU")
    if done.returncode:
        return Row(error=(done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:160])
    return Row(**json.loads(done.stdout.splitlines()[-1]))


def pruned(file: str, way: str, most: float) -> Row:
    """A network pruned as far as a budget asks; the search is over the share of channels that go."""
    import torch

    network = _folded(file)
    example = torch.zeros(1, 3, 32, 32)
    whole = _counts(network, example)
    low, high, best = 0.0, 0.95, None
    for _ in range(SEARCHES):
        ratio = (low + high) / 2
        narrow = _cut(network, example, way, ratio)
        if _counts(narrow, example)[0] > most * whole[0]:
            low = ratio
        else:
            high, best = ratio, narrow
    if best is None:
        return Row(error=f"with 95 % of the channels gone more than {most:g} of the multiply-accumulates are left")
    macs, parameters = _counts(best, example)
    return Row(
        macs, macs / whole[0], parameters, _touched(network, best), _fidelity(network, best), _psnr(best, network)
    )


def _folded(file: str) -> Any:
    from sr_deploy.fold import fold
    from sr_deploy.pipeline.load import LoadOptions, load_model

    _, loaded = load_model(ASSETS / "weights" / file, LoadOptions())
    module = fold(loaded.module, value_range=loaded.value_range).module.eval()
    module.requires_grad_(True)  # Torch-Pruning finds layers by their gradients
    module.white, module.enlarges = loaded.value_range, loaded.scale
    return module


def _cut(network: Any, example: Any, way: str, ratio: float) -> Any:
    import torch_pruning as tp

    network = copy.deepcopy(network)
    importance = {
        "l1": lambda: tp.importance.GroupMagnitudeImportance(p=1),
        "lamp": lambda: tp.importance.LAMPImportance(p=2),
        "random": tp.importance.RandomImportance,
    }[way]()
    # LAMP's scores are made to be compared over all layers; of the other two every layer gives the same share.
    pruner = tp.pruner.BasePruner(
        network, example, importance, global_pruning=way == "lamp", pruning_ratio=ratio, max_pruning_ratio=0.95,
        ignored_layers=_left_out(network, example),
    )  # fmt: skip
    pruner.step()
    return network


def _left_out(network: Any, example: Any) -> List[Any]:
    """The last convolution, and those whose result a pixel shuffle takes: of these no channel can go alone."""
    import torch

    order: List[Any] = []
    hooks = [module.register_forward_hook(lambda module, *_: order.append(module)) for module in network.modules()
             if not list(module.children())]  # fmt: skip
    with torch.no_grad():
        network(example)
    for hook in hooks:
        hook.remove()
    convolutions = [index for index, module in enumerate(order) if isinstance(module, torch.nn.Conv2d)]
    found = [order[convolutions[-1]]]
    for index, module in enumerate(order):
        before = [at for at in convolutions if at < index]
        if isinstance(module, torch.nn.PixelShuffle) and before:
            found.append(order[before[-1]])
    return list(dict.fromkeys(found))


def _counts(network: Any, example: Any) -> Tuple[float, int]:
    """Multiply-accumulates of convolutions for a pixel of the input, and parameters."""
    import torch

    total = 0.0

    def count(module: Any, _: Any, result: Any) -> None:
        nonlocal total
        total += result.numel() * module.weight[0].numel()

    hooks = [module.register_forward_hook(count) for module in network.modules() if isinstance(module, torch.nn.Conv2d)]
    with torch.no_grad():
        network(example)
    for hook in hooks:
        hook.remove()
    return total / example[0, 0].numel(), sum(one.numel() for one in network.parameters())


def _touched(whole: Any, narrow: Any) -> str:
    import torch

    pairs = zip(whole.modules(), narrow.modules())
    widths = [(one.out_channels, other.out_channels) for one, other in pairs if isinstance(one, torch.nn.Conv2d)]
    return f"{sum(before != after for before, after in widths)} of {len(widths)}"


def _fidelity(whole: Any, narrow: Any) -> float:
    import numpy as np
    import torch

    from sr_deploy.core.contract import IOContract
    from sr_deploy.core.media.image import find_images, read_picture, to_network
    from sr_deploy.train.patches import pool_of

    contract = IOContract(whole.white)
    images = [to_network(read_picture(file), contract) for file in find_images([PHOTOGRAPHS])]
    squares = torch.from_numpy(pool_of(images, SIDE, JUDGED).judged)
    with torch.no_grad():
        errors = [float(((whole(one[None]) - narrow(one[None])) ** 2).mean()) for one in squares]
    return float(10.0 * np.log10(whole.white**2 / np.mean(errors)))


def _psnr(narrow: Any, whole: Any) -> Tuple[float, ...]:
    import numpy as np
    import torch

    from sr_deploy.core.contract import IOContract
    from sr_deploy.core.media.image import from_network, read_picture, to_network
    from sr_deploy.core.quality.metrics import CRITERION
    from sr_deploy.core.quality.pairing import pair_images
    from sr_deploy.core.quality.psnr_ssim import crop_like

    contract, scale, means = IOContract(whole.white), whole.enlarges, []
    for name in ("Set5", "Set14"):
        folder, values = ASSETS / "images" / name, []
        for _, low_path, high_path in pair_images(folder / "LR_bicubic" / f"X{scale}", folder / "HR", scale):
            low = read_picture(low_path)
            with torch.no_grad():
                made = narrow(torch.from_numpy(to_network(low, contract))).numpy()
            pixels = from_network(made, contract, low).pixels
            high = crop_like(read_picture(high_path).pixels, pixels, str(high_path))
            values.append(CRITERION.of(pixels, high, scale))
        means.append(float(np.mean(values)))
    return tuple(means)


if __name__ == "__main__":
    main()
