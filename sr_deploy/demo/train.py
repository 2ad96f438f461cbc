"""Train the network that ships: a SPAN with 12 channels in its training form, on pictures shrunk by bicubic.

    python -m sr_deploy.demo.train --scale 2 --images FOLDER --minutes 25 -o demo_x2.safetensors

L1 loss, Adam, cosine schedule over the time given, one thread. Stopped, it goes on where it was when started again with
the same arguments. The order of patches depends on the seed alone; how many steps fit into the time, on the machine.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MethodType
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from sr_deploy.core.artifact import atomic_file
from sr_deploy.core.contract import IOContract
from sr_deploy.core.errors import BadImage, SrDeployError, UsageError
from sr_deploy.core.media.bicubic import crop_to_multiple, resize
from sr_deploy.core.media.image import find_images, from_network, read_picture, to_network
from sr_deploy.core.quality.metrics import CRITERION
from sr_deploy.core.quality.pairing import pair_images
from sr_deploy.core.quality.psnr_ssim import crop_like
from sr_deploy.models.span import Conv3XC, SPANNetwork

WIDTH = 12
GAIN = 2
BATCH = 16
#: Input pixels on a side of a training patch.
PATCH = 24
LEARNING_RATE = 2e-3
LAST_LEARNING_RATE = 1e-5
WARM_UP_STEPS = 200
SECONDS_BETWEEN_SAVES = 60.0

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
            raise BadImage(f"{path} is too small to train on", f"{PATCH * scale} pixels or more each way")
        pairs.append((resize(high, (high.shape[0] // scale, high.shape[1] // scale)), high))
    return pairs


def batch_of(pairs: Sequence[Pair], scale: int, seed: int, step: int) -> Tuple[torch.Tensor, torch.Tensor]:
    """Patches for one step, turned and mirrored at random: (16, 3, 24, 24) and (16, 3, 24·scale, 24·scale) in 0…1.

    The same ``seed`` and ``step`` give the same patches, so a training that goes on needs no stored random state.
    """
    draw = np.random.default_rng((seed, step))
    lows, highs = [], []
    for _ in range(BATCH):
        low, high = pairs[draw.integers(len(pairs))]
        top, left = draw.integers(low.shape[0] - PATCH + 1), draw.integers(low.shape[1] - PATCH + 1)
        quarter_turns, mirrored = int(draw.integers(4)), bool(draw.integers(2))
        for picture, factor, patches in ((low, 1, lows), (high, scale, highs)):
            side = PATCH * factor
            patch = picture[top * factor : top * factor + side, left * factor : left * factor + side]
            patch = np.rot90(patch, quarter_turns)
            patches.append(patch[:, ::-1] if mirrored else patch)
    return _tensor(lows), _tensor(highs)


def _tensor(patches: Sequence[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.stack(patches).transpose(0, 3, 1, 2))).float() / 255.0


def fresh_network(scale: int, seed: int) -> SPANNetwork:
    """A network that starts as nearest-neighbour upscaling: short trainings learn the detail only.

    Three channels carry the colours from the skip of the first block straight to the upsampler, which repeats them;
    the upsampler's other weights start near zero.
    """
    torch.manual_seed(seed)
    network = SPANNetwork(WIDTH, scale, GAIN)
    upsampler = network.upsampler[0]
    with torch.no_grad():
        for convolution in (network.conv_1.sk, network.conv_1.conv[2], network.conv_cat):
            convolution.weight[:3] = 0.0
            convolution.bias[:3] = 0.0
        network.conv_1.sk.weight[:3, :, 0, 0] = torch.eye(3)
        network.conv_cat.weight[:3, :3, 0, 0] = torch.eye(3)
        upsampler.weight.mul_(1e-3)
        upsampler.weight[:, :3] = 0.0
        upsampler.bias.copy_(network.mean.flatten().repeat_interleave(scale**2))
        for colour in range(3):
            upsampler.weight[colour * scale**2 : (colour + 1) * scale**2, colour, 1, 1] = 1.0 / 255.0
    return network


def _as_one_convolution(block: Conv3XC, x: torch.Tensor) -> torch.Tensor:
    """A Conv3XC's forward pass through the one 3x3 convolution that its branches are; gradients reach the branches."""
    first, middle, last = block.conv
    after = last.weight.flatten(1)
    weight = torch.einsum("om,mnhw->onhw", after, torch.einsum("mkhw,kn->mnhw", middle.weight, first.weight.flatten(1)))
    weight = weight + F.pad(block.sk.weight, (1, 1, 1, 1))
    bias = after @ (middle.weight.sum((2, 3)) @ first.bias + middle.bias) + last.bias + block.sk.bias
    return F.conv2d(x, weight, bias, padding=1)


