"""Networks that srdeploy does not know, written as a user would: what --model path/to/file.py:factory is for.

Own implementations after the published code of NTIRE 2025's teams 39 and 42 (Amazingren/NTIRE2025_ESR): both 0…1, x4.
"""

import torch
import torch.nn.functional as F
from torch import nn


class Wrapped(nn.Module):
    """A convolution under the name ``eval_conv``."""

    def __init__(self, c_in, c_out, kernel):
        super().__init__()
        self.eval_conv = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2)

    def forward(self, x):
        return self.eval_conv(x)


def pooled(x, size):
    """Adaptive max pooling in slices, which any exporter writes for a fixed size."""
    for axis, count in ((2, size[0]), (3, size[1])):
        length = int(x.shape[axis])
        windows = [(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]
        x = torch.cat([x.narrow(axis, a, b - a).amax(axis, keepdim=True) for a, b in windows], dim=axis)
    return x


class Gate(nn.Module):
    def __init__(self, width, gated):
        super().__init__()
        self.gated = gated
        self.proj = Wrapped(width, width, 3)
        self.dwconv = nn.Conv2d(gated, gated, 3, padding=1, groups=gated, bias=False)
        self.out = Wrapped(width, width, 1)

    def forward(self, x):
        height, width = int(x.shape[2]), int(x.shape[3])
        x = self.proj(x)
        head, rest = x[:, : self.gated], x[:, self.gated :]
        coarse = self.dwconv(pooled(head, (height // 8, width // 8)))
        gate = F.gelu(F.interpolate(coarse, size=(height, width), mode="bilinear"))
        return self.out(F.gelu(torch.cat([rest, gate * head], dim=1)))


class Mixer(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.conv1 = Wrapped(width, hidden, 3)
        self.conv2 = Wrapped(hidden, width, 1)

    def forward(self, x):
        return self.conv2(F.gelu(self.conv1(x)))


class GatedBlock(nn.Module):
    def __init__(self, width, gated, hidden):
        super().__init__()
        self.conv1 = Gate(width, gated)
        self.conv2 = Mixer(width, hidden)

    def forward(self, x):
        return self.conv2(self.conv1(x)) + x


class ExpandRepNet(nn.Module):
    def __init__(self, width=36, gated=12, hidden=54, blocks=6):
        super().__init__()
        self.to_feat = Wrapped(3, width, 3)
        self.feats = nn.Sequential(*(GatedBlock(width, gated, hidden) for _ in range(blocks)))
        self.to_img = nn.Sequential(Wrapped(width, 48, 3), nn.PixelShuffle(4))

    def forward(self, x):
        enlarged = F.interpolate(x, scale_factor=4, mode="bilinear", align_corners=False)
        return self.to_img(self.feats(self.to_feat(x))) + enlarged


class Partial(nn.Module):
    """A convolution on the first quarter of the channels."""

    def __init__(self, width):
        super().__init__()
        self.count = width // 4
        self.partial_conv3 = nn.Conv2d(self.count, self.count, 3, padding=1, bias=False)

    def forward(self, x):
        return torch.cat([self.partial_conv3(x[:, : self.count]), x[:, self.count :]], dim=1)


def interleaved(x, groups):
    """Channel shuffle."""
    batch, channels, height, width = x.shape
    return x.reshape(batch, groups, channels // groups, height, width).transpose(1, 2).reshape(x.shape)


def ones(width):
    return nn.Parameter(torch.ones(1, width, 1, 1))


class Inverted(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.expand = nn.Conv2d(width, 2 * width, 1, bias=False)
        self.depthwise = nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width, bias=False)
        self.project = nn.Conv2d(2 * width, width, 1, bias=False)

    def forward(self, x):
        return self.project(self.depthwise(interleaved(self.expand(x), 2))) + x


class Edges(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("kernel_x", torch.zeros(1, 1, 3, 3))
        self.register_buffer("kernel_y", torch.zeros(1, 1, 3, 3))

    def forward(self, x):
        width = x.shape[1]
        across, down = (
            F.conv2d(x, kernel.repeat(width, 1, 1, 1), padding=1, groups=width)
            for kernel in (self.kernel_x, self.kernel_y)
        )
        return across, down, torch.sqrt(across**2 + down**2 + 1e-6)


class EdgeAttention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.c1_r, self.c2_r = Inverted(width), Inverted(width)
        self.c3_r = nn.Conv2d(width, width, 1)
        self.swt = Edges()
        self.concatandproyect = nn.Conv2d(3 * width, width, 1)
        self.alpha, self.beta, self.gamma, self.theta, self.omega = (ones(width) for _ in range(5))
        self.pconv1, self.pconv2, self.pconv3, self.pconv4 = (Partial(width) for _ in range(4))

    def forward(self, x):
        feature = x + self.omega * F.silu(self.c2_r(F.silu(self.c1_r(x))))
        across, down, strength = self.swt(feature)
        edges = self.alpha * self.pconv1(across) + self.beta * self.pconv2(down) + self.gamma * self.pconv3(strength)
        weighted = self.c3_r(self.pconv4(edges) * feature)
        return self.concatandproyect(torch.cat([weighted, feature, x], dim=1))


class GatedInverted(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.DWConv1 = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.PWConv1 = nn.Conv2d(width, 2 * width, 1, bias=False)
        self.PConv1, self.Pconv2, self.Pconv3 = Partial(2 * width), Partial(width), Partial(width)
        self.alpha = ones(width)

    def forward(self, x):
        wide = self.PConv1(interleaved(self.PWConv1(self.DWConv1(x)), x.shape[1]))
        half = wide.shape[1] // 2
        return self.alpha * self.Pconv2(wide[:, :half] * wide[:, half:]) + self.Pconv3(x)


class Spatial(nn.Module):
    def __init__(self, width, reduced=32):
        super().__init__()
        self.PWConv1 = nn.Conv2d(width, reduced, 1, bias=False)
        self.conv2 = nn.Conv2d(reduced, reduced, 3, stride=2, bias=False)
        self.PConv1, self.PConv2 = Partial(reduced), Partial(reduced)
        self.PWConv2 = nn.Conv2d(reduced, width, 1, bias=False)
        self.alpha = ones(reduced)

    def forward(self, x):
        narrow = self.PWConv1(x)
        coarse = self.PConv1(F.max_pool2d(interleaved(self.conv2(narrow), 16), 7, stride=3))
        coarse = F.interpolate(coarse, size=x.shape[-2:], mode="bilinear", align_corners=False)
        return torch.sigmoid(self.PWConv2(self.alpha * coarse + self.PConv2(narrow))) * x


class Refined(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.IRB1, self.IRB2, self.Eesa = GatedInverted(width), GatedInverted(width), Spatial(width)

    def forward(self, x):
        return self.Eesa(self.IRB2(F.leaky_relu(self.IRB1(x), 0.05)))


class FEAN(nn.Module):
    def __init__(self, width=64):
        super().__init__()
        self.conv_init = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.eswrb = EdgeAttention(width)
        self.block_1, self.block_2 = Refined(width), Refined(width)
        self.upsampler = nn.Sequential(nn.Conv2d(width, 48, 3, padding=1), nn.PixelShuffle(4))
        self.omega = ones(width)

    def forward(self, x):
        shallow = self.conv_init(x)
        deep = self.block_2(self.block_1(self.eswrb(shallow)))
        return self.upsampler(self.omega * deep + shallow)


def expandrepnet():
    return ExpandRepNet()


def fean():
    return FEAN()
