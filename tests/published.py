"""The shared checkpoints whose published code's outputs are at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator, Tuple

import numpy as np

#: The ten checkpoints with golden outputs: file in weights/, file in golden/, value range.
GOLDEN = (
    ("efdn_x4.pth", "efdn_x4.npz", 1.0),
    ("efdn_x2.pth", "efdn_x2.npz", 1.0),
    ("span_ch26_x4.pth", "span_ch26_x4.npz", 1.0),
    ("span_ch28_x4.pth", "span_ch28_x4.npz", 1.0),
    ("dsclora_x4.pth", "dsclora_x4.npz", 1.0),
    ("f2srgan_x4.pt", "f2srgan_x4.npz", 255.0),
    ("f2srgan_x2.pt", "f2srgan_x2.npz", 255.0),
    ("f2srgan_x4_qat.pth.tar", "f2srgan_x4_qat.npz", 255.0),
    ("f2srgan_x4_student.pt", "f2srgan_x4_student.npz", 255.0),
    ("light_f2srgan_x4_whole_module.pt", "light_f2srgan_x4_whole_module.npz", 255.0),
)

#: Those of the NTIRE challenges 2024 to 2026: file in weights/, architecture, value range, parameters.
NTIRE = (
    ("rlfn_x4.pth", "RLFN", 255.0, 317_218),
    ("rfdn_x4.pkl", "RFDN", 255.0, 433_448),
    ("spanf_x4.pth", "SPANF", 1.0, 148_288),
    ("spanv2_x4.pth", "SPANV2", 1.0, 139_104),
    ("dscf_fused_x4.pth", "DSCF", 1.0, 125_992),
    ("disp_x4.pth", "DISP", 1.0, 163_792),
)


def golden_cases(assets: Path, golden: str, value_range: float) -> Iterator[Tuple[np.ndarray, np.ndarray]]:
    """(input, expected) of both golden pictures, in the network's value range; what is expected is not clamped.

    Args:
        assets: the folder with golden/.
        golden: a file in it, or the checkpoint's name.
        value_range: the value of white.
    """
    stored = np.load(assets / "golden" / f"{golden.split('.')[0]}.npz")
    for parity in ("even", "odd"):
        lr = stored[f"input_{parity}"].transpose(2, 0, 1)[None].astype(np.float32) * (value_range / 255)
        yield lr, stored[f"output_{parity}"] * (value_range / 255)


def shortened(weights: Path, out: Path, blocks: int = 2) -> Path:
    """Write a published F2SRGAN with its first residual blocks alone: the same parts in a quarter of the time.

    Args:
        weights: its checkpoint.
        out: where the shorter one is written.
        blocks: how many it keeps.
    """
    import torch

    from sr_deploy.checkpoint.read import checkpoint_from_file

    kept = {
        key: tensor
        for key, tensor in checkpoint_from_file(weights).tensors.items()
        if not key.startswith("residual.") or int(key.split(".")[1]) < blocks
    }
    torch.save(kept, out)
    return out
