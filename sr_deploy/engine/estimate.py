"""How long an engine should take on a GPU that is not here, from its listing of layers. Always an estimate.

Each kernel takes the larger of two times, its bytes over the bandwidth and its products over the rate of their type,
and a launch; the kernels follow each other. Neither reaches its peak on a real GPU, caches keep what is small, and the
tactic of a kernel is chosen on the GPU: estimates compare forms of one network, they do not promise milliseconds.
"""

from __future__ import annotations

import math
from typing import Optional, Tuple

from sr_deploy.core.host.gpu_rates import GpuRates
from sr_deploy.engine.listing import Layer, Listing, computes_products

#: What every table and JSON with these numbers must say.
ESTIMATE = "estimate: from the builder's listing and published rates, not a measurement"

#: The largest convolution kernel, in taps a side: more is a picture.
LARGEST = 32


def products_of_layer(layer: Layer) -> Tuple[int, str]:
    """Multiply-accumulates of a layer's convolution or matrix product, and the type that they are in.

    A convolution has a constant of four axes (C_out, C_in, kh, kw), each value of which is used once for an output
    pixel (transposed: an input pixel); a matrix product one of which the last axis meets the features' last but one.
    (0, "") for a layer without one; a product of two activations, as in attention, is counted as 0 too.
    """
    if not computes_products(layer) or not layer.constants or not layer.outputs or not layer.inputs:
        return 0, ""
    # Slopes and biases may be listed as broadcast over the picture: a kernel is smaller than that.
    taps = [constant for constant in layer.constants if len(constant.shape) < 4 or max(constant.shape[2:]) <= LARGEST]
    if not taps:
        return 0, ""
    factor = max(taps, key=lambda constant: math.prod(constant.shape))
    if len(factor.shape) == 4 and len(layer.outputs[0].shape) == 4:
        # A transposed convolution enlarges: its taps meet input pixels.
        pixels = min(math.prod(tensor.shape[2:]) for tensor in (layer.inputs[0], layer.outputs[0]) if tensor.shape[2:])
        strided = math.prod(layer.outputs[0].shape[2:]) < math.prod(layer.inputs[0].shape[2:])
        pixels = math.prod(layer.outputs[0].shape[2:]) if strided else pixels
        return math.prod(factor.shape) * pixels, factor.type
    length = factor.shape[-1]
    return math.prod(layer.outputs[0].shape) * length, factor.type


def estimated_ms(listing: Listing, gpu: GpuRates) -> Optional[float]:
    """The sum over kernels, milliseconds; None where a size is not fixed."""
    total = 0.0
    for layer in listing.layers:
        if not layer.is_kernel:
            continue
        if layer.bytes_moved is None:
            return None
        macs, kind = products_of_layer(layer)
        # A type without a rate of its own is taken as float16.
        rate = gpu.tera_macs.get(kind, gpu.tera_macs["float16"])
        seconds = max(layer.bytes_moved / (gpu.bandwidth * 1e9), macs / (rate * 1e12))
        total += seconds * 1e3 + gpu.launch_us * 1e-3
    return total


def giga_macs(listing: Listing) -> float:
    """10⁹ multiply-accumulates of all layers."""
    return sum(products_of_layer(layer)[0] for layer in listing.layers) / 1e9
