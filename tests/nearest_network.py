"""A network that repeats every pixel: what it makes of a picture is known, so that colours and order can be judged."""

from __future__ import annotations

import torch

SCALE = 2


class Nearest(torch.nn.Module):
    """(N, 3, H, W) to (N, 3, 2H, 2W); one weight, so that there is something in the checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.spread = torch.nn.Conv2d(3, 3 * SCALE**2, 1, bias=False)
        self.shuffle = torch.nn.PixelShuffle(SCALE)
        with torch.no_grad():
            self.spread.weight.copy_(torch.eye(3).repeat_interleave(SCALE**2, 0)[:, :, None, None])

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        return self.shuffle(self.spread(lr))


def nearest() -> torch.nn.Module:
    return Nearest().eval()


def deployed(folder, **options):
    """The network exported, and its folder."""
    from sr_deploy.pipeline.export import ExportOptions, export_deployment
    from sr_deploy.pipeline.load import LoadOptions

    checkpoint = folder / "nearest.pth"
    torch.save(nearest().state_dict(), checkpoint)
    load = LoadOptions(factory="tests.nearest_network:nearest", value_range=1.0)
    return export_deployment(ExportOptions(checkpoint, folder / "net", load=load, **options)).folder
