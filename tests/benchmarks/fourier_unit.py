"""F2SRGAN x4 in ONNX Runtime on the CPU: the published transforms, DFT matrices, folded, folded and rewritten.

    python tests/benchmarks/fourier_unit.py [--size 144] [--repeats 9] [--threads 0]

The plain export is what PyTorch's exporter makes of the published Fourier unit: ONNX operators DFT, shifts of complex
tensors as slices. The others are folded as srdeploy export does it, with --spectral dft and without, and "exported" is
what it writes by default: folded, then rewritten. The graphs run in turn, so that a slow moment of the machine falls on
all of them. The checkpoint is weights/f2srgan_x4.pt of the folder SRDEPLOY_ASSETS, default ../shared. Exit code 1 when
what srdeploy writes is less than five times as fast as the plain export.
"""

from __future__ import annotations

import argparse
import copy
import os
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Dict

import numpy as np
import onnx
import onnxruntime
import torch
import torch.nn.functional as F

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from sr_deploy.fold import fold  # noqa: E402
from sr_deploy.fold.dft import real_dft  # noqa: E402
from sr_deploy.graph.rewrite import RewriteOptions, passes_named  # noqa: E402
from sr_deploy.graph.rewrite.report import rewrite_file  # noqa: E402
from sr_deploy.models.architectures.f2srgan import F2SRGAN, FourierUnit  # noqa: E402
from sr_deploy.models.base import Asked  # noqa: E402

ASSETS = Path(os.environ.get("SRDEPLOY_ASSETS", ROOT.parent / "shared"))
WANTED = 5.0


class PublishedForm(torch.nn.Module):
    """The unit with its complex convolution as four real ones, as published: PyTorch's exporter can write this one.

    Args:
        complex_weight: (C_out, C_in, 1, 1, 2).
    """

    def __init__(self, complex_weight: torch.Tensor) -> None:
        super().__init__()
        self.re = torch.nn.Parameter(complex_weight[..., 0].clone())
        self.im = torch.nn.Parameter(complex_weight[..., 1].clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, C, H, W)."""
        z = torch.fft.fftshift(torch.fft.rfftn(x, dim=(-2, -1), norm="ortho"))
        re = F.conv2d(z.real, self.re) - F.conv2d(z.imag, self.im)
        im = F.conv2d(z.real, self.im) + F.conv2d(z.imag, self.re)
        z = torch.fft.ifftshift(torch.complex(re, im))
        return torch.fft.irfftn(z, s=x.shape[-2:], dim=(-2, -1), norm="ortho")


def with_units(network: torch.nn.Module, replacement) -> torch.nn.Module:
    """A copy of the network with each Fourier unit replaced by ``replacement(unit)``."""
    network = copy.deepcopy(network)
    for part in list(network.modules()):
        for name, child in list(part.named_children()):
            if isinstance(child, FourierUnit):
                setattr(part, name, replacement(child))
    return network.eval()


def write_graphs(network: torch.nn.Module, x: torch.Tensor, folder: Path) -> Dict[str, Path]:
    """Export every form at the size of ``x``; name → file."""
    forms = ("plain export", "DFT matrices", "folded", "exported")
    paths = {name: folder / f"{number}.onnx" for number, name in enumerate(forms)}
    published = with_units(network, lambda unit: PublishedForm(unit.complex_weight.detach()))
    torch.onnx.export(published, (x,), dynamo=True, opset_version=20, verbose=False).save(str(paths["plain export"]))
    for name, spectral in (("DFT matrices", False), ("folded", True)):
        module = fold(network, value_range=255.0, spectral=spectral).module
        with real_dft(fixed=True):
            torch.onnx.export(module, (x,), str(paths[name]), opset_version=17, dynamo=False)
    size = (x.shape[2], x.shape[3])
    shutil.copy(paths["folded"], paths["exported"])
    rewrite_file(paths["exported"], passes_named("default"), RewriteOptions(size=size, value_range=255.0), size)
    return paths


def main() -> int:
    """Print the table; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=144, help="height and width of the input")
    parser.add_argument("--repeats", type=int, default=9, help="timed runs of each form, after one that is not timed")
    parser.add_argument("--threads", type=int, default=0, help="threads of ONNX Runtime (0: its default)")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    file = ASSETS / "weights" / "f2srgan_x4.pt"
    if not file.is_file():
        parser.error(f"{file} is missing: set SRDEPLOY_ASSETS to the folder that holds weights/")
    network = F2SRGAN.load(torch.load(file, map_location="cpu", weights_only=True)["model"], Asked()).module
    x = torch.rand(1, 3, arguments.size, arguments.size, generator=torch.Generator().manual_seed(0)) * 255
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = arguments.threads
    options.log_severity_level = 3
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        expected = network(x).numpy()
        paths = write_graphs(network, x, Path(folder))
        nodes = {name: len(onnx.load(str(path), load_external_data=False).graph.node) for name, path in paths.items()}
        sessions = {
            name: onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            for name, path in paths.items()
        }
        feeds = {name: {session.get_inputs()[0].name: x.numpy()} for name, session in sessions.items()}
        outputs = {name: session.run(None, feeds[name])[0] for name, session in sessions.items()}
        errors = {name: float(np.abs(output - expected).max()) for name, output in outputs.items()}
        times: Dict[str, list] = {name: [] for name in sessions}
        for _ in range(arguments.repeats):
            for name, session in sessions.items():
                start = time.perf_counter()
                session.run(None, feeds[name])
                times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(
        f"F2SRGAN x4, input {arguments.size}x{arguments.size}, ONNX Runtime {onnxruntime.__version__} on the CPU, "
        f"{arguments.repeats} runs each"
    )
    print(f"{'form':<14}{'median s':>10}{'min s':>10}{'max s':>10}{'speed-up':>10}{'error of 255':>14}{'nodes':>8}")
    for name, median in medians.items():
        speed_up = medians["plain export"] / median
        low, high = min(times[name]), max(times[name])
        print(
            f"{name:<14}{median:>10.3f}{low:>10.3f}{high:>10.3f}{speed_up:>9.1f}x{errors[name]:>14.1e}{nodes[name]:>8}"
        )
    reached = medians["plain export"] / medians["exported"]
    print(f"what srdeploy export writes against the plain export: {reached:.1f} times as fast, wanted {WANTED:g}")
    return 0 if reached >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
