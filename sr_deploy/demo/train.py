"""Train the network that ships: a SPAN with 12 channels in its training form, on pictures shrunk by bicubic.

    python -m sr_deploy.demo.train --scale 2 --images FOLDER --minutes 25 -o demo_x2.safetensors

L1 loss, Adam, cosine schedule over the time given, one thread. Stopped, it goes on where it was when started again with
the same arguments. The order of patches depends on the seed alone; how many steps fit into the time, on the machine.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MethodType
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from sr_deploy.core.artifact import atomic_file
from sr_deploy.core.contract import IOContract
from sr_deploy.core.errors import BadImage, SrDeployError
from sr_deploy.core.media.bicubic import crop_to_multiple, resize
from sr_deploy.core.media.image import find_images, from_network, read_picture, to_network
from sr_deploy.core.quality.metrics import CRITERION
from sr_deploy.core.quality.pairing import pair_images
from sr_deploy.core.quality.psnr_ssim import crop_like
from sr_deploy.models.architectures.span import SPANNetwork, fresh_span
from sr_deploy.models.blocks.conv3xc import Conv3XC
from sr_deploy.train.descend import descend
from sr_deploy.train.loop import Course, Moment, train
from sr_deploy.train.losses.pictures import l1
from sr_deploy.train.patches import Pairs, squares_of
from sr_deploy.train.schedule import Schedule
from sr_deploy.train.state import Keeping, key_of

WIDTH = 12
GAIN = 2
BATCH = 16
#: Input pixels on a side of a training patch.
PATCH = 24
LEARNING_RATE = 2e-3
LAST_LEARNING_RATE = 1e-5
WARM_UP_STEPS = 200
#: Steps between two lines that tell how it goes.
TOLD_EVERY = 200

Pair = Tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Plan:
    """What must be the same when a stopped training goes on.

    Attributes:
        scale: 2, 3 or 4.
        minutes: length of the schedule.
        seed: of the first weights and of the order of patches.
        pictures: how many there are.
    """

    scale: int
    minutes: float
    seed: int
    pictures: int


def training_pairs(folder: Path, scale: int) -> List[Pair]:
    """The pictures of a folder with their bicubic reductions: (low, high), both uint8 (H, W, 3) RGB.

    Raises:
        BadImage: no pictures, one that is not 8-bit colour, or one too small for a patch.
    """
    pairs = []
    for path in find_images([folder]):
        picture = read_picture(path)
        if picture.kind != "rgb" or picture.depth != 8:
            raise BadImage(f"{path} is {picture.kind}, {picture.depth} bit", "8-bit colour pictures", "take it out")
        high = crop_to_multiple(picture.pixels, scale)
        if min(high.shape[:2]) < PATCH * scale:
            raise BadImage(
                f"{path} is too small to train on",
                f"{PATCH * scale} pixels or more each way",
                "give larger photographs",
            )
        pairs.append((resize(high, (high.shape[0] // scale, high.shape[1] // scale)), high))
    return pairs


def batch_of(pairs: Sequence[Pair], seed: int, step: int) -> Tuple[torch.Tensor, torch.Tensor]:
    """Patches for one step, turned and mirrored at random: (16, 3, 24, 24) and (16, 3, 24·scale, 24·scale) in 0…1.

    The same ``seed`` and ``step`` give the same patches, so a training that goes on needs no stored random state.
    """
    low, high = (tuple(picture.transpose(2, 0, 1) for picture in pictures) for pictures in zip(*pairs))
    lows, highs = squares_of(Pairs(low, high), seed, step, BATCH, PATCH)
    return torch.from_numpy(lows).float() / 255.0, torch.from_numpy(highs).float() / 255.0


def fresh_network(scale: int, seed: int) -> SPANNetwork:
    """The network as its training begins: see models/start.py."""
    torch.manual_seed(seed)
    return fresh_span(scale, WIDTH, GAIN)


def _parameters(convolution: torch.nn.Module) -> Tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of a convolution that has both."""
    assert isinstance(convolution, torch.nn.Conv2d) and convolution.bias is not None
    return convolution.weight, convolution.bias


def _as_one_convolution(block: Conv3XC, x: torch.Tensor) -> torch.Tensor:
    """A Conv3XC's forward pass through the one 3x3 convolution that its branches are; gradients reach the branches."""
    (first, first_bias), (middle, middle_bias), (last, last_bias) = map(_parameters, block.conv)
    skip, skip_bias = _parameters(block.sk)
    after = last.flatten(1)
    weight = torch.einsum("om,mnhw->onhw", after, torch.einsum("mkhw,kn->mnhw", middle, first.flatten(1)))
    weight = weight + F.pad(skip, (1, 1, 1, 1))
    bias = after @ (middle.sum((2, 3)) @ first_bias + middle_bias) + last_bias + skip_bias
    return F.conv2d(x, weight, bias, padding=1)