def train_folded(network: SPANNetwork) -> None:
    """Let every Conv3XC run as one convolution from now on: the same function with a quarter of the multiplications."""
    for block in network.modules():
        if isinstance(block, Conv3XC):
            block.forward = MethodType(_as_one_convolution, block)


def learning_rate(share: float, step: int) -> float:
    """Warm-up, then half a cosine from the first to the last rate; ``share`` of the time is over (0…1)."""
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(share, 1.0)))
    rate = LAST_LEARNING_RATE + (LEARNING_RATE - LAST_LEARNING_RATE) * cosine
    return rate * min(1.0, (step + 1) / WARM_UP_STEPS)


def save_network(network: SPANNetwork, scale: int, target: Path) -> None:
    """Write the branches' weights in half precision as .safetensors, atomically."""
    tensors = {name: value.detach().half().contiguous() for name, value in network.state_dict().items()}
    with atomic_file(target) as temporary:
        save_file(tensors, str(temporary), metadata={"architecture": "SPAN", "scale": str(scale)})


def _save_state(path: Path, state: Dict[str, object]) -> None:
    with atomic_file(path) as temporary:
        torch.save(state, str(temporary))


def train(plan: Plan, pairs: Sequence[Pair], target: Path) -> SPANNetwork:
    """Train for ``plan.minutes`` and write ``target``; a state beside it (``.state``) allows going on after a stop.

    Returns:
        the trained network with its weights rounded to half precision, as they are in the file.

    Raises:
        UsageError: the state beside ``target`` belongs to another plan.
    """
    network = fresh_network(plan.scale, plan.seed)
    train_folded(network)
    adam = torch.optim.Adam(network.parameters(), LEARNING_RATE, betas=(0.9, 0.99))
    state_path = target.with_name(target.name + ".state")
    step, spent, loss_now = 0, 0.0, float("nan")
    if state_path.exists():
        state = torch.load(str(state_path), weights_only=True)
        if state["plan"] != asdict(plan):
            raise UsageError(
                f"{state_path} belongs to another training: {state['plan']}",
                str(asdict(plan)),
                "delete it, or choose another -o",
            )
        network.load_state_dict(state["network"])
        adam.load_state_dict(state["adam"])
        step, spent = state["step"], state["spent"]
        print(f"going on at step {step}, {spent / 60:.1f} of {plan.minutes:g} minutes", flush=True)
    started, saved = time.monotonic() - spent, spent
    while spent < plan.minutes * 60:
        for group in adam.param_groups:
            group["lr"] = learning_rate(spent / (plan.minutes * 60), step)
        low, high = batch_of(pairs, plan.scale, plan.seed, step)
        loss = F.l1_loss(network(low), high)
        adam.zero_grad()
        loss.backward()
        adam.step()
        step += 1
        loss_now = loss.item() if math.isnan(loss_now) else 0.99 * loss_now + 0.01 * loss.item()
        spent = time.monotonic() - started
        if spent - saved >= SECONDS_BETWEEN_SAVES:
            state = {"plan": asdict(plan), "network": network.state_dict(), "adam": adam.state_dict()}
            _save_state(state_path, dict(state, step=step, spent=spent))
            saved = spent
            print(f"{spent / 60:5.1f} min  step {step}  loss {loss_now * 255:.3f} of 255", flush=True)
    save_network(network, plan.scale, target)
    state_path.unlink(missing_ok=True)
    print(f"{target}: {step} steps, {target.stat().st_size} bytes", flush=True)
    return _rounded(network, plan.scale)


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
        network = train(Plan(options.scale, options.minutes, options.seed, len(pairs)), pairs, options.target)
        if options.validate:
            print(f"PSNR-Y {validate(network, options.scale, *options.validate):.3f} dB")
    except SrDeployError as error:
        print("\n".join(error.lines()), file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