def train_folded(network: SPANNetwork) -> None:
    """Let every Conv3XC run as one convolution from now on: the same function with a quarter of the multiplications."""
    for block in network.modules():
        if isinstance(block, Conv3XC):
            block.forward = MethodType(_as_one_convolution, block)  # type: ignore[method-assign]  # of this one only


def save_network(network: SPANNetwork, scale: int, target: Path) -> None:
    """Write the branches' weights in half precision as .safetensors, atomically."""
    tensors = {name: value.detach().half().contiguous() for name, value in network.state_dict().items()}
    with atomic_file(target) as temporary:
        save_file(tensors, str(temporary), metadata={"architecture": "SPAN", "scale": str(scale)})


class DemoLearner:
    """The network on its way; a Learner of train/loop.py."""

    def __init__(self, plan: Plan, pairs: Sequence[Pair]) -> None:
        self.plan, self.pairs = plan, pairs
        self.network = fresh_network(plan.scale, plan.seed)
        train_folded(self.network)
        groups = [{"params": list(self.network.parameters()), "peak": LEARNING_RATE}]
        self.optimiser = torch.optim.Adam(groups, lr=0.0, betas=(0.9, 0.99))

    def learn(self, step: int) -> float:
        """One step; gives the loss in 8-bit steps."""
        low, high = batch_of(self.pairs, self.plan.seed, step)
        loss = l1(self.network(low), high)
        return 255.0 * descend(self.optimiser, loss, step, "start again with another --seed")

    def judge(self, moment: Moment) -> str:
        """Nothing but the loss is looked at; --validate judges the end."""
        return f"of {self.plan.minutes:g} min"

    def state(self) -> Dict[str, Any]:
        """Network and optimiser."""
        return {"network": self.network.state_dict(), "optimiser": self.optimiser.state_dict()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Be as ``state`` says."""
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])


def train_network(plan: Plan, pairs: Sequence[Pair], target: Path) -> SPANNetwork:
    """Train for ``plan.minutes`` and write ``target``; a state beside it (``.state``) allows going on after a stop.

    Returns:
        the trained network with its weights rounded to half precision, as they are in the file.

    Raises:
        UsageError: the state beside ``target`` belongs to another training.
        BadInput: it cannot be read.
    """
    learner = DemoLearner(plan, pairs)
    schedule = Schedule(None, plan.minutes, WARM_UP_STEPS, LAST_LEARNING_RATE / LEARNING_RATE)
    keeping = Keeping(
        target.with_name(target.name + ".state"),
        key_of(asdict(plan), (low for low, _ in pairs)),
        asdict(plan),
        "started again with the same arguments it goes on there",
        "delete it, or choose another -o",
    )
    resume = keeping.file.exists()
    end = train(learner, Course(schedule, TOLD_EVERY, keeping), resume, lambda text: print(text, flush=True))
    save_network(learner.network, plan.scale, target)
    keeping.file.unlink()
    print(f"{target}: {end.step} steps, {target.stat().st_size} bytes", flush=True)
    return _rounded(learner.network, plan.scale)


def _rounded(network: SPANNetwork, scale: int) -> SPANNetwork:
    """The network as its file has it: branches in half precision, computed in single."""
    plain = SPANNetwork(WIDTH, scale, GAIN)
    plain.load_state_dict({name: value.half().float() for name, value in network.state_dict().items()})
    return plain.eval()


def validate(network: SPANNetwork, scale: int, lr_folder: Path, hr_folder: Path) -> float:
    """Mean PSNR-Y in dB (border = scale) over the pairs of two folders.

    Raises:
        BadImage: a picture without its partner.
    """
    contract = IOContract(value_range=1.0)
    values = []
    for _, lr_path, hr_path in pair_images(lr_folder, hr_folder, scale):
        low = read_picture(lr_path)
        with torch.no_grad():
            result = network(torch.from_numpy(to_network(low, contract))).numpy()
        upscaled = from_network(result, contract, low).pixels
        values.append(CRITERION.of(upscaled, crop_like(read_picture(hr_path).pixels, upscaled, str(hr_path)), scale))
    return float(np.mean(values))


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Parse the command line and train. Gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m sr_deploy.demo.train", description="Train the network that ships.")
    parser.add_argument("--scale", type=int, required=True, choices=(2, 3, 4))
    parser.add_argument("--images", type=Path, required=True, help="folder of 8-bit colour pictures to train on")
    parser.add_argument("--minutes", type=float, default=25.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--validate", type=Path, nargs=2, metavar=("LR", "HR"), help="print PSNR-Y of these folders at the end"
    )
    parser.add_argument("-o", dest="target", type=Path, required=True, help="the .safetensors file to write")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        pairs = training_pairs(options.images, options.scale)
        network = train_network(Plan(options.scale, options.minutes, options.seed, len(pairs)), pairs, options.target)
        if options.validate:
            print(f"PSNR-Y {validate(network, options.scale, *options.validate):.3f} dB")
    except SrDeployError as error:
        print("\n".join(error.lines()), file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
